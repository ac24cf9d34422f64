//! docs/http.md: every refusal of a request for its head, raw bytes in. Nothing of a refused request, nor of what follows it on
//! the same connection, reaches the server.

use cmim_tests::deadline::{PATIENCE, until};
use cmim_tests::origin::faulty::ok;
use cmim_tests::refusal::{assert_refused, heads, raw};
use cmim_tests::{Client, Device, ScriptedServer, Setup};

#[test]
fn a_bare_cr_lf_or_nul_in_a_head() {
    assert_refused(
        &[400],
        &raw(&[
            "GET /refused HTTP/1.1\nHost: a.example\n\n",
            "GET /refused HTTP/1.1\nHost: a.example\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: y\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: a\r\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: \rTransfer-Encoding: chunked\r\n\r\n",
            "GET /refused HTTP/1.1\r\r\nHost: a.example\r\n\r\n",
            "GET /ref\rused HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /refused\nX: HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX: a\0b\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.example\r\nX\0: ab\r\n\r\n",
            "GET /ref\0used HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /refused HTTP/1.1\r\nHost: a.exa\0mple\r\n\r\n",
        ]),
    );
}

#[test]
fn a_space_before_a_headers_colon() {
    let fields = [
        "X : y\r\n",
        "X\t: y\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t:chunked\r\n",
    ];
    assert_refused(&[400], &heads("POST", &fields));
}

#[test]
fn obs_fold() {
    let folded =
        ["X: a\r\n b\r\n", "X: a\r\n\tb\r\n", "X:\r\n a\r\n", "Transfer-Encoding:\r\n chunked\r\n", "X: a\r\n \r\n"];
    let mut requests = heads("GET", &folded);
    requests.extend(raw(&[
        "GET /refused HTTP/1.1\r\n Host: a.example\r\n\r\n",
        "GET /refused HTTP/1.1\r\n\tX: y\r\nHost: a.example\r\n\r\n",
    ]));
    assert_refused(&[400], &requests);
}

#[test]
fn a_header_name_that_is_not_a_token() {
    let fields = [
        ": y\r\n",
        "X@Y: z\r\n",
        "X Y: z\r\n",
        "X(Y): z\r\n",
        "X/Y: z\r\n",
        "X{: z\r\n",
        "X\"Y: z\r\n",
        "Xé: z\r\n",
        "no colon\r\n",
        "X,Y: z\r\n",
        "X\u{7f}: z\r\n",
        "[X]: z\r\n",
        "X=Y: z\r\n",
        "\u{1}X: z\r\n",
    ];
    assert_refused(&[400], &heads("GET", &fields));
}

#[test]
fn a_missing_repeated_or_invalid_host() {
    let hosts = [
        "",
        "X: y\r\n",
        "Host: a.example\r\nHost: b.example\r\n",
        "Host: a.example\r\nHost: a.example\r\n",
        "Host: a.example\r\nX: y\r\nhost: a.example\r\n",
        "Host: a.example, b.example\r\n",
        "Host: a example\r\n",
        "Host: a.example/path\r\n",
        "Host: user@a.example\r\n",
        "Host: http://a.example\r\n",
        "Host: a.example?x\r\n",
        "Host: a.example#x\r\n",
        "Host: a.example:port\r\n",
        "Host: a.example:80:80\r\n",
        "Host: a.example:-80\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [::1]x\r\n",
        "Host: a\\b\r\n",
        "Host: a<b>\r\n",
        "Host: a.example%\r\n",
    ];
    let requests: Vec<_> =
        hosts.iter().map(|hosts| format!("GET /refused HTTP/1.1\r\n{hosts}\r\n").into_bytes()).collect();
    assert_refused(&[400], &requests);
}

