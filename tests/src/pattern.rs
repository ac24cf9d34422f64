//! Large contents whose every byte is known without being kept: written and compared piece by piece.

use std::sync::OnceLock;

use crate::client::{Client, Framing, Head};
use crate::origin::ServerSide;
use crate::wire::WireError;

/// The bytes repeat after so many: a prime, so that no extent or block looks like another one.
const PERIOD: usize = 1_048_573;
/// How far apart two contents begin.
const STRIDE: usize = 7_919;
const PIECE: usize = 256 * 1024;

/// A content: contents of different seeds differ nearly everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    pub seed: usize,
    pub length: u64,
}

impl Pattern {
    pub fn new(seed: usize, length: u64) -> Self {
        Self { seed, length }
    }

    /// `/DELIMITED/SEED/LENGTH`, as [`serve`] understands it behind any prefix; `delimited` is `close`, `chunked` or `length`.
    pub fn target(&self, delimited: &str) -> String {
        format!("/{delimited}/{}/{}", self.seed, self.length)
    }

    /// The content that a target's last two segments name.
    #[track_caller]
    pub fn of_target(target: &str) -> Self {
        let mut numbers = target.rsplit('/').map(|segment| segment.parse::<u64>().expect("a number in the target"));
        let (length, seed) = (numbers.next().expect("a length"), numbers.next().expect("a seed"));
        Self { seed: usize::try_from(seed).expect("a seed"), length }
    }

    /// The bytes from `at` on, at most a piece of them.
    pub fn piece(&self, at: u64) -> &'static [u8] {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        from(self.seed, at, left.min(PIECE))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let piece @ [_, ..] = self.piece(bytes.len() as u64) {
            bytes.extend_from_slice(piece);
        }
        bytes
    }

    fn wrong(&self, at: u64, came: &[u8]) -> Wrong {
        const TELLING: usize = 16;
        let all = from(0, 0, PERIOD + PIECE);
        let found = came.get(..TELLING).and_then(|some| all.windows(TELLING).position(|window| window == some));
        let period = PERIOD as i64;
        let ahead = found.map(|found| {
            let ahead = (found as i64 - start(self.seed, at) as i64).rem_euclid(period);
            if ahead > period / 2 { ahead - period } else { ahead }
        });
        Wrong { at, ahead, came: came[..came.len().min(TELLING)].to_vec() }
    }

    pub fn check(&self) -> Check {
        Check { pattern: *self, at: 0, first_wrong: None }
    }

    /// Reads the content that follows `head` and panics unless it is this one, whole.
    #[track_caller]
    pub fn assert_follows(&self, head: &Head, client: &mut Client) {
        let mut check = self.check();
        let outcome = client.content(head.framing, &mut |part| check.feed(part));
        check.assert_whole(outcome.as_ref().err());
        if let Framing::Length(length) = head.framing {
            assert_eq!(length, self.length, "the length that was announced");
        }
    }
}

/// Compares a content as it comes.
#[derive(Debug)]
pub struct Check {
    pattern: Pattern,
    at: u64,
    first_wrong: Option<Wrong>,
}

/// The first byte that is not the pattern's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    at: u64,
    /// How much further on in the pattern, to within its period, what came belongs: so much is missing, or, below 0, came
    /// again. `None`: it belongs nowhere, or too little of it came in one piece.
    ahead: Option<i64>,
    came: Vec<u8>,
}

impl Check {
    pub fn feed(&mut self, part: &[u8]) {
        for part in part.chunks(PIECE) {
            let right = from(self.pattern.seed, self.at, part.len());
            if self.first_wrong.is_none() && part != right {
                let place = part.iter().zip(right).take_while(|(came, right)| came == right).count();
                self.first_wrong = Some(self.pattern.wrong(self.at + place as u64, &part[place..]));
            }
            self.at += part.len() as u64;
        }
    }

    /// Bytes that have come.
    pub fn at(&self) -> u64 {
        self.at
    }

    #[track_caller]
    pub fn assert_right_so_far(&self) {
        assert_eq!(self.first_wrong, None, "{:?}", self.pattern);
    }

    #[track_caller]
    pub fn assert_whole(&self, error: Option<&WireError>) {
        self.assert_right_so_far();
        assert!(error.is_none() && self.at == self.pattern.length, "{} of {:?}: {error:?}", self.at, self.pattern);
    }
}

/// A script: answers each request with the content that its target names, delimited as the segment before says, and
/// closes. It calls `before_byte` with every position from which it goes on.
pub fn serve(before_byte: impl Fn(u64) + Send + Sync + 'static) -> impl Fn(&mut ServerSide) + Send + Sync + 'static {
    move |side| {
        let Some(request) = side.request() else { return };
        let pattern = Pattern::of_target(&request.target);
        let chunked = request.target.contains("/chunked/");
        let delimited = match request.target.rsplit('/').nth(2) {
            Some("chunked") => "Transfer-Encoding: chunked\r\n".to_owned(),
            Some("length") => format!("Content-Length: {}\r\n", pattern.length),
            _ => String::new(),
        };
        let mut on = side.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{delimited}\r\n"));
        let mut at = 0;
        while on && at < pattern.length {
            before_byte(at);
            let piece = pattern.piece(at);
            on = (!chunked || side.send(format!("{:x}\r\n", piece.len())))
                && side.send(piece)
                && (!chunked || side.send("\r\n"));
            at += piece.len() as u64;
        }
        if on && chunked {
            side.send("0\r\n\r\n");
        }
    }
}

fn from(seed: usize, at: u64, length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = vec![0; PERIOD];
        fastrand::Rng::with_seed(1).fill(&mut bytes);
        bytes.extend_from_within(..PIECE);
        bytes
    });
    &bytes[start(seed, at)..][..length]
}

/// Where the byte of a content at `at` stands among all.
fn start(seed: usize, at: u64) -> usize {
    (at as usize % PERIOD + seed * STRIDE) % PERIOD
}
