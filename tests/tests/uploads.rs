//! C2 for requests: a slow upload holds no server process, and what was buffered arrives as it was sent.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::Nginx;
use cmim_tests::origin::faulty::{chunk, ok, replies, with_length};
use cmim_tests::pattern::Pattern;
use cmim_tests::ports::Reserved;
use cmim_tests::tiers::{MEBIBYTE, table};
use cmim_tests::{Client, Device, Framing, Request, ScriptedServer, ServerSide, Setup, skip};
use tempfile::TempDir;

/// A tenth of the 200 uploads of 1 MB at 10 KB/s in size, faster, so that it takes 2 s and not 100.
const UPLOADS: usize = 60;
const UPLOAD: u64 = 100_000;
const TICK: Duration = Duration::from_millis(100);
const TICKS: u64 = 20;
const PROCESSES: usize = 2;
/// Of both processes together, for all uploads.
const ALLOWED: Duration = Duration::from_secs(2);

/// A server of processes that each take one connection at a time, and how long they were taken.
#[derive(Debug)]
struct Processes {
    free: Mutex<usize>,
    freed: Condvar,
    busy: Mutex<Duration>,
}

impl Processes {
    fn start() -> (Arc<Self>, ScriptedServer) {
        let processes =
            Arc::new(Self { free: Mutex::new(PROCESSES), freed: Condvar::new(), busy: Mutex::new(Duration::ZERO) });
        let shared = processes.clone();
        (processes, ScriptedServer::start(move |side| shared.take(side)))
    }

    /// Takes one connection, from its first moment at a process to its end.
    fn take(&self, side: &mut ServerSide) {
        let mut free = self.freed.wait_while(self.free.lock().expect("processes"), |free| *free == 0).expect("a turn");
        *free -= 1;
        drop(free);
        let start = Instant::now();
        if let Some(request) = side.request() {
            let right = request.content == Pattern::of_target(&request.target).bytes();
            let said: &[u8] = if right { b"right" } else { b"wrong" };
            side.send([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", said].concat());
        }
        side.close();
        *self.busy.lock().expect("the clock") += start.elapsed();
        *self.free.lock().expect("processes") += 1;
        self.freed.notify_one();
    }

    fn busy(&self) -> Duration {
        *self.busy.lock().expect("the clock")
    }
}

/// Opens the uploads with their heads sent.
fn begin(address: std::net::SocketAddr) -> Vec<(Pattern, Client)> {
    (0..UPLOADS)
        .map(|seed| {
            let pattern = Pattern::new(seed, UPLOAD);
            let mut client = Client::connect(address);
            client.send(head("POST", pattern, ""));
            (pattern, client)
        })
        .collect()
}

fn head(method: &str, pattern: Pattern, fields: &str) -> String {
    let target = pattern.target("up");
    format!("{method} {target} HTTP/1.1\r\nHost: test.example\r\n{fields}Content-Length: {}\r\n\r\n", pattern.length)
}

#[test]
fn slow_uploads_cost_two_processes_next_to_nothing() {
    let name = "slow_uploads_cost_two_processes_next_to_nothing";
    let (processes, server) = Processes::start();
    let directory = tempfile::tempdir().expect("a directory");
    let device = with_flash(&directory, "memory = \"2MiB\"", 32, &[server.address()]).start();
    let (nginx_processes, nginx_server) = Processes::start();
    let nginx = (!skip::without_tools(name, &["nginx"]))
        .then(|| Nginx::start(&format!("location / {{ proxy_pass http://{}; }}", nginx_server.address())));

    let mut uploads = begin(device.address());
    let ours = uploads.len();
    uploads.extend(nginx.iter().flat_map(|nginx| begin(nginx.socket_address())));
    let start = Instant::now();
    let step = UPLOAD / TICKS;
    for tick in 0..TICKS {
        for (pattern, client) in &mut uploads {
            client.send(&pattern.piece(tick * step)[..usize::try_from(step).expect("a step")]);
        }
        thread::sleep(
            (start + TICK * u32::try_from(tick + 1).expect("a tick")).saturating_duration_since(Instant::now()),
        );
    }
    let sent = start.elapsed();
    for (_, client) in &mut uploads {
        assert_eq!(client.reply().text(), "right");
    }
    let (busy, beside) = (processes.busy(), nginx_processes.busy());
    skip::measured(
        name,
        &format!("{ours} uploads of {UPLOAD} bytes in {sent:?}: server busy {busy:?}, behind nginx {beside:?}"),
    );
    assert!(busy < ALLOWED, "the server was busy for {busy:?}, behind nginx for {beside:?}");
    assert!(device.figure("/buffers/flash/written_total") > 0, "all fitted in RAM: {}", device.status());
    assert_at_rest(&device);
    assert_eq!(server.faults(), Vec::<String>::new());
}

/// A device with one flash tier of so many MiB.
fn with_flash(directory: &TempDir, buffer: &str, mebibytes: u64, servers: &[&str]) -> Setup<'static> {
    Setup::before(servers).buffer(buffer).tables(&table("flash", directory.path(), mebibytes * MEBIBYTE))
}

#[track_caller]
fn assert_at_rest(device: &Device) {
    device.wait_until_at_rest(PATIENCE);
    until_true("the flash tier is empty", PATIENCE, || device.figure("/buffers/flash/used") == 0);
}

/// A server that says whether an upload's bytes were right.
fn judge() -> ScriptedServer {
    ScriptedServer::start(replies(verdict))
}

fn verdict(request: &Request) -> Vec<u8> {
    let right = request.content == Pattern::of_target(&request.target).bytes();
    with_length(if right { b"right" } else { b"wrong" })
}

/// Sends `pattern` as a chunked content.
fn send_chunked(client: &mut Client, pattern: Pattern) {
    let target = pattern.target("up");
    client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut at = 0;
    while at < pattern.length {
        let piece = pattern.piece(at);
        client.send(chunk(piece));
        at += piece.len() as u64;
    }
    client.send("0\r\n\r\n");
}

#[test]
fn a_buffered_chunked_upload_gets_a_length_from_every_tier() {
    for buffering in ["auto", "always"] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = judge();
        let device = with_flash(&directory, "memory = \"2MiB\"", 32, &[server.address()])
            .upstream(&format!("request_buffering = \"{buffering}\""))
            .start();
        let mut client = device.client();
        for length in [0, 1, 100_000, 8_000_000] {
            send_chunked(&mut client, Pattern::new(5, length));
            assert_eq!(client.reply().text(), "right", "{buffering}, {length} bytes");
        }
        for (request, length) in server.requests().iter().zip([0, 1, 100_000, 8_000_000]) {
            assert_eq!(request.fields.only("content-length"), Some(length.to_string()), "{buffering}: {request:?}");
            assert!(!request.fields.has("transfer-encoding"));
        }
        assert!(device.figure("/buffers/flash/written_total") > 0);
        assert_at_rest(&device);
    }
}

