//! Servers that do what each request's target tells them, and the logbook that they keep together.
//!
//! `/any/path?wait=100&size=5000&as=chunked`: what the path is does not matter, the words behind the `?` do.
//!
//! | word | means |
//! |---|---|
//! | `wait=MS` | the reply comes after so many milliseconds |
//! | `hold` | it comes when the test says so ([`Crew::release`]) |
//! | `size=N` | bytes of content; without it the content is the target itself |
//! | `as=length`, `as=chunked`, `as=close` | how the content is delimited |
//! | `stall` | half of the content comes, the rest when the test says so |
//! | `fault=…` | one of [`FAULTS`], in the reply's place |

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::faulty::chunk;
use super::scripted::{Request, ScriptedServer, ServerSide};
use crate::client::{Client, request};
use crate::deadline::{PATIENCE, until_true};
use crate::setup::Setup;

/// What a server can do wrong, and what the device has to say in the reply's place while none of it was sent.
pub const FAULTS: [(&str, u16); 9] = [
    // Closes before a byte of the reply.
    ("close", 502),
    ("reset", 502),
    // Takes the request and says nothing.
    ("silent", 504),
    // Half of the content, and then nothing, a close, or a reset.
    ("pause", 504),
    ("truncate", 502),
    ("break", 502),
    // Two lengths that differ.
    ("lengths", 502),
    // No HTTP.
    ("garbage", 502),
    // A chunk size that is none.
    ("chunk", 502),
];

/// How often a server that holds its reply looks whether it may go on.
const LOOK: Duration = Duration::from_millis(1);

/// One request at one server.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The server's number, from 0.
    pub server: usize,
    pub method: String,
    pub target: String,
    /// When its head had come.
    pub began: Instant,
    /// Just before the last byte of the reply went out.
    pub ended: Option<Instant>,
}

impl Visit {
    pub fn end(&self) -> Instant {
        self.ended.unwrap_or_else(|| panic!("{self:?} has not ended"))
    }

    fn was_at_work(&self, moment: Instant) -> bool {
        self.began <= moment && self.ended.is_none_or(|end| moment < end)
    }

    /// Whether both were at work at the same moment.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.began < other.end() && other.began < self.end()
    }
}

#[derive(Debug, Default)]
struct Shared {
    visits: Mutex<Vec<Visit>>,
    released: AtomicBool,
    /// Requests that are at work now, and the most that ever were.
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Several obedient servers with one logbook.
#[derive(Debug)]
pub struct Crew {
    servers: Vec<ScriptedServer>,
    shared: Arc<Shared>,
}

impl Crew {
    pub fn of(count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let servers = (0..count).map(|number| {
            let shared = shared.clone();
            ScriptedServer::start(move |side| serve(side, number, &shared))
        });
        Self { servers: servers.collect(), shared }
    }

    /// A device's configuration with each of the servers, and `more` of its keys: `max_requests = 4`.
    pub fn setup(&self, more: &str) -> Setup<'static> {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        self.servers.iter().fold(Setup::before::<&str>(&[]), |setup, server| {
            setup.server(&format!("address = \"{}\"{more}", server.address()))
        })
    }

    pub fn servers(&self) -> &[ScriptedServer] {
        &self.servers
    }

    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address().to_owned()).collect()
    }

    /// Lets go whatever holds or stalls, now and until [`Self::hold_again`].
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// From now on it holds again.
    pub fn hold_again(&self) {
        self.shared.released.store(false, Ordering::SeqCst);
    }

    /// All requests that came, in the order in which their heads did.
    pub fn visits(&self) -> Vec<Visit> {
        let mut visits = self.shared.visits.lock().expect("the logbook").clone();
        visits.sort_by_key(|visit| visit.began);
        visits
    }

    /// The one request for `target`.
    #[track_caller]
    pub fn visit(&self, target: &str) -> Visit {
        let mut found: Vec<Visit> = self.visits().into_iter().filter(|visit| visit.target == target).collect();
        assert_eq!(found.len(), 1, "requests for {target}: {found:?}");
        found.remove(0)
    }

    #[track_caller]
    pub fn wait_for_visits(&self, count: usize) {
        until_true(&format!("{count} requests at the servers"), PATIENCE, || self.visits().len() >= count);
    }

    /// The most requests that were ever at work at the same time, over all servers.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// The same for one server, out of the logbook.
    pub fn most_at_once_at(&self, server: usize) -> usize {
        let visits: Vec<Visit> = self.visits().into_iter().filter(|visit| visit.server == server).collect();
        let beside = |visit: &Visit| visits.iter().filter(|other| other.was_at_work(visit.began)).count();
        visits.iter().map(beside).max().unwrap_or(0)
    }

    /// Connections that the servers have not seen the end of.
    pub fn open(&self) -> usize {
        self.servers.iter().map(ScriptedServer::open).sum()
    }

    /// What was wrong with the bytes that the servers received; empty after orderly traffic.
    pub fn faults(&self) -> Vec<String> {
        self.servers.iter().flat_map(ScriptedServer::faults).collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.release();
    }
}

