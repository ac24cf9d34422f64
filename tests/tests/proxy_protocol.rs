//! The PROXY protocol, both ways (docs/configuration.md: `accept_proxy_protocol`, `send_proxy_protocol`).

use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::origin::faulty::{ok, with_length};
use cmim_tests::{Device, ScriptedServer, ServerSide, Setup};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn accepting() -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()])
        .listener("accept_proxy_protocol = true")
        .timeouts("client_head = \"500ms\"")
        .start();
    (server, device)
}

#[test]
fn the_client_is_who_the_header_says() {
    let mut v2 = V2.to_vec();
    v2.extend_from_slice(b"\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x1f\x90\x00\x50");
    for header in [b"PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\r\n".to_vec(), v2] {
        let (server, device) = accepting();
        let mut client = device.client();
        client.send([header.as_slice(), &request("GET", "/", "", b"")].concat());
        client.reply().assert_whole(b"ok");
        assert_eq!(server.wait_for(1).fields.joined("x-forwarded-for"), "192.0.2.7");
        client.get("/").assert_whole(b"ok");
        assert_eq!(server.wait_for(2).fields.joined("x-forwarded-for"), "192.0.2.7");
    }
}

#[test]
fn an_unknown_or_local_header_leaves_the_peers_address() {
    let mut local = V2.to_vec();
    local.extend_from_slice(b"\x20\x00\x00\x00");
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local] {
        let (server, device) = accepting();
        let mut client = device.client();
        client.send([header.as_slice(), &request("GET", "/", "", b"")].concat());
        client.reply().assert_whole(b"ok");
        assert_eq!(server.wait_for(1).fields.joined("x-forwarded-for"), "127.0.0.1");
    }
}

#[test]
fn a_connection_without_a_right_header_reaches_nothing() {
    let (server, device) = accepting();
    let mut broken = V2.to_vec();
    broken.extend_from_slice(b"\x31\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x1f\x90\x00\x50");
    for header in [
        b"".to_vec(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 a.b.c.d 192.0.2.8 8080 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\n".to_vec(),
        broken,
    ] {
        let mut client = device.client();
        let _ = client.wire().send(&[header.as_slice(), &request("GET", "/", "", b"")].concat());
        assert!(client.try_reply("GET").map_or(true, |reply| reply.status() == 400), "{:?}", header.escape_ascii());
    }
    assert_eq!(server.bytes_received(), 0);
}

fn take(side: &mut ServerSide, count: u64, header: &mut Vec<u8>) -> bool {
    side.wire().exactly(count, &mut |part| header.extend_from_slice(part)).is_ok()
}

/// Reads a PROXY header of `length` bytes and answers requests with it.
fn telling(length_known: Option<usize>) -> ScriptedServer {
    ScriptedServer::start(move |side| {
        let mut header = Vec::new();
        match length_known {
            Some(length) => {
                if !take(side, length as u64, &mut header) {
                    return;
                }
            }
            None => while take(side, 1, &mut header) && !header.ends_with(b"\r\n") {},
        }
        while side.request().is_some() && side.send(with_length(&header)) {}
    })
}

#[test]
fn a_server_hears_of_the_client_in_version_1_and_2() {
    let server = telling(None);
    let device = Setup::before(&[server.address()]).upstream("send_proxy_protocol = \"v1\"").start();
    let mut client = device.client();
    let own = client.wire().socket().local_addr().expect("an address").as_socket().expect("an IP address");
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), device.address().port());
    assert_eq!(client.get("/").text(), expected);

    let server = telling(Some(28));
    let device = Setup::before(&[server.address()]).upstream("send_proxy_protocol = \"v2\"").start();
    let mut client = device.client();
    let own = client.wire().socket().local_addr().expect("an address").as_socket().expect("an IP address");
    let mut expected = V2.to_vec();
    expected.extend_from_slice(b"\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01");
    expected.extend_from_slice(&own.port().to_be_bytes());
    expected.extend_from_slice(&device.address().port().to_be_bytes());
    assert_eq!(client.get("/").content, expected);
}

#[test]
fn a_connection_that_named_one_client_is_not_used_for_another() {
    let server = telling(None);
    let device = Setup::before(&[server.address()]).upstream("send_proxy_protocol = \"v1\"").start();
    for _ in 0..3 {
        let mut client = device.client();
        client.wire().set_patience(Duration::from_secs(5));
        let own = client.wire().socket().local_addr().expect("an address").as_socket().expect("an IP address");
        let told = client.get("/").text();
        assert!(told.contains(&format!(" {} ", own.port())), "{told} for {own}");
    }
}