#[test]
fn expect_is_answered_by_the_device_that_buffers() {
    for buffering in ["auto", "always"] {
        let server = judge();
        let device =
            Setup::before(&[server.address()]).upstream(&format!("request_buffering = \"{buffering}\"")).start();
        let pattern = Pattern::new(3, 50_000);
        let mut client = device.client();
        client.send(head("PUT", pattern, "Expect: 100-continue\r\n"));
        assert_eq!(client.head("PUT").status, 100);
        assert_eq!(server.opened(), 0, "the server was asked although the device buffers");
        client.send(pattern.bytes());
        assert_eq!(client.reply_to("PUT").text(), "right");
        assert!(!server.wait_for(1).fields.has("expect"), "{buffering}: nobody waits for a 100 any more");
    }
}

#[test]
fn expect_is_passed_on_where_nothing_is_buffered() {
    let pattern = Pattern::new(3, 50_000);
    let server = ScriptedServer::start(move |side| {
        let Some(asked) = side.request_head() else { return };
        assert_eq!(asked.fields.only("expect").as_deref(), Some("100-continue"));
        side.send("HTTP/1.1 100 Continue\r\n\r\n");
        let mut check = pattern.check();
        let outcome = side.wire().exactly(pattern.length, &mut |part| check.feed(part));
        check.assert_whole(outcome.as_ref().err());
        side.send(with_length(b"right"));
    });
    let device = Setup::before(&[server.address()]).upstream("request_buffering = \"never\"").start();
    let mut client = device.client();
    client.send(head("PUT", pattern, "Expect: 100-continue\r\n"));
    assert_eq!(client.head("PUT").status, 100);
    client.send(pattern.bytes());
    assert_eq!(client.reply_to("PUT").text(), "right");
}

#[test]
fn always_keeps_an_upload_from_the_server_until_it_is_whole_and_never_passes_it_on_at_once() {
    let pattern = Pattern::new(1, 2_000_000);
    let bytes = pattern.bytes();
    for (buffering, early) in [("always", false), ("never", true)] {
        let server = judge();
        let device =
            Setup::before(&[server.address()]).upstream(&format!("request_buffering = \"{buffering}\"")).start();
        let mut client = device.client();
        client.send(head("POST", pattern, ""));
        client.send(&bytes[..1_000_000]);
        if early {
            until_true("the first half is at the server", PATIENCE, || server.bytes_received() > 1_000_000);
        } else {
            until_true("the first half is held", PATIENCE, || device.figure("/buffers/memory/used") == 1_000_000);
            assert_eq!(server.opened(), 0, "{}", device.status());
        }
        client.send(&bytes[1_000_000..]);
        assert_eq!(client.reply().text(), "right");
    }
}

