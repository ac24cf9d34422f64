//! nginx behind the device: what comes through equals what comes directly, but for docs/http.md's own fields.

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::Nginx;
use cmim_tests::{Client, Device, Reply, skip};

/// What docs/http.md lets the device touch, and the clock.
const OWN: [&str; 5] = ["via", "connection", "keep-alive", "date", "transfer-encoding"];
const HUNDRED_MEGABYTES: usize = 100_000_000;

fn text() -> Vec<u8> {
    (0..20_000_u32).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
}

fn pair() -> (Nginx, Device) {
    let nginx = Nginx::start(
        "location /moved { return 302 /text.txt; }\nlocation /gone { return 410; }\nlocation /204 { return 204; }\n\
         location /fields { add_header X-A 1; add_header X-A 2; add_header Set-Cookie a=1; add_header Set-Cookie b=2; return 200 ok; }",
    );
    nginx.put("text.txt", &text());
    nginx.put("empty.txt", b"");
    nginx.put("index.html", b"<p>index</p>");
    let device = Device::before(&[nginx.address()]);
    (nginx, device)
}

/// Asks both and holds them to be equal; returns the device's reply.
#[track_caller]
fn assert_same(direct: &mut Client, through: &mut Client, method: &str, target: &str, fields: &str) -> Reply {
    let content: &[u8] = if method == "POST" { b"a=1" } else { b"" };
    let expected = direct.ask(method, target, fields, content);
    let got = through.ask(method, target, fields, content);
    let what = format!("{method} {target} {fields}");
    assert_eq!((got.status(), &got.head.reason), (expected.status(), &expected.head.reason), "{what}");
    assert_eq!(got.fields().without(&OWN), expected.fields().without(&OWN), "{what}");
    assert_eq!(got.head.framing, expected.head.framing, "{what}");
    assert!(got.content == expected.content, "{what}: {} bytes for {}", got.content.len(), expected.content.len());
    got
}

#[test]
fn everything_static_equals_a_direct_request() {
    if skip::without_tools("everything_static_equals_a_direct_request", &["nginx"]) {
        return;
    }
    let (nginx, device) = pair();
    let (mut direct, mut through) = (Client::connect(nginx.socket_address()), device.client());
    for (method, target, status) in [
        ("GET", "/text.txt", 200),
        ("HEAD", "/text.txt", 200),
        ("GET", "/empty.txt", 200),
        ("GET", "/", 200),
        ("GET", "/missing", 404),
        ("HEAD", "/missing", 404),
        ("POST", "/text.txt", 405),
        ("GET", "/moved", 302),
        ("GET", "/gone", 410),
        ("GET", "/204", 204),
        ("GET", "/fields", 200),
        ("GET", "/text.txt?query=%20", 200),
    ] {
        assert_eq!(assert_same(&mut direct, &mut through, method, target, "").status(), status);
    }
    through.assert_quiet();
}

#[test]
fn ranges_equal_a_direct_request() {
    if skip::without_tools("ranges_equal_a_direct_request", &["nginx"]) {
        return;
    }
    let (nginx, device) = pair();
    let (mut direct, mut through) = (Client::connect(nginx.socket_address()), device.client());
    for (range, status) in [
        ("bytes=0-99", 206),
        ("bytes=100-", 206),
        ("bytes=-1", 206),
        ("bytes=0-0", 206),
        ("bytes=50-9999999", 206),
        ("bytes=99999999-", 416),
        ("lines=1-2", 200),
    ] {
        let reply = assert_same(&mut direct, &mut through, "GET", "/text.txt", &format!("Range: {range}\r\n"));
        assert_eq!(reply.status(), status, "{range}");
        assert_same(&mut direct, &mut through, "HEAD", "/text.txt", &format!("Range: {range}\r\n"));
    }
    // nginx numbers its boundaries: equal but for the number.
    let several = through.ask("GET", "/text.txt", "Range: bytes=0-9, 100-109\r\n", b"");
    let expected = direct.ask("GET", "/text.txt", "Range: bytes=0-9, 100-109\r\n", b"");
    assert_eq!((several.status(), several.content.len()), (206, expected.content.len()));
    assert!(several.fields().joined("content-type").starts_with("multipart/byteranges"));
}

#[test]
fn conditional_requests_equal_a_direct_request() {
    if skip::without_tools("conditional_requests_equal_a_direct_request", &["nginx"]) {
        return;
    }
    let (nginx, device) = pair();
    let mut through = device.client();
    let first = through.get("/text.txt");
    let etag = first.fields().only("etag").expect("an ETag");
    let modified = first.fields().only("last-modified").expect("a date");
    for (fields, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        ("If-None-Match: \"other\"\r\n".into(), 200),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        ("If-Match: \"other\"\r\n".into(), 412),
        (format!("If-Match: {etag}\r\n"), 200),
        (format!("If-Range: {etag}\r\nRange: bytes=5-9\r\n"), 206),
        ("If-Range: \"other\"\r\nRange: bytes=5-9\r\n".into(), 200),
        ("If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT\r\n".into(), 412),
    ] {
        // nginx closes after a 412 although it says keep-alive: each direct request gets a connection of its own.
        let mut direct = Client::connect(nginx.socket_address());
        assert_eq!(assert_same(&mut direct, &mut through, "GET", "/text.txt", &fields).status(), status, "{fields}");
        through.assert_quiet();
    }
}

/// Asks for `target` and compares the content with `expected` while it comes.
#[track_caller]
fn assert_content(client: &mut Client, target: &str, expected: &[u8]) {
    client.send(request("GET", target, "", b""));
    let head = client.head("GET");
    assert_eq!(head.fields.only("content-length"), Some(expected.len().to_string()));
    let (mut at, mut same) = (0, true);
    let mut compare = |part: &[u8]| {
        same &= expected.get(at..at + part.len()) == Some(part);
        at += part.len();
    };
    client.content(head.framing, &mut compare).expect("the whole content");
    assert!(same && at == expected.len(), "the content differs");
}

#[test]
fn a_file_of_100_megabytes_arrives_whole() {
    if skip::without_tools("a_file_of_100_megabytes_arrives_whole", &["nginx"]) {
        return;
    }
    let (nginx, device) = pair();
    let content: Vec<u8> =
        (0..HUNDRED_MEGABYTES / 4).flat_map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    nginx.put("large.bin", &content);
    let mut client = device.client();
    assert_content(&mut client, "/large.bin", &content);
    assert_content(&mut client, "/large.bin", &content);
    client.assert_quiet();
    assert!(device.figure("/server_connections/opened_total") <= 2);
}

#[test]
fn a_client_that_leaves_within_a_large_file_costs_the_server_nothing_more() {
    if skip::without_tools("a_client_that_leaves_within_a_large_file_costs_the_server_nothing_more", &["nginx"]) {
        return;
    }
    let (nginx, device) = pair();
    nginx.put("large.bin", &vec![b'x'; HUNDRED_MEGABYTES]);
    let mut client = device.client();
    client.send(request("GET", "/large.bin", "", b""));
    client.head("GET");
    drop(client);
    until_true("the server's connection is gone", PATIENCE, || {
        let status = device.status();
        status["server_connections"]["open"] == 0 && status["client_connections"]["open"] == 0
    });
    // nginx logs what it had sent when the connection went.
    until_true("nginx's log line", PATIENCE, || nginx.access_log().contains("GET /large.bin"));
    assert!(!nginx.access_log().contains(&format!(" {HUNDRED_MEGABYTES} ")), "all was fetched for nobody");
}
