//! How large a head and a content may be, as plain numbers.

/// The bounds that a parser keeps to. A reply uses `head` and `fields` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from its first line to the empty line that ends it. Above: 431 (502 for a reply). A head never
    /// exceeds [`Self::MOST_HEAD`] whatever stands here.
    pub head: usize,
    /// Field lines of a head. Above: 431 (502 for a reply).
    pub fields: usize,
    /// Bytes of a request target. Above: 414.
    pub target: usize,
    /// Bytes of a request content. Above: 413.
    pub content: u64,
}

impl Limits {
    /// For a reply's head of at most `head` bytes, with as many fields as fit.
    pub const fn of_reply(head: usize) -> Self {
        Self { head, fields: usize::MAX, target: 0, content: 0 }
    }

    /// Positions inside a head are kept as `u32`; this leaves much room below that and is far above any real head.
    pub const MOST_HEAD: usize = 16 << 20;

    /// The bytes that a head may have.
    pub(super) fn most_head(&self) -> usize {
        self.head.min(Self::MOST_HEAD)
    }
}
