//! Why a message was refused: one enum per layer, each reason in words for the log.

use thiserror::Error;

/// What is wrong with a line of a head or of a trailer section, whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    #[error("a line ends with LF but without CR")]
    BareLf,
    #[error("a CR stands alone in a line")]
    BareCr,
    #[error("a NUL stands in a line")]
    Nul,
    #[error("a control character stands in a line")]
    Control,
    #[error("a field line begins with white space (obs-fold)")]
    ObsFold,
    #[error("a field line has no colon")]
    NoColon,
    #[error("white space stands in a field's name or before its colon")]
    SpaceBeforeColon,
    #[error("a field name is empty or not a token")]
    FieldName,
    #[error("the head is larger than the limit")]
    TooLarge,
    #[error("the head has more fields than the limit")]
    TooManyFields,
    #[error("Connection has more options than any real one")]
    TooManyOptions,
}

/// What is wrong with the fields that say where a content ends (RFC 9112 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FramingError {
    #[error("Content-Length is not a plain decimal number")]
    LengthSyntax,
    #[error("several Content-Length fields differ")]
    LengthsDiffer,
    #[error("Content-Length comes with Transfer-Encoding")]
    LengthAndEncoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
    #[error("Transfer-Encoding is not a list of plain codings")]
    EncodingSyntax,
    #[error("Transfer-Encoding names chunked twice")]
    ChunkedTwice,
    #[error("Transfer-Encoding does not end with chunked")]
    ChunkedNotLast,
    #[error("Transfer-Encoding names a coding that is not supported")]
    UnknownCoding,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("{0}")]
    Framing(#[from] FramingError),
    #[error("too many empty lines before the request line")]
    EmptyLines,
    #[error("the request line is not a method, a target and a version with single spaces between")]
    RequestLine,
    #[error("the method is not a token")]
    MethodSyntax,
    #[error("the method is longer than any known one")]
    MethodTooLong,
    #[error("the request target has a character that may not stand there")]
    TargetSyntax,
    #[error("the form of the request target does not fit the method")]
    TargetForm,
    #[error("the request target is longer than the limit")]
    TargetTooLong,
    #[error("the protocol version is malformed")]
    VersionSyntax,
    #[error("the protocol version is not HTTP/1")]
    UnknownVersion,
    #[error("the Host field is missing")]
    HostMissing,
    #[error("there are several Host fields")]
    HostRepeated,
    #[error("the Host field is not a host and port")]
    HostSyntax,
    #[error("the request target's authority is not a host and port")]
    AuthoritySyntax,
    #[error("a CONNECT request announces a content")]
    ConnectWithContent,
    #[error("the content is larger than the limit")]
    ContentTooLarge,
}

impl RequestError {
    /// The status of the reply that refuses the request; the connection is closed after it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Head(HeadError::TooLarge | HeadError::TooManyFields) => 431,
            Self::Framing(FramingError::UnknownCoding) | Self::MethodTooLong => 501,
            Self::TargetTooLong => 414,
            Self::UnknownVersion => 505,
            Self::ContentTooLarge => 413,
            Self::Head(_)
            | Self::Framing(_)
            | Self::EmptyLines
            | Self::RequestLine
            | Self::MethodSyntax
            | Self::TargetSyntax
            | Self::TargetForm
            | Self::VersionSyntax
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostSyntax
            | Self::AuthoritySyntax
            | Self::ConnectWithContent => 400,
        }
    }
}

/// Why a server's reply cannot be used; the client gets 502 while nothing was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("{0}")]
    Framing(#[from] FramingError),
    #[error("the status line is malformed")]
    StatusLine,
    #[error("the protocol version is not HTTP/1")]
    UnknownVersion,
    #[error("a 101 reply does not say which protocol it switches to")]
    SwitchWithoutUpgrade,
}

/// What is wrong with a chunked content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    Size,
    #[error("a chunk size line is not closed by CRLF")]
    SizeLineEnd,
    #[error("a chunk extension is longer than the limit or has a control character")]
    Extension,
    #[error("a chunk's data is not closed by CRLF")]
    DataEnd,
    #[error("the content is larger than the limit")]
    ContentTooLarge,
    #[error("in the trailer section, {0}")]
    Trailers(#[from] HeadError),
}

impl ChunkError {
    /// The status of the reply that refuses a request with such a content.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::ContentTooLarge => 413,
            Self::Trailers(HeadError::TooLarge | HeadError::TooManyFields) => 431,
            Self::Size | Self::SizeLineEnd | Self::Extension | Self::DataEnd | Self::Trailers(_) => 400,
        }
    }
}
