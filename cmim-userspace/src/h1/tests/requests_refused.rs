//! Every refusal with its status and its reason, at once and at every split point.

use super::super::{FramingError as Framing, HeadError as Head, RequestError as Error, RequestParser};
use super::{LIMITS, all_cuts, in_pieces, request, request_in_pieces};

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, status: u16, reason: Error) {
    let bytes = bytes.as_ref();
    let error = request(bytes).expect_err("the request is refused");
    assert_eq!(error, reason, "{}", bytes.escape_ascii());
    assert_eq!(error.status(), status, "{}", bytes.escape_ascii());
    assert!(!error.to_string().is_empty());
    for cuts in all_cuts(bytes.len()) {
        assert_eq!(request_in_pieces(bytes, &cuts).err(), Some(reason), "cut at {cuts:?}: {}", bytes.escape_ascii());
    }
}

/// A GET with these field lines after Host.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

#[test]
fn two_single_spaces_make_a_request_line() {
    for bad in ["GET  / HTTP/1.1", "GET /", "GET / ", "GET  /", "GET / x HTTP/1.1"] {
        let error = request(line(bad).as_bytes()).expect_err(bad);
        assert_eq!(error.status(), 400, "{bad}");
    }
    refused(line("GET  / HTTP/1.1"), 400, Error::RequestLine);
    refused(line("GET /"), 400, Error::RequestLine);
    refused(line("GET /  HTTP/1.1"), 400, Error::RequestLine);
    refused(line("GET / HTTP/1.1 "), 400, Error::RequestLine);
    refused(line(" GET / HTTP/1.1"), 400, Error::MethodSyntax);
    refused(line("GET\t/ HTTP/1.1"), 400, Error::MethodSyntax);
    refused(line("GET"), 400, Error::MethodSyntax);
    refused(line("GET /\tHTTP/1.1"), 400, Error::RequestLine);
}

#[test]
fn method_is_a_token_of_bounded_length() {
    refused(line("G@T / HTTP/1.1"), 400, Error::MethodSyntax);
    refused(line("G\u{e9}T / HTTP/1.1"), 400, Error::MethodSyntax);
    refused(line(&format!("{} / HTTP/1.1", "M".repeat(33))), 501, Error::MethodTooLong);
}

#[test]
fn tls_hello_is_refused_at_its_first_byte() {
    refused(b"\x16", 400, Error::MethodSyntax);
}

#[test]
fn unknown_versions() {
    refused(line("GET / HTTP/2.0"), 505, Error::UnknownVersion);
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Error::UnknownVersion);
    refused(line("GET / HTTP/0.9"), 505, Error::UnknownVersion);
    refused(line("GET / HTTP/9.1"), 505, Error::UnknownVersion);
    for bad in
        ["HTTP/2", "http/1.1", "HTTP/1.10", "HTTP/1", "HTTP/01.1", "HTTP/1,1", "HTTP1.1", "HTTPS/1.1", "HTTP/1.x"]
    {
        refused(line(&format!("GET / {bad}")), 400, Error::VersionSyntax);
    }
}

#[test]
fn target_characters() {
    for bad in ["/a\u{1}b", "/a\u{7f}b", "/\u{e4}", "/a#b", "/a\0b", "/a\rb"] {
        refused(line(&format!("GET {bad} HTTP/1.1")), 400, Error::TargetSyntax);
    }
    refused(line("GET /a b HTTP/1.1"), 400, Error::RequestLine);
}

#[test]
fn target_form_fits_the_method() {
    refused(line("GET * HTTP/1.1"), 400, Error::TargetForm);
    refused(line("GET a:80 HTTP/1.1"), 400, Error::TargetForm);
    refused(line("GET index.html HTTP/1.1"), 400, Error::TargetForm);
    refused(line("GET ftp://a/ HTTP/1.1"), 400, Error::TargetForm);
    refused(line("GET http:/a/ HTTP/1.1"), 400, Error::TargetForm);
    refused(line("OPTIONS ** HTTP/1.1"), 400, Error::TargetForm);
    refused(line("CONNECT / HTTP/1.1"), 400, Error::TargetForm);
    refused(line("CONNECT a HTTP/1.1"), 400, Error::TargetForm);
    refused(line("CONNECT a: HTTP/1.1"), 400, Error::TargetForm);
    refused(line("CONNECT http://a:80/ HTTP/1.1"), 400, Error::TargetForm);
    refused(line("CONNECT a:80/x HTTP/1.1"), 400, Error::TargetForm);
}

#[test]
fn absolute_form_authority() {
    for bad in ["http://", "http:///x", "http://u@a/", "http://u:p@a/", "http://a:x/", "http://?q", "http://[::1/"] {
        refused(line(&format!("GET {bad} HTTP/1.1")), 400, Error::AuthoritySyntax);
    }
}

#[test]
fn target_too_long() {
    let target = "a".repeat(LIMITS.target);
    refused(line(&format!("GET /{target} HTTP/1.1")), 414, Error::TargetTooLong);
    refused(format!("GET /{target}"), 414, Error::TargetTooLong);
}

