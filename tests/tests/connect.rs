//! docs/http.md: CONNECT where a listener allows it, granted and refused by the server.

use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::origin::faulty::with_length;
use cmim_tests::{Device, ScriptedServer, Setup};

const CONNECT: &str = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
const REFUSAL: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\
                       Content-Length: 7\r\n\r\nrefused";

/// Answers CONNECT with `grant` and sends back what comes through the tunnel, or refuses it; all else is answered `ok`.
fn before(grant: Option<&'static str>) -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(move |side| {
        while let Some(request) = side.request() {
            match (request.method.as_str(), grant) {
                ("CONNECT", Some(grant)) => {
                    side.send(grant);
                    let mut got = Vec::new();
                    let _ = side.wire().to_end(&mut |part| got.extend_from_slice(part));
                    side.send([b"back: ", got.as_slice()].concat());
                    return;
                }
                ("CONNECT", None) => side.send(REFUSAL),
                _ => side.send(with_length(b"ok")),
            };
        }
    });
    let device = Setup::before(&[server.address()]).listener("allow_connect = true").start();
    (server, device)
}

#[test]
fn a_granted_connect_is_a_tunnel_also_for_what_came_behind_it() {
    let (server, device) = before(Some("HTTP/1.1 200 Connection established\r\n\r\n"));
    let mut client = device.client();
    // It looks like a request, and is the tunnel's.
    client.send(format!("{CONNECT}GET / HTTP/1.1\r\n"));
    let head = client.head("CONNECT");
    assert_eq!(head.status, 200);
    assert!(!head.fields.has("content-length") && !head.fields.has("transfer-encoding"), "{head:?}");
    client.send("Host: a\r\n\r\n");
    client.wire().finish_sending().expect("a half-close");
    let mut got = Vec::new();
    client.wire().to_end(&mut |part| got.extend_from_slice(part)).expect("the tunnel's bytes");
    assert_eq!(got, b"back: GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.request_count(), 1);
}

#[test]
fn a_connect_that_the_server_refuses_leaves_the_connection_to_the_next_request() {
    let (server, device) = before(None);
    let mut client = device.client();
    // One that nobody reads is heard again once it was parked.
    client.wire().set_patience(Duration::from_secs(3));
    for _ in 0..2 {
        client.send(CONNECT);
        let refused = client.reply();
        assert_eq!((refused.status(), refused.text().as_str()), (407, "refused"), "{refused:?}");
        client.get("/").assert_whole(b"ok");
    }
    client.assert_quiet();
    assert_eq!(server.request_count(), 4);
}

#[test]
fn what_came_behind_a_refused_connect_is_the_next_request() {
    let (server, device) = before(None);
    let mut client = device.client();
    client.send([CONNECT.as_bytes(), &request("GET", "/next", "", b"")].concat());
    assert_eq!(client.reply().status(), 407);
    client.reply().assert_whole(b"ok");
    client.assert_quiet();
    assert_eq!(server.requests().last().map(|request| request.target.clone()).as_deref(), Some("/next"));
}