#[test]
fn a_request_line_with_other_than_two_single_spaces() {
    let lines = [
        "GET  /refused HTTP/1.1",
        "GET /refused  HTTP/1.1",
        " GET /refused HTTP/1.1",
        "GET /refused HTTP/1.1 ",
        "GET /refused HTTP/1.1 x",
        "GET /ref used HTTP/1.1",
        "GET\t/refused HTTP/1.1",
        "GET /refused\tHTTP/1.1",
        "GET\t/refused\tHTTP/1.1",
        "GET /refused HTTP/1.1\t",
        "GET /refused",
        "GET /refused ",
        "GET",
        "GET  HTTP/1.1",
        "GET HTTP/1.1",
        "/refused HTTP/1.1",
    ];
    let requests: Vec<_> = lines.iter().map(|line| format!("{line}\r\nHost: a.example\r\n\r\n").into_bytes()).collect();
    assert_refused(&[400], &requests);
}

#[test]
fn a_malformed_version_method_or_target() {
    let lines = [
        "GET /refused HTTP/1",
        "GET /refused HTTP/1.",
        "GET /refused HTTP/11",
        "GET /refused HTTP/1.1.1",
        "GET /refused HTTP/01.1",
        "GET /refused HTTP/1.10",
        "GET /refused http/1.1",
        "GET /refused HTTP/ 1.1",
        "GET /refused HTP/1.1",
        "GET /refused /HTTP/1.1",
        "G@T /refused HTTP/1.1",
        "G(T) /refused HTTP/1.1",
        "GÉT /refused HTTP/1.1",
        "GET refused HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /ref\u{1}used HTTP/1.1",
        "GET /ref\u{7f}used HTTP/1.1",
        "GET /refused#fragment HTTP/1.1",
    ];
    let requests: Vec<_> = lines.iter().map(|line| format!("{line}\r\nHost: a.example\r\n\r\n").into_bytes()).collect();
    assert_refused(&[400], &requests);
}

#[test]
fn an_unknown_major_version() {
    let lines = ["GET /refused HTTP/2.0", "GET /refused HTTP/3.0", "GET /refused HTTP/9.9"];
    let requests: Vec<_> = lines.iter().map(|line| format!("{line}\r\nHost: a.example\r\n\r\n").into_bytes()).collect();
    assert_refused(&[505], &requests);
}

#[test]
fn other_protocols() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec();
    let mut requests = raw(&[
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "EHLO a.example\r\n\r\n",
        "GET /refused HTTP/0.9\r\n\r\n",
    ]);
    requests.push(hello);
    requests.push(vec![0; 64]);
    assert_refused(&[400, 505], &requests);
}

#[test]
fn trace_and_connect_are_not_allowed() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    for request in [
        "TRACE / HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    ] {
        let mut client = device.client();
        client.send(request);
        let reply = client.reply();
        assert_eq!(reply.status(), 405, "{request}");
        // RFC 9110 15.5.6: a 405 says what is allowed.
        assert!(reply.fields().has("allow"), "{request}: {reply:?}");
    }
    assert_eq!(server.bytes_received(), 0);
}

#[test]
fn a_refusal_of_a_head_request_has_no_content() {
    let server = ScriptedServer::start(ok);
    let device = Setup::before(&[server.address()]).timeouts("client_head = \"300ms\"").start();
    let long = format!("HEAD /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(10_000));
    for (head, status) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (&long, 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999\r\n\r\n", 413),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n", 408),
    ] {
        let mut client = device.client();
        client.send(head);
        let reply = client.reply_to("HEAD");
        assert_eq!(reply.status(), status, "{head}");
        assert!(reply.fields().has("content-length"), "{head}: {reply:?}");
        client.assert_ended();
    }
    assert_eq!(server.bytes_received(), 0);
}

#[test]
fn a_refusal_says_it_has_a_length_and_is_logged_with_a_reason() {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut client: Client = device.client();
    client.send("GET / HTTP/1.1\r\nX : y\r\nHost: a.example\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.status(), 400);
    assert!(reply.fields().has("content-length"), "{reply:?}");
    let line = until("the log line", PATIENCE, || device.access_log().pop());
    assert_eq!(line["status"], 400, "{line}");
    assert!(line.to_string().to_lowercase().contains("reason") || line.get("error").is_some(), "no reason: {line}");
}