#[test]
fn head_too_large() {
    let value = "v".repeat(LIMITS.head);
    refused(with(&format!("A: {value}\r\n")), 431, Error::Head(Head::TooLarge));
    let fields: String = (0..LIMITS.fields).map(|n| format!("F{n}: v\r\n")).collect();
    refused(with(&fields), 431, Error::Head(Head::TooManyFields));
}

#[test]
fn name_longer_than_a_span_holds_is_refused() {
    let limits = super::super::Limits { head: 1 << 20, ..LIMITS };
    let bytes = with(&format!("{}: v\r\n", "n".repeat(70_000)));
    let outcome = RequestParser::new().parse(&mut super::BytesMut::from(bytes.as_bytes()), &limits);
    assert_eq!(outcome.err(), Some(Error::Head(Head::TooLarge)));
}

#[test]
fn bare_line_ends_and_control_characters() {
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, Error::Head(Head::BareLf));
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, Error::Head(Head::BareLf));
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, Error::Head(Head::BareLf));
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Error::Head(Head::BareLf));
    refused("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Error::Head(Head::BareCr));
    refused("\r\rGET", 400, Error::Head(Head::BareCr));
    refused(with("A: x\ry\r\n"), 400, Error::Head(Head::BareCr));
    refused(with("A: x\r\r\n"), 400, Error::Head(Head::BareCr));
    refused(with("A\r: x\r\n"), 400, Error::Head(Head::BareCr));
    refused(with("\rA: x\r\n"), 400, Error::Head(Head::BareCr));
    refused(with("A: x\0y\r\n"), 400, Error::Head(Head::Nul));
    refused(with("A\0: x\r\n"), 400, Error::Head(Head::Nul));
    for control in (1..=8).chain([11, 12]).chain(14..=31).chain([127]) {
        refused(with(&format!("A: x{}y\r\n", char::from(control))), 400, Error::Head(Head::Control));
    }
}

#[test]
fn empty_lines_before_a_head_are_bounded() {
    let mut bytes = "\r\n".repeat(17);
    bytes.push_str("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(bytes, 400, Error::EmptyLines);
}

#[test]
fn field_lines() {
    refused(with("A: x\r\n y\r\n"), 400, Error::Head(Head::ObsFold));
    refused(with("A: x\r\n\ty\r\n"), 400, Error::Head(Head::ObsFold));
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, Error::Head(Head::ObsFold));
    refused(with("A : x\r\n"), 400, Error::Head(Head::SpaceBeforeColon));
    refused(with("Content-Length : 5\r\n"), 400, Error::Head(Head::SpaceBeforeColon));
    refused(with("Transfer-Encoding\t: chunked\r\n"), 400, Error::Head(Head::SpaceBeforeColon));
    refused(with("A B: x\r\n"), 400, Error::Head(Head::SpaceBeforeColon));
    refused(with("A\r\n"), 400, Error::Head(Head::NoColon));
    refused(with("A x\r\n"), 400, Error::Head(Head::SpaceBeforeColon));
    refused(with(": x\r\n"), 400, Error::Head(Head::FieldName));
    refused(with("A(b): x\r\n"), 400, Error::Head(Head::FieldName));
    refused(with("A\u{e4}: x\r\n"), 400, Error::Head(Head::FieldName));
    refused(with("\"A\": x\r\n"), 400, Error::Head(Head::FieldName));
    refused(with("\u{b}Transfer-Encoding: chunked\r\n"), 400, Error::Head(Head::Control));
}

#[test]
fn content_length_is_digits_only() {
    for bad in
        ["", "+5", "-5", "5 5", "5, 5", "5,6", "0x5", "5a", "5.0", "\"5\"", "18446744073709551616", "5;", "\u{660}"]
    {
        refused(with(&format!("Content-Length: {bad}\r\n")), 400, Error::Framing(Framing::LengthSyntax));
    }
    refused(with(&format!("Content-Length: {:0>21}\r\n", 5)), 400, Error::Framing(Framing::LengthSyntax));
}

#[test]
fn content_lengths_that_differ() {
    refused(with("Content-Length: 5\r\nContent-Length: 6\r\n"), 400, Error::Framing(Framing::LengthsDiffer));
    refused(with("Content-Length: 5\r\ncontent-length: 05\r\n"), 400, Error::Framing(Framing::LengthsDiffer));
    refused(with("Content-Length: 5\r\nContent-Length: x\r\n"), 400, Error::Framing(Framing::LengthSyntax));
    refused(with("Content-Length: 0\r\nContent-Length: 5\r\n"), 400, Error::Framing(Framing::LengthsDiffer));
}

#[test]
fn content_larger_than_the_limit() {
    refused(with("Content-Length: 1048577\r\n"), 413, Error::ContentTooLarge);
    refused(with("Content-Length: 18446744073709551615\r\n"), 413, Error::ContentTooLarge);
}

#[test]
fn length_with_encoding() {
    for encoding in ["chunked", "gzip", "identity", ""] {
        for length in ["5", "0", "x"] {
            let fields = format!("Transfer-Encoding: {encoding}\r\nContent-Length: {length}\r\n");
            refused(with(&fields), 400, Error::Framing(Framing::LengthAndEncoding));
        }
    }
}

