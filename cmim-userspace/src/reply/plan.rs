//! The plan for a reply: stream it, hold it until its length is known, or refuse it.

use crate::config::model::LengthRewrite;
use crate::h1::{Known, ReplyContent, ReplyDelimit, ReplyHead, Version};

/// What to do with a reply's content. The client's connection must close after [`ReplyDelimit::UntilClose`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Pass it on as it comes.
    Stream { delimit: ReplyDelimit },
    /// Hold it back; when it is whole, send it with Content-Length. `otherwise` says what to do if `until` comes first.
    Hold { until: HoldUntil, otherwise: Fallback },
    /// Answer 502 in its place.
    Refuse { reason: Refusal },
}

/// How long a reply that is not whole yet is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldUntil {
    /// Until `hold_time` or `hold_size` passes, or all tiers are full.
    Auto,
    /// To its end, unless all tiers are full.
    Whole,
}

/// What becomes of a held reply whose hold ends before it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// What is held goes out as a chunk, and the rest as it comes.
    Chunked,
    /// What is held goes out, then the rest, and the connection closes.
    UntilClose,
    /// 502.
    Refuse,
}

/// Why a valid reply cannot be passed on to this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the reply has a transfer coding that an HTTP/1.0 client cannot undo")]
    CodedForHttp10,
}

/// The plan for `reply` to a client of `client_version`.
#[must_use]
pub fn plan(reply: &ReplyHead, client_version: Version, rewrite: LengthRewrite) -> Plan {
    match reply.content {
        ReplyContent::None => Plan::Stream { delimit: ReplyDelimit::AsIs },
        ReplyContent::Length(length) => Plan::Stream { delimit: ReplyDelimit::Length(length) },
        ReplyContent::Coded => match client_version {
            Version::Http11 => Plan::Stream { delimit: ReplyDelimit::Coded },
            Version::Http10 => Plan::Refuse { reason: Refusal::CodedForHttp10 },
        },
        ReplyContent::Chunked | ReplyContent::UntilClose => plan_dynamic(reply, client_version, rewrite),
    }
}

fn plan_dynamic(reply: &ReplyHead, client_version: Version, rewrite: LengthRewrite) -> Plan {
    let streamed = match client_version {
        Version::Http11 => ReplyDelimit::Chunked,
        Version::Http10 => ReplyDelimit::UntilClose,
    };
    match rewrite {
        LengthRewrite::Never => Plan::Stream { delimit: streamed },
        LengthRewrite::Always => Plan::Hold { until: HoldUntil::Whole, otherwise: Fallback::Refuse },
        LengthRewrite::Auto if wants_streaming(reply) => Plan::Stream { delimit: streamed },
        LengthRewrite::Auto => match client_version {
            Version::Http11 => Plan::Hold { until: HoldUntil::Auto, otherwise: Fallback::Chunked },
            Version::Http10 => Plan::Hold { until: HoldUntil::Whole, otherwise: Fallback::UntilClose },
        },
    }
}

/// Whether the reply is made to be read while it comes, so that holding it would break it.
fn wants_streaming(reply: &ReplyHead) -> bool {
    let says_no = reply.fields.get(Known::XAccelBuffering).is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
    says_no || reply.fields.get(Known::ContentType).is_some_and(is_streaming_type)
}

fn is_streaming_type(content_type: &[u8]) -> bool {
    let essence = content_type.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
    essence.eq_ignore_ascii_case(b"text/event-stream")
        || essence.eq_ignore_ascii_case(b"multipart/x-mixed-replace")
        || essence.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

#[cfg(test)]
mod tests;