#[test]
fn an_upload_larger_than_all_tiers_streams_on_or_is_refused() {
    let pattern = Pattern::new(2, 24_000_000);
    for (buffering, chunked) in [("auto", false), ("auto", true), ("always", false), ("always", true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = judge();
        let device = with_flash(&directory, "memory = \"2MiB\"", 4, &[server.address()])
            .upstream(&format!("request_buffering = \"{buffering}\""))
            .start();
        let mut client = device.client();
        // In a thread: a refused upload is not taken to its end.
        let mut second = client.wire().socket().try_clone().map(std::net::TcpStream::from).expect("a second handle");
        let writer = thread::spawn(move || upload(&mut second, pattern, chunked));
        let reply = client.reply();
        let sent = writer.join().expect("the writer");
        if buffering == "auto" {
            assert_eq!((reply.status(), reply.text().as_str(), sent), (200, "right", true), "chunked: {chunked}");
            let seen = server.wait_for(1);
            assert_eq!(seen.fields.has("transfer-encoding"), chunked, "{:?}", seen.fields);
        } else {
            assert_eq!(reply.status(), 503, "chunked: {chunked}: {reply:?}");
            assert_eq!(server.opened(), 0, "a part of it reached the server");
        }
        device.client().get(&Pattern::new(0, 0).target("up")).assert_whole(b"right");
        assert_at_rest(&device);
    }
}

/// Sends all of an upload; `false` where it is not taken.
fn upload(socket: &mut std::net::TcpStream, pattern: Pattern, chunked: bool) -> bool {
    use std::io::Write;
    let start = if chunked {
        let target = pattern.target("up");
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    } else {
        head("POST", pattern, "")
    };
    let mut taken = socket.write_all(start.as_bytes()).is_ok();
    let mut at = 0;
    while taken && at < pattern.length {
        let piece = pattern.piece(at);
        taken = if chunked { socket.write_all(&chunk(piece)) } else { socket.write_all(piece) }.is_ok();
        at += piece.len() as u64;
    }
    taken && (!chunked || socket.write_all(b"0\r\n\r\n").is_ok())
}

#[test]
fn without_file_tiers_uploads_leave_half_of_the_memory_to_others() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).buffer("memory = \"2MiB\"").start();
    let mut client = device.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1900000\r\n\r\n");
    client.send(vec![b'x'; 1_800_000]);
    until_true("more than half goes on to the server", PATIENCE, || server.bytes_received() > 1_700_000);
    assert!(device.figure("/buffers/memory/used") < 1_200_000, "{}", device.status());
    // Who waits to be asked for a content is asked here all the same.
    let mut other = device.client();
    other.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(other.head("PUT").status, 100);
    other.send("hi");
    other.reply_to("PUT").assert_whole(b"ok");
    client.send(vec![b'x'; 100_000]);
    client.reply_to("PUT").assert_whole(b"ok");
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn an_upload_goes_to_a_second_server_whole_where_the_first_refuses_the_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let (refusing, server) = (Reserved::v4(), judge());
    let addresses = [refusing.address().to_string(), server.address().to_owned()];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let device = with_flash(&directory, "memory = \"2MiB\"", 32, &addresses)
        .upstream("request_buffering = \"always\"\nbalance = \"round-robin\"")
        .start();
    let mut client = device.client();
    // Twice, so that one of them is for the first server, whichever is asked first.
    for seed in 0..2 {
        let pattern = Pattern::new(seed, 8_000_000);
        let reply = client.ask("POST", &pattern.target("up"), "", &pattern.bytes());
        assert_eq!((reply.status(), reply.text().as_str()), (200, "right"));
    }
    let servers = device.status()["servers"].clone();
    assert_eq!(servers[0]["failures_total"], 1, "the first was never asked: {servers}");
    assert_at_rest(&device);
}

#[test]
fn an_idempotent_upload_on_a_connection_that_the_server_drops_is_replayed_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = ScriptedServer::start(|side| {
        // The first connection is dropped in the middle of its second request.
        let first = side.index() == 0;
        while let Some(request) = side.request() {
            side.send(verdict(&request));
            if first {
                let _ = side.wire().exactly(500_000, &mut |_| ());
                return;
            }
        }
    });
    let device = with_flash(&directory, "memory = \"2MiB\"", 32, &[server.address()]).start();
    let mut client = device.client();
    assert_eq!(client.get(&Pattern::new(0, 0).target("up")).text(), "right");
    let pattern = Pattern::new(4, 8_000_000);
    client.send(request("PUT", &pattern.target("up"), "", &pattern.bytes()));
    let reply = client.reply_to("PUT");
    assert_eq!((reply.status(), reply.text().as_str()), (200, "right"), "{reply:?}");
    assert_eq!(reply.head.framing, Framing::Length(5));
    assert_eq!(server.opened(), 2);
    assert_at_rest(&device);
}

#[test]
fn a_client_that_leaves_within_its_upload_gives_every_tier_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = ScriptedServer::start(ok);
    let device = with_flash(&directory, "memory = \"2MiB\"", 32, &[server.address()]).start();
    let pattern = Pattern::new(4, 8_000_000);
    let mut client = device.client();
    client.send(head("POST", pattern, ""));
    client.send(&pattern.bytes()[..6_000_000]);
    until_true("it is held", PATIENCE, || device.figure("/buffers/flash/used") > 2 * MEBIBYTE);
    drop(client);
    assert_at_rest(&device);
    assert_eq!(server.opened(), 0);
}