/// The content that the target asks for.
pub fn page(target: &str) -> Vec<u8> {
    let size = number(target, "size").unwrap_or(target.len());
    let mut content = target.as_bytes().repeat(size.div_ceil(target.len().max(1)));
    content.truncate(size);
    content
}

/// GETs for these targets, back to back.
pub fn gets<S: AsRef<str>>(targets: &[S]) -> Vec<u8> {
    targets.iter().flat_map(|target| request("GET", target.as_ref(), "", b"")).collect()
}

/// Reads the replies to GETs for these targets and holds each to be the right page, whole and with its length.
#[track_caller]
pub fn assert_pages<S: AsRef<str>>(client: &mut Client, targets: &[S]) {
    for target in targets {
        client.reply().assert_whole(&page(target.as_ref()));
    }
}

fn serve(side: &mut ServerSide, number: usize, shared: &Shared) {
    while let Some(request) = side.request() {
        let entry = begin(shared, number, &request);
        let target = &request.target;
        if has(target, "hold") {
            wait_for_release(shared);
        }
        thread::sleep(Duration::from_millis(self::number(target, "wait").unwrap_or(0) as u64));
        let mut ended = false;
        let goes_on = answer(side, &request, shared, &mut || {
            end(shared, entry);
            ended = true;
        });
        if !ended {
            end(shared, entry);
        }
        if !goes_on {
            return;
        }
    }
}

/// Sends the reply, or does wrong; `end` is called before the last byte. `false`: the connection is over.
fn answer(side: &mut ServerSide, request: &Request, shared: &Shared, end: &mut dyn FnMut()) -> bool {
    let target = &request.target;
    if let Some(fault) = word(target, "fault") {
        do_wrong(side, fault, target);
        return false;
    }
    let content = page(target);
    let delimited = match word(target, "as") {
        Some("chunked") => "Transfer-Encoding: chunked\r\n".to_owned(),
        Some("close") => "Connection: close\r\n".to_owned(),
        _ => format!("Content-Length: {}\r\n", content.len()),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{delimited}\r\n").into_bytes();
    if request.method == "HEAD" {
        end();
        return side.send(head);
    }
    let (first, second) = content.split_at(content.len() / 2);
    let (first, mut second) = match word(target, "as") {
        Some("chunked") => (chunk_of(first), [chunk_of(second), b"0\r\n\r\n".to_vec()].concat()),
        _ => (first.to_vec(), second.to_vec()),
    };
    let mut start = [head, first].concat();
    if has(target, "stall") {
        if !side.send(&start) {
            return false;
        }
        start.clear();
        wait_for_release(shared);
    }
    start.append(&mut second);
    let Some((last, before)) = start.split_last() else { return false };
    // Where the content is large, sending it takes its time.
    let sent = side.send(before);
    end();
    sent && side.send([*last]) && word(target, "as") != Some("close")
}

/// A chunk, or nothing of nothing: an empty one would be the last.
fn chunk_of(part: &[u8]) -> Vec<u8> {
    if part.is_empty() { Vec::new() } else { chunk(part) }
}

fn do_wrong(side: &mut ServerSide, fault: &str, target: &str) {
    let half = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len() * 2);
    match fault {
        "close" => side.close(),
        "reset" => side.reset(),
        "silent" => side.wait_closed(),
        "pause" => {
            side.send(half);
            side.wait_closed();
        }
        "truncate" => {
            side.send(half);
        }
        "break" => {
            side.send(half);
            side.reset();
        }
        "lengths" => {
            side.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!");
        }
        "garbage" => {
            side.send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        }
        "chunk" => {
            side.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n");
            side.wait_closed();
        }
        other => panic!("no such fault: {other}"),
    }
}

fn begin(shared: &Shared, server: usize, request: &Request) -> usize {
    let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most.fetch_max(now, Ordering::SeqCst);
    let visit = Visit {
        server,
        method: request.method.clone(),
        target: request.target.clone(),
        began: request.arrived,
        ended: None,
    };
    let mut visits = shared.visits.lock().expect("the logbook");
    visits.push(visit);
    visits.len() - 1
}

fn end(shared: &Shared, entry: usize) {
    shared.now.fetch_sub(1, Ordering::SeqCst);
    shared.visits.lock().expect("the logbook")[entry].ended = Some(Instant::now());
}

fn wait_for_release(shared: &Shared) {
    while !shared.released.load(Ordering::SeqCst) {
        thread::sleep(LOOK);
    }
}

fn words(target: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = target.split_once('?').map_or("", |(_, words)| words);
    words.split('&').map(|word| word.split_once('=').unwrap_or((word, "")))
}

fn word<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    words(target).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn has(target: &str, name: &str) -> bool {
    word(target, name).is_some()
}

fn number(target: &str, name: &str) -> Option<usize> {
    word(target, name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} in {target}")))
}
