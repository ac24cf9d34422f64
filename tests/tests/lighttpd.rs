//! lighttpd with CGI behind the device: chunked dynamic replies leave with a length.

use cmim_tests::origin::Lighttpd;
use cmim_tests::{Client, Device, Framing, skip};

/// What docs/http.md and 5 let the device touch, and the clock.
const OWN: [&str; 6] = ["via", "connection", "keep-alive", "date", "transfer-encoding", "content-length"];

#[test]
fn chunked_cgi_replies_equal_a_direct_request_and_have_a_length() {
    if skip::without_tools("chunked_cgi_replies_equal_a_direct_request_and_have_a_length", &["lighttpd"]) {
        return;
    }
    let lighttpd = Lighttpd::start();
    let device = Device::before(&[lighttpd.address()]);
    let (mut direct, mut through) = (Client::connect(lighttpd.socket_address()), device.client());
    for count in [2, 1000, 100_000] {
        let target = format!("/lines.cgi?{count}");
        let expected = direct.get(&target);
        assert_eq!(
            expected.head.framing,
            Framing::Chunked,
            "the server is to send chunked for this test to mean anything"
        );
        let got = through.get(&target);
        got.assert_whole(&Lighttpd::lines(count));
        assert!(expected.content == got.content);
        assert_eq!(got.fields().without(&OWN), expected.fields().without(&OWN));
    }
    through.assert_quiet();
}

#[test]
fn a_cgi_status_and_its_cookies_pass() {
    if skip::without_tools("a_cgi_status_and_its_cookies_pass", &["lighttpd"]) {
        return;
    }
    let lighttpd = Lighttpd::start();
    let device = Device::before(&[lighttpd.address()]);
    let reply = device.client().get("/status.cgi");
    assert_eq!((reply.status(), reply.text().as_str()), (404, "not here\n"));
    assert_eq!(reply.fields().all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn uploads_to_a_cgi_come_back_as_they_were() {
    if skip::without_tools("uploads_to_a_cgi_come_back_as_they_were", &["lighttpd"]) {
        return;
    }
    let lighttpd = Lighttpd::start();
    let device = Device::before(&[lighttpd.address()]);
    let mut client = device.client();
    for size in [0_u32, 1, 1_000_000] {
        let content: Vec<u8> = (0..size).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let reply = client.ask("POST", "/echo.cgi", "", &content);
        assert_eq!(reply.head.framing, Framing::Length(u64::from(size)));
        assert!(reply.content == content);
    }
    let mut chunked = b"POST /echo.cgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    client.send(chunked);
    client.reply().assert_whole(b"hello world");
}

#[test]
fn static_and_dynamic_alternate_on_one_connection() {
    if skip::without_tools("static_and_dynamic_alternate_on_one_connection", &["lighttpd"]) {
        return;
    }
    let lighttpd = Lighttpd::start();
    lighttpd.put("static.txt", b"static");
    let device = Device::before(&[lighttpd.address()]);
    let mut client = device.client();
    for _ in 0..20 {
        client.get("/static.txt").assert_whole(b"static");
        client.get("/lines.cgi?10").assert_whole(&Lighttpd::lines(10));
    }
    client.assert_quiet();
}