#[test]
fn transfer_encodings() {
    let cases = [
        ("chunked, chunked", 400, Framing::ChunkedTwice),
        ("chunked, gzip, chunked", 400, Framing::ChunkedTwice),
        ("chunked, gzip", 400, Framing::ChunkedNotLast),
        ("chunked, identity", 400, Framing::ChunkedNotLast),
        ("gzip", 400, Framing::ChunkedNotLast),
        ("gzip, chunked", 501, Framing::UnknownCoding),
        ("identity", 501, Framing::UnknownCoding),
        ("xchunked", 501, Framing::UnknownCoding),
        ("chunkedx", 501, Framing::UnknownCoding),
        ("x, chunked", 501, Framing::UnknownCoding),
        ("", 400, Framing::EncodingSyntax),
        (",chunked", 400, Framing::EncodingSyntax),
        ("chunked,", 400, Framing::EncodingSyntax),
        ("chunked;q=1", 400, Framing::EncodingSyntax),
        ("\"chunked\"", 400, Framing::EncodingSyntax),
        ("chunk ed", 400, Framing::EncodingSyntax),
        ("chunked\u{a0}", 400, Framing::EncodingSyntax),
    ];
    for (value, status, reason) in cases {
        refused(with(&format!("Transfer-Encoding: {value}\r\n")), status, Error::Framing(reason));
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refused(with(twice), 400, Error::Framing(Framing::ChunkedTwice));
    let not_last = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n";
    refused(with(not_last), 400, Error::Framing(Framing::ChunkedNotLast));
}

#[test]
fn encoding_in_http_1_0() {
    let bytes = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(bytes, 400, Error::Framing(Framing::EncodingInHttp10));
}

#[test]
fn host_is_one_and_valid() {
    refused("GET / HTTP/1.1\r\n\r\n", 400, Error::HostMissing);
    refused("GET http://a/ HTTP/1.1\r\n\r\n", 400, Error::HostMissing);
    refused(with("Host: a\r\n"), 400, Error::HostRepeated);
    refused(with("host: b\r\n"), 400, Error::HostRepeated);
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, Error::HostRepeated);
    let bad = [
        "",
        "a b",
        "a/b",
        "a,b",
        "a, b",
        "u@a",
        "http://a",
        "a:b",
        "a:80:80",
        ":80",
        "a:65536",
        "a:123456",
        "[::1",
        "[::1]x",
        "[x]",
        "::1",
        "a\u{e4}",
        "a\\b",
        "a#b",
        "a?b",
        "[fe80::1%25en0]",
        "[]",
        "a:+80",
    ];
    for host in bad {
        refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, Error::HostSyntax);
        refused(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"), 400, Error::HostSyntax);
        // Absolute-form wins over Host, but an invalid Host is refused all the same.
        refused(format!("GET http://a/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, Error::HostSyntax);
    }
}

#[test]
fn connect_has_no_content() {
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400, Error::ConnectWithContent);
    refused("CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, Error::ConnectWithContent);
}

#[test]
fn connection_options_are_bounded() {
    let options = vec!["x"; 65].join(",");
    refused(with(&format!("Connection: {options}\r\n")), 400, Error::Head(Head::TooManyOptions));
}

#[test]
fn what_is_refused_is_known_to_be_a_head_request_or_not_at_every_cut() {
    let asks = |bytes: &str, cuts: &[usize]| {
        let mut parser = RequestParser::new();
        let parsed = in_pieces(bytes.as_bytes(), cuts, |buf| parser.parse(buf, &LIMITS));
        assert!(parsed.is_err() || parsed.is_ok_and(|head| head.is_none()), "{bytes}");
        parser.asks_for_head()
    };
    let long = "a".repeat(LIMITS.target + 1);
    let refused = [
        " / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        " / HTTP/2.0\r\n\r\n".to_owned(),
        "  / HTTP/1.1\r\n\r\n".to_owned(),
        format!(" /{long} HTTP/1.1\r\n\r\n"),
        " / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
        // Not refused yet.
        " / HTTP/1.1\r\nHost: a\r\n".to_owned(),
    ];
    for rest in &refused {
        for (method, expected) in
            [("HEAD", true), ("\r\nHEAD", true), ("GET", false), ("head", false), ("HEADS", false)]
        {
            let bytes = format!("{method}{rest}");
            for cuts in all_cuts(bytes.len()) {
                assert_eq!(asks(&bytes, &cuts), expected, "cut at {cuts:?}: {bytes}");
            }
        }
    }
}

#[test]
fn a_head_request_before_does_not_count() {
    let mut parser = RequestParser::new();
    let mut buf = bytes::BytesMut::from("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\n");
    assert!(parser.parse(&mut buf, &LIMITS).expect("valid").is_some());
    assert_eq!(parser.parse(&mut buf, &LIMITS).expect_err("an LF alone"), Head::BareLf.into());
    assert!(!parser.asks_for_head());
}
