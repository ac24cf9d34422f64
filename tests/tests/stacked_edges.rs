//! docs/http.md and 6: what may stand in a stack beside plain requests, where it may be cut, and what keeps its turn.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::faulty::with_length;
use cmim_tests::origin::obedient::{assert_pages, gets, page};
use cmim_tests::{Client, Crew, Device, ScriptedServer};

#[test]
fn a_stack_cut_at_every_byte_is_the_same_stack() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut stack = request("GET", "/a", "", b"");
    // RFC 9112 2.2: an empty line before a request line is ignored.
    stack.extend_from_slice(b"\r\n");
    stack.extend(request("POST", "/b", "", b"hello"));
    stack.extend(request("HEAD", "/c", "", b""));
    stack.extend(b"POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    stack.extend(request("GET", "/e", "", b""));
    for cut in 1..stack.len() {
        let mut client = device.client();
        let (before, after) = stack.split_at(cut);
        client.send(before);
        // What the device could answer is answered before the rest comes, at some of the cuts.
        if cut % 4 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
        client.send(after);
        for (method, content) in [("GET", "/a"), ("POST", "/b"), ("HEAD", ""), ("POST", "/d"), ("GET", "/e")] {
            let reply = client.try_reply(method).unwrap_or_else(|error| panic!("cut at {cut}, {method}: {error}"));
            assert_eq!((reply.status(), reply.text().as_str()), (200, content), "cut at {cut}, {method}");
        }
    }
    assert_eq!(crew.faults(), [""; 0]);
}

#[test]
fn an_http_1_0_client_that_keeps_its_connection_can_stack_too() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    let targets = ["/a?wait=50", "/b?as=chunked", "/c?as=close"];
    let mut stack = String::new();
    for target in targets {
        write!(stack, "GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("writing to a string");
    }
    client.send(stack);
    assert_pages(&mut client, &targets);
    client.assert_quiet();
}

#[test]
fn nothing_behind_connection_close_is_forwarded() {
    let crew = Crew::of(2);
    let device = crew.setup("").start();
    let mut client = device.client();
    let mut stack = request("GET", "/a?wait=50", "", b"");
    stack.extend(request("GET", "/b", "Connection: close\r\n", b""));
    stack.extend(request("GET", "/c", "", b""));
    client.send(stack);
    client.reply().assert_whole(b"/a?wait=50");
    let last = client.reply();
    last.assert_whole(b"/b");
    assert!(last.fields().lists("connection", "close"), "{last:?}");
    client.assert_ended();
    assert_eq!(crew.visits().len(), 2, "{:?}", crew.visits());
}

#[test]
fn an_interim_reply_waits_for_its_turn() {
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target == "/b" {
                side.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
            } else {
                thread::sleep(Duration::from_millis(150));
            }
            side.send(with_length(request.target.as_bytes()));
        }
    });
    let device = Device::before(&[server.address()]);
    let mut client = device.client();
    client.send(gets(&["/a", "/b"]));
    let first = client.head("GET");
    assert_eq!(first.status, 200, "the interim reply to the second request came first");
    client.content(first.framing, &mut |_| ()).expect("content");
    assert_eq!(client.head("GET").status, 103);
    client.reply().assert_whole(b"/b");
}

/// Sends `before` and behind it a POST that waits to be invited to send its content.
fn send_before_an_expecting_post(client: &mut Client, before: &[u8]) {
    let mut stack = before.to_vec();
    stack.extend_from_slice(b"POST /order HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.send(stack);
}

#[test]
fn an_invitation_to_send_content_waits_for_its_turn() {
    let crew = Crew::of(3);
    let device = crew.setup("").start();
    let mut client = device.client();
    // The last of them to be whole is the first to be sent.
    let targets = ["/a?wait=100&size=2000", "/b?size=3000", "/c?size=4000"];
    send_before_an_expecting_post(&mut client, &gets(&targets));
    for target in targets {
        let head = client.head("GET");
        assert_eq!(head.status, 200, "an invitation in place of the reply to {target}");
        let mut content = Vec::new();
        client.content(head.framing, &mut |part| content.extend_from_slice(part)).expect("content");
        assert!(content == page(target), "{target}: the content differs");
    }
    assert_eq!(client.head("POST").status, 100);
    client.send("hello");
    client.reply().assert_whole(b"/order");
}

#[test]
fn an_invitation_to_send_content_does_not_fall_into_a_reply_that_is_read_slowly() {
    let crew = Crew::of(1);
    let device = crew.setup("").start();
    let mut client = Client::connect_slow(device.address(), 4096);
    let target = "/large?size=8000000";
    send_before_an_expecting_post(&mut client, &gets(&[target]));
    crew.wait_for_visits(1);
    // The reply is in the device to its last byte, and most of it still there.
    until_true("the server is free", PATIENCE, || device.json(&["servers"])[0]["in_flight"] == 0);
    thread::sleep(Duration::from_millis(100));
    client.reply().assert_whole(&page(target));
    assert_eq!(client.head("POST").status, 100);
    client.send("hello");
    client.reply().assert_whole(b"/order");
}

#[test]
fn sigterm_lets_the_whole_stack_finish() {
    let crew = Crew::of(4);
    let mut device = crew.setup("").start();
    let mut client = device.client();
    let targets: Vec<String> = (0..4).map(|number| format!("/{number}?wait=300")).collect();
    client.send(gets(&targets));
    crew.wait_for_visits(4);
    device.signal(rustix::process::Signal::TERM);
    until_true("new connections are refused", PATIENCE, || Client::try_connect(device.address()).is_err());
    // All four are at the servers: what they answer could be kept (docs/operations.md).
    assert_pages(&mut client, &targets);
    client.assert_ended();
    assert_eq!(device.wait(PATIENCE).code(), Some(0), "{}", device.output());
}
