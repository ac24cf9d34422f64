//! HTTP/1.1 as RFC 9112 has it: heads, framing, chunks, fields, and the strict policy against request smuggling.
//!
//! Pure: bytes in, decisions out. It knows no socket, clock or configuration file; limits come in as plain numbers. What
//! it parses is always re-serialised by [`encode`]; nothing of a peer's head is copied through by position.

mod authority;
pub mod chunked;
mod digits;
pub mod encode;
mod error;
mod fields;
mod forwarding;
mod framing;
mod known;
mod limits;
mod lines;
pub mod local;
mod method;
mod octet;
mod reply_head;
mod request_head;
mod request_line;
#[cfg(test)]
mod tests;

pub use authority::host_of;
pub use chunked::{ChunkedDecoder, Decoded, LAST_CHUNK, chunk_header, last_chunk};
pub use digits::put_decimal;
pub use encode::{ReplyDelimit, ReplyTo, RequestDelimit};
pub use error::{ChunkError, FramingError, HeadError, ReplyError, RequestError};
pub use fields::Fields;
pub use forwarding::Forwarding;
pub use known::Known;
pub use limits::Limits;
pub use local::{LocalReply, local_reply, reason_phrase};
pub use method::{Method, Version};
pub use reply_head::{ReplyContent, ReplyHead, ReplyParser};
pub use request_head::{RequestContent, RequestHead, RequestParser, head_has_begun};
