//! To whom belongs what a client sends: to the next head, to a request's content, or to a tunnel. Decisions only; the bytes
//! come and go through [`super::link`].

use crate::h1::{Method, RequestContent, RequestHead};
use crate::stack::Seq;

/// To whom what comes next belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody yet: it is the next head.
    #[default]
    Heads,
    /// It is the content of a request. `switches`: which asks for a tunnel too.
    Content { seq: Seq, switches: bool },
    /// It is the tunnel's that a request asks for, unless the server stays with HTTP.
    Tunnel { seq: Seq },
}

impl Owner {
    /// Of what follows a request's head.
    pub fn behind(seq: Seq, head: &RequestHead) -> Self {
        let switches = head.upgrade.is_some() || matches!(head.method, Method::Connect);
        match (head.content, switches) {
            (RequestContent::None, false) => Self::Heads,
            (RequestContent::None, true) => Self::Tunnel { seq },
            (RequestContent::Length(_) | RequestContent::Chunked, switches) => Self::Content { seq, switches },
        }
    }

    /// The request that has it.
    pub fn seq(self) -> Option<Seq> {
        match self {
            Self::Heads => None,
            Self::Content { seq, .. } | Self::Tunnel { seq } => Some(seq),
        }
    }

    /// The content was read to its end. While it is not known whether a tunnel comes of the request, what is behind it
    /// may be the tunnel's and is not read as a head.
    pub(super) fn content_ended(self) -> Self {
        match self {
            Self::Content { seq, switches: true } => Self::Tunnel { seq },
            Self::Content { switches: false, .. } | Self::Heads | Self::Tunnel { .. } => Self::Heads,
        }
    }

    /// No tunnel comes of the request.
    pub(super) fn stays_with_http(self) -> Self {
        match self {
            Self::Content { seq, .. } => Self::Content { seq, switches: false },
            Self::Heads | Self::Tunnel { .. } => Self::Heads,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::h1::{Limits, RequestParser};

    const SEQ: Seq = Seq(3);

    fn behind(request: &str) -> Owner {
        let limits = Limits { head: 1000, fields: 10, target: 1000, content: 1000 };
        let head = RequestParser::new().parse(&mut BytesMut::from(request), &limits).unwrap().unwrap();
        Owner::behind(SEQ, &head)
    }

    #[test]
    fn behind_a_request_comes_the_next_head_its_content_or_a_tunnel() {
        let offer = "Connection: upgrade\r\nUpgrade: raw\r\n";
        assert_eq!(behind("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Owner::Heads);
        assert_eq!(behind(&format!("GET / HTTP/1.1\r\nHost: a\r\n{offer}\r\n")), Owner::Tunnel { seq: SEQ });
        assert_eq!(behind("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), Owner::Tunnel { seq: SEQ });
        for framing in ["Content-Length: 2", "Transfer-Encoding: chunked"] {
            let plain = behind(&format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            assert_eq!(plain, Owner::Content { seq: SEQ, switches: false });
            assert_eq!(plain.content_ended(), Owner::Heads);
        }
    }

    #[test]
    fn behind_a_content_comes_a_head_only_once_no_tunnel_can_come_of_its_request() {
        let offered =
            behind("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\nContent-Length: 2\r\n\r\n");
        let tunnel = Owner::Tunnel { seq: SEQ };
        assert_eq!(offered.content_ended(), tunnel);
        assert_eq!(tunnel.stays_with_http(), Owner::Heads);
        // The server's word can come before the content's end.
        assert_eq!(offered.stays_with_http().seq(), Some(SEQ));
        assert_eq!(offered.stays_with_http().content_ended(), Owner::Heads);
    }
}
