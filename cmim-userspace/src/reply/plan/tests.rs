//! The table of replies with dynamic content, row by row.

use bytes::BytesMut;

use super::{Fallback, HoldUntil, Plan, Refusal, plan};
use crate::config::model::LengthRewrite;
use crate::h1::{Limits, Method, ReplyDelimit, ReplyHead, ReplyParser, Version};

use LengthRewrite::{Always, Auto, Never};
use Version::{Http10, Http11};

const STREAM_CHUNKED: Plan = Plan::Stream { delimit: ReplyDelimit::Chunked };
const STREAM_UNTIL_CLOSE: Plan = Plan::Stream { delimit: ReplyDelimit::UntilClose };
const DYNAMIC: [&str; 2] = ["Transfer-Encoding: chunked\r\n", ""];

fn reply_to(method: &Method, status: u16, fields: &str) -> ReplyHead {
    let limits = Limits { head: 4096, fields: 20, target: 0, content: 0 };
    let mut buf = BytesMut::from(format!("HTTP/1.1 {status} x\r\n{fields}\r\n").as_bytes());
    ReplyParser::new().parse(&mut buf, method, &limits).expect("valid").expect("whole")
}

fn reply(fields: &str) -> ReplyHead {
    reply_to(&Method::Get, 200, fields)
}

#[test]
fn known_length_is_streamed() {
    for version in [Http10, Http11] {
        for rewrite in [Auto, Always, Never] {
            let known = plan(&reply("Content-Length: 5\r\n"), version, rewrite);
            assert_eq!(known, Plan::Stream { delimit: ReplyDelimit::Length(5) });
            let empty = plan(&reply("Content-Length: 0\r\n"), version, rewrite);
            assert_eq!(empty, Plan::Stream { delimit: ReplyDelimit::Length(0) });
        }
    }
}

#[test]
fn reply_that_can_have_no_content_is_streamed_as_it_is() {
    let as_is = Plan::Stream { delimit: ReplyDelimit::AsIs };
    for version in [Http10, Http11] {
        for rewrite in [Auto, Always, Never] {
            for fields in DYNAMIC {
                assert_eq!(plan(&reply_to(&Method::Head, 200, fields), version, rewrite), as_is);
                assert_eq!(plan(&reply_to(&Method::Get, 204, fields), version, rewrite), as_is);
                assert_eq!(plan(&reply_to(&Method::Get, 304, fields), version, rewrite), as_is);
                assert_eq!(plan(&reply_to(&Method::Connect, 200, fields), version, rewrite), as_is);
            }
        }
    }
}

#[test]
fn auto_holds_dynamic_content() {
    for fields in DYNAMIC {
        let to_11 = plan(&reply(fields), Http11, Auto);
        assert_eq!(to_11, Plan::Hold { until: HoldUntil::Auto, otherwise: Fallback::Chunked });
        let to_10 = plan(&reply(fields), Http10, Auto);
        assert_eq!(to_10, Plan::Hold { until: HoldUntil::Whole, otherwise: Fallback::UntilClose });
    }
}

#[test]
fn auto_streams_what_is_made_to_be_read_while_it_comes() {
    let signs = [
        "Content-Type: text/event-stream\r\n",
        "content-type: Text/Event-Stream ; charset=utf-8\r\n",
        "Content-Type: application/grpc\r\n",
        "Content-Type: application/grpc+proto\r\n",
        "Content-Type: multipart/x-mixed-replace; boundary=b\r\n",
        "X-Accel-Buffering: no\r\n",
        "Content-Type: text/html\r\nX-Accel-Buffering: No\r\n",
    ];
    for sign in signs {
        for fields in DYNAMIC {
            let head = reply(&format!("{sign}{fields}"));
            assert_eq!(plan(&head, Http11, Auto), STREAM_CHUNKED, "{sign}");
            assert_eq!(plan(&head, Http10, Auto), STREAM_UNTIL_CLOSE, "{sign}");
        }
    }
    for other in
        ["Content-Type: text/event-streams\r\n", "Content-Type: application/grp\r\n", "X-Accel-Buffering: yes\r\n"]
    {
        assert!(matches!(plan(&reply(other), Http11, Auto), Plan::Hold { .. }), "{other}");
    }
}

#[test]
fn always_holds_to_the_end_whatever_it_takes() {
    for version in [Http10, Http11] {
        for fields in DYNAMIC {
            for sign in ["", "Content-Type: text/event-stream\r\n", "X-Accel-Buffering: no\r\n"] {
                let head = reply(&format!("{sign}{fields}"));
                let held = Plan::Hold { until: HoldUntil::Whole, otherwise: Fallback::Refuse };
                assert_eq!(plan(&head, version, Always), held);
            }
        }
    }
}

#[test]
fn never_streams_at_once() {
    for fields in DYNAMIC {
        assert_eq!(plan(&reply(fields), Http11, Never), STREAM_CHUNKED);
        assert_eq!(plan(&reply(fields), Http10, Never), STREAM_UNTIL_CLOSE);
    }
}

#[test]
fn coded_content_keeps_its_coding_by_streaming() {
    let head = reply("Transfer-Encoding: gzip, chunked\r\n");
    for rewrite in [Auto, Always, Never] {
        assert_eq!(plan(&head, Http11, rewrite), Plan::Stream { delimit: ReplyDelimit::Coded });
        assert_eq!(plan(&head, Http10, rewrite), Plan::Refuse { reason: Refusal::CodedForHttp10 });
    }
}

#[test]
fn only_close_delimited_replies_end_the_clients_connection() {
    let closing = [ReplyDelimit::UntilClose];
    let keeping =
        [ReplyDelimit::None, ReplyDelimit::AsIs, ReplyDelimit::Length(1), ReplyDelimit::Chunked, ReplyDelimit::Coded];
    assert!(closing.iter().all(|delimit| delimit.closes()));
    assert!(!keeping.iter().any(|delimit| delimit.closes()));
}
