//! The fields of a head or trailer section: in order, duplicates kept, without a copy.
//!
//! Each field is two spans into the section's own bytes and what [`Known`] says it is, decided when it was parsed, so
//! that filtering later is a match and no comparison of strings.

use std::ops::Range;

use bytes::Bytes;

use super::known::Known;
use super::octet::members;

/// One field's place in its section. 16 bytes, so that a usual head's fields fit four cache lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) name_start: u32,
    pub(super) value_start: u32,
    pub(super) value_len: u32,
    pub(super) name_len: u16,
    pub(super) known: Known,
    /// Hop-by-hop by its name or because Connection names it: stays with this connection.
    pub(super) stays: bool,
}

/// The fields of a head, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    section: Bytes,
    spans: Vec<Span>,
    /// Which known names occur at all, so that asking for an absent one costs nothing.
    present: u32,
}

impl Fields {
    pub(super) fn new(section: Bytes, spans: Vec<Span>) -> Self {
        let present = spans.iter().fold(0, |set, span| set | span.known.bit());
        Self { section, spans, present }
    }

    /// Takes the section out of the buffer that it was read into.
    pub(super) fn detach(&mut self) {
        self.section = Bytes::copy_from_slice(&self.section);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of the section that the fields came in, first line included.
    pub(super) fn section_len(&self) -> usize {
        self.section.len()
    }

    /// Every field as it came: what it is, its name, its value without white space around.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.spans.iter().map(|span| self.field(span))
    }

    /// The fields that are passed on to the other side: without those of this connection only.
    pub(super) fn end_to_end(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.spans.iter().filter(|span| !span.stays).map(|span| self.field(span))
    }

    #[must_use]
    pub fn contains(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The value of the first field of this kind.
    #[must_use]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The values of all fields of this kind, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let spans: &[Span] = if self.contains(known) { &self.spans } else { &[] };
        spans.iter().filter(move |span| span.known == known).map(|span| self.value(span))
    }

    /// The value of the first field of that name; case does not matter.
    #[must_use]
    pub fn get_named(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(_, own, _)| own.eq_ignore_ascii_case(name.as_bytes())).map(|(_, _, value)| value)
    }

    /// As [`Self::get`], sharing the head's bytes.
    pub(super) fn get_bytes(&self, known: Known) -> Option<Bytes> {
        self.get(known).map(|value| self.section.slice_ref(value))
    }

    /// A part of the head's own bytes; empty if there is no such part.
    pub(super) fn share(&self, range: Range<usize>) -> Bytes {
        self.section.get(range).map(|part| self.section.slice_ref(part)).unwrap_or_default()
    }

    /// As [`Self::share`], borrowed.
    pub(super) fn borrow(&self, range: Range<usize>) -> &[u8] {
        self.section.get(range).unwrap_or_default()
    }

    /// The members of all fields of this kind, read as one comma-separated list.
    pub(super) fn members(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.all(known).flat_map(members)
    }

    /// Marks the fields that Connection names, unless they are protected, as staying with this connection.
    pub(super) fn keep_back_named_by_connection(&mut self) {
        let named: Vec<bool> = self
            .iter()
            .map(|(known, name, _)| {
                !known.is_protected() && self.members(Known::Connection).any(|option| option.eq_ignore_ascii_case(name))
            })
            .collect();
        for (span, named) in self.spans.iter_mut().zip(named) {
            span.stays |= named;
        }
    }

    /// Marks every field of this kind as staying with this connection.
    pub(super) fn keep_back(&mut self, known: Known) {
        for span in self.spans.iter_mut().filter(|span| span.known == known) {
            span.stays = true;
        }
    }

    #[inline]
    fn field(&self, span: &Span) -> (Known, &[u8], &[u8]) {
        (span.known, self.part(span.name_start, u32::from(span.name_len)), self.value(span))
    }

    #[inline]
    fn value(&self, span: &Span) -> &[u8] {
        self.part(span.value_start, span.value_len)
    }

    #[inline]
    fn part(&self, start: u32, len: u32) -> &[u8] {
        let start = start as usize;
        // The spans were made from this very section, so the fallback is never taken.
        self.section.get(start..start + len as usize).unwrap_or_default()
    }
}
