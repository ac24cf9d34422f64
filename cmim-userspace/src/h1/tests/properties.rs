//! Properties over random input: no panic, no dependence on how bytes are split, nothing lost in re-serialising, and no
//! second opinion from another parser.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::super::{ChunkedDecoder, Decoded, Forwarding, Method, ReplyDelimit, ReplyTo, Version, encode};
use super::{reply_in_pieces, reply_to, request, request_in_pieces, show_reply, show_request};

/// Pieces of heads, good and bad: much nearer to what attacks look like than random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET",
        "HEAD",
        "POST",
        "CONNECT",
        "OPTIONS",
        " ",
        "  ",
        "/",
        "*",
        "http://a/",
        "a:80",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/2.0",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        ":",
        ": ",
        "Host",
        "Host: a\r\n",
        "Content-Length",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding",
        "chunked",
        "Connection: close\r\n",
        "Connection: upgrade\r\n",
        "Upgrade: x\r\n",
        ",",
        "\t",
        "\0",
        "x",
        "200 OK",
        "GET / HTTP/1.1\r\n",
        "HTTP/1.1 200 OK\r\n",
        "A: b\r\n",
    ];
    prop_oneof![
        9 => proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ]
}

fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(b"".to_vec()),
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
    ];
    (start, vec(piece(), 0..16), any::<bool>()).prop_map(|(mut bytes, pieces, is_closed)| {
        bytes.extend(pieces.concat());
        if is_closed {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        bytes
    })
}

/// Field lines that are valid but for nothing.
fn valid_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name =
        prop_oneof!["[A-Za-z0-9_-]{1,20}", "(?i-u:via|forwarded|x-forwarded-for|te|keep-alive|trailer|date|cookie)"]
            .prop_filter("framing fields are given apart", |name: &String| {
                !["host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"]
                    .contains(&name.to_ascii_lowercase().as_str())
            });
    vec((name, "([!-~]([ -~\t]{0,20}[!-~])?)?"), 0..10)
}

fn cut_points(cuts: &[usize], len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn request_is_the_same_however_it_is_split(bytes in head_like(), cuts in vec(any::<usize>(), 0..6)) {
        let at_once = request(&bytes);
        let split = request_in_pieces(&bytes, &cut_points(&cuts, bytes.len()));
        prop_assert_eq!(
            at_once.map(|head| head.map(|head| show_request(&head))),
            split.map(|head| head.map(|head| show_request(&head)))
        );
    }

    #[test]
    fn reply_is_the_same_however_it_is_split(bytes in head_like(), cuts in vec(any::<usize>(), 0..6)) {
        let at_once = reply_to(&Method::Get, &bytes);
        let split = reply_in_pieces(&Method::Get, &bytes, &cut_points(&cuts, bytes.len()));
        prop_assert_eq!(
            at_once.map(|head| head.map(|head| show_reply(&head))),
            split.map(|head| head.map(|head| show_reply(&head)))
        );
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = request(&bytes);
        let _ = reply_to(&Method::Get, &bytes);
        let mut decoder = ChunkedDecoder::new();
        let mut buf = BytesMut::from(&bytes[..]);
        while matches!(decoder.decode(&mut buf), Ok(Decoded::Data(_))) {}
    }

    /// Whatever is accepted, a widely used lenient parser reads in the same way: there is no second reading to exploit.
    #[test]
    fn accepted_requests_have_one_reading(bytes in head_like()) {
        if let Ok(Some(head)) = request(&bytes) {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut other = httparse::Request::new(&mut headers);
            prop_assert!(other.parse(&bytes).is_ok_and(|status| status.is_complete()));
            prop_assert_eq!(other.method, Some(head.method.as_str()));
            let theirs: Vec<_> = other.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            let ours: Vec<_> = head.fields.iter().map(|(_, name, value)| (name, value)).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn request_sent_on_parses_to_the_same(fields in valid_fields(), framing in 0..4_usize, trusted in any::<bool>()) {
        let framing = ["", "Content-Length: 7\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"][framing];
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let bytes = format!("POST /t HTTP/1.1\r\nHost: h:1\r\n{lines}{framing}\r\n");
        let head = request(bytes.as_bytes()).expect("valid").expect("whole");
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let forwarding = Forwarding { client, proto: "http", trusted, keep_expect: false, fallback_host: b"" };
        let mut out = BytesMut::new();
        encode::request(&head, &forwarding, head.delimit(), &mut out);
        let again = request(&out).expect("still valid").expect("still whole");
        prop_assert_eq!(&again.method, &head.method);
        prop_assert_eq!(&again.target, &head.target);
        prop_assert_eq!(&again.authority, &head.authority);
        prop_assert_eq!((again.content, again.zero_length), (head.content, head.zero_length));
        // Sending it on once more changes nothing but the forwarding fields, which grow.
        let untouched = |head: &super::RequestHead| -> Vec<(Vec<u8>, Vec<u8>)> {
            head.fields
                .end_to_end()
                .filter(|(known, _, _)| *known == super::super::Known::Other)
                .map(|(_, name, value)| (name.to_vec(), value.to_vec()))
                .collect()
        };
        prop_assert_eq!(untouched(&again), untouched(&head));
    }

    #[test]
    fn reply_sent_on_parses_to_the_same(fields in valid_fields(), delimit in 0..3_usize) {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let bytes = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let head = reply_to(&Method::Get, bytes.as_bytes()).expect("valid").expect("whole");
        let delimit = [ReplyDelimit::Length(9), ReplyDelimit::Chunked, ReplyDelimit::UntilClose][delimit];
        let mut out = BytesMut::new();
        encode::reply(&head, &ReplyTo { client_version: Version::Http11, persist: true }, delimit, &mut out);
        let again = reply_to(&Method::Get, &out).expect("still valid").expect("still whole");
        let framing = match again.content {
            super::super::ReplyContent::Length(length) => ReplyDelimit::Length(length),
            super::super::ReplyContent::Chunked => ReplyDelimit::Chunked,
            super::super::ReplyContent::UntilClose => ReplyDelimit::UntilClose,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(framing, delimit);
        prop_assert_eq!(again.persistent, !delimit.closes());
        let untouched = |head: &super::ReplyHead| -> Vec<(Vec<u8>, Vec<u8>)> {
            head.fields
                .end_to_end()
                .filter(|(known, _, _)| *known == super::super::Known::Other)
                .map(|(_, name, value)| (name.to_vec(), value.to_vec()))
                .collect()
        };
        prop_assert_eq!(untouched(&again), untouched(&head));
    }
}
