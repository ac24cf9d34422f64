//! Stacks of random requests against a plain sequential model.
//!
//! The requests work on one counter: POST adds one, GET tells it, DELETE sets it to nothing. The model does them one by
//! one. The device's parser and order do them with random cuts of the bytes, random servers that take any time and may
//! fail; each request touches the counter at a random moment between its start and its end. Whatever the moments are,
//! every reply must be the model's, and in its order.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{Order, Seq, Turn};
use crate::h1::{Limits, RequestHead, RequestParser};

/// Cases in one run.
const CASES: u64 = 100_000;
/// Replays one case: the number that a failure names.
const SEED_VARIABLE: &str = "CMIM_STACK_SEED";
const DEPTHS: [usize; 5] = [1, 2, 3, 8, 16];
const LIMITS: Limits = Limits { head: 4096, fields: 10, target: 100, content: 0 };

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Counter(u64),
    /// The server failed; what it did before that counts.
    Failed,
}

#[derive(Debug)]
struct Request {
    method: &'static str,
    fails: bool,
}

impl Request {
    fn apply(&self, counter: &mut u64) -> Reply {
        match self.method {
            "POST" => *counter += 1,
            "DELETE" => *counter = 0,
            _ => {}
        }
        if self.fails { Reply::Failed } else { Reply::Counter(*counter) }
    }
}

/// A request that a server has.
struct Running {
    seq: Seq,
    request: Request,
    /// What it saw when it touched the counter, once it has.
    reply: Option<Reply>,
}

/// The device's side of one case.
struct Device {
    order: Order,
    parser: RequestParser,
    input: BytesMut,
    waiting: VecDeque<Request>,
    running: Vec<Running>,
    whole: Vec<(Seq, Reply)>,
    sent: Vec<Reply>,
    counter: u64,
}

impl Device {
    fn new(depth: usize) -> Self {
        Self {
            order: Order::new(depth),
            parser: RequestParser::new(),
            input: BytesMut::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            whole: Vec::new(),
            sent: Vec::new(),
            counter: 0,
        }
    }

    /// Reads and starts whatever may be read and started.
    fn settle(&mut self) {
        while self.order.has_room() && !self.input.is_empty() {
            let Some(head) = self.parser.parse(&mut self.input, &LIMITS).expect("valid requests") else { break };
            self.order.arrived(if head.method.is_safe() { Turn::Free } else { Turn::Barrier });
            self.waiting.push_back(request_of(&head));
        }
        while let Some(seq) = self.order.start_next() {
            let request = self.waiting.pop_front().expect("what starts was read");
            self.running.push(Running { seq, request, reply: None });
        }
    }

    /// One random step of the servers or of the sending; false: there was nothing to do.
    fn step(&mut self, random: &mut Random) -> bool {
        let due = self.order.due();
        if let Some(at) = self.whole.iter().position(|(seq, _)| *seq == due)
            && (self.running.is_empty() || random.below(2) == 0)
        {
            self.sent.push(self.whole.swap_remove(at).1);
            self.order.sent();
            return true;
        }
        if self.running.is_empty() {
            return false;
        }
        let at = random.below(self.running.len());
        let running = &mut self.running[at];
        match running.reply {
            None => running.reply = Some(running.request.apply(&mut self.counter)),
            Some(reply) => {
                let seq = self.running.swap_remove(at).seq;
                self.order.whole(seq);
                self.whole.push((seq, reply));
            }
        }
        true
    }
}

fn request_of(head: &RequestHead) -> Request {
    let method = match head.method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        _ => "DELETE",
    };
    Request { method, fails: head.target.ends_with(b"fail") }
}

fn case(seed: u64) {
    let mut random = Random(seed);
    let requests: Vec<Request> = (0..1 + random.below(24))
        .map(|_| Request {
            method: ["GET", "GET", "GET", "HEAD", "POST", "DELETE"][random.below(6)],
            fails: random.below(8) == 0,
        })
        .collect();
    let mut counter = 0;
    let model: Vec<Reply> = requests.iter().map(|request| request.apply(&mut counter)).collect();
    let mut bytes = Vec::new();
    for request in &requests {
        let target = if request.fails { "/fail" } else { "/" };
        bytes.extend_from_slice(format!("{} {target} HTTP/1.1\r\nHost: a\r\n\r\n", request.method).as_bytes());
    }

    let mut device = Device::new(DEPTHS[random.below(DEPTHS.len())]);
    let mut rest = bytes.as_slice();
    while device.sent.len() < requests.len() {
        if !rest.is_empty() && random.below(2) == 0 {
            let (cut, after) = rest.split_at(1 + random.below(rest.len().min(60)));
            device.input.extend_from_slice(cut);
            rest = after;
        }
        device.settle();
        let moved = device.step(&mut random);
        assert!(moved || !rest.is_empty(), "nothing moves and not all is answered");
    }
    assert_eq!(device.sent, model);
    assert_eq!(device.counter, counter);
    assert!(device.order.is_empty());
}

#[test]
fn random_stacks_are_answered_as_if_done_one_by_one() {
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        case(seed.parse().expect("a number"));
        return;
    }
    for seed in 0..CASES {
        let run = std::panic::catch_unwind(|| case(seed));
        assert!(run.is_ok(), "case {seed} failed; {SEED_VARIABLE}={seed} replays it");
    }
}
