//! The field lines of a head or trailer section (RFC 9112 5), read in one pass as they come in.
//!
//! Owns where the section has been read to, down to the octet: a section that drips in byte by byte costs no more than
//! one that comes at once, and the first bad octet is refused when it arrives. It works on a view of the buffer that is
//! never longer than the section may be, so that what it finds does not depend on how the bytes were split.

use super::error::HeadError;
use super::fields::Span;
use super::known::Known;
use super::octet::{first_control, is_token_octet, trimmed_end, trimmed_start};

/// Space for a usual head's fields, taken at once.
const USUAL_FIELDS: usize = 16;

/// The reading of one section.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Where the line that is being read begins.
    line_start: usize,
    /// The octets before this one were read and found good.
    scanned: usize,
    /// Length of the line's name; 0 as long as its colon was not seen.
    name_len: usize,
    spans: Vec<Span>,
}

/// How a part of a line ends.
enum LineEnd {
    /// With CRLF, the CR at this position.
    At(usize),
    NotYet,
}

impl Section {
    /// The section's first line, which is not a field; its octets are checked like a value's. To be called before
    /// [`Self::read_fields`], or [`Self::skip_to`] instead.
    pub(super) fn first_line<'v>(&mut self, view: &'v [u8]) -> Result<Option<&'v [u8]>, HeadError> {
        let LineEnd::At(end) = self.line_end(view)? else { return Ok(None) };
        self.skip_to(end + 2);
        Ok(view.get(..end))
    }

    /// Goes on after a first line that was read by other means.
    #[inline]
    pub(super) fn skip_to(&mut self, start: usize) {
        self.line_start = start;
        self.scanned = start;
        self.name_len = 0;
    }

    /// Reads field lines; `Some` is the position after the empty line that ends the section.
    pub(super) fn read_fields(&mut self, view: &[u8], most_fields: usize) -> Result<Option<usize>, HeadError> {
        loop {
            if self.name_len == 0 {
                match self.name_end(view)? {
                    NameEnd::Colon(colon) => {
                        if self.spans.len() >= most_fields {
                            return Err(HeadError::TooManyFields);
                        }
                        self.name_len = colon - self.line_start;
                        self.scanned = colon + 1;
                    }
                    NameEnd::SectionEnd(end) => return Ok(Some(end)),
                    NameEnd::NotYet => return Ok(None),
                }
            }
            let LineEnd::At(end) = self.line_end(view)? else { return Ok(None) };
            let line = view.get(self.line_start..end).unwrap_or_default();
            let span = self.span(line)?;
            if self.spans.capacity() == 0 {
                self.spans.reserve_exact(USUAL_FIELDS);
            }
            self.spans.push(span);
            self.skip_to(end + 2);
        }
    }

    /// The fields that were read; the section is ready for another one.
    pub(super) fn finish(&mut self) -> Vec<Span> {
        self.skip_to(0);
        std::mem::take(&mut self.spans)
    }

    /// Goes on through a name to its colon.
    #[inline]
    fn name_end(&mut self, view: &[u8]) -> Result<NameEnd, HeadError> {
        let rest = view.get(self.scanned..).unwrap_or_default();
        let name_len = rest.iter().position(|&b| !is_token_octet(b)).unwrap_or(rest.len());
        let at = self.scanned + name_len;
        self.scanned = at;
        let is_empty = at == self.line_start;
        match rest.get(name_len..).unwrap_or_default() {
            [] | [b'\r'] => Ok(NameEnd::NotYet),
            [b':', ..] if !is_empty => Ok(NameEnd::Colon(at)),
            [b'\r', b'\n', ..] if is_empty => Ok(NameEnd::SectionEnd(at + 2)),
            [b'\r', b'\n', ..] => Err(HeadError::NoColon),
            [b' ' | b'\t', ..] if is_empty => Err(HeadError::ObsFold),
            [b' ' | b'\t', ..] => Err(HeadError::SpaceBeforeColon),
            [octet, ..] if octet.is_ascii_control() => Err(control_error(*octet)),
            _ => Err(HeadError::FieldName),
        }
    }

    /// Goes on through a value to the line's end.
    #[inline]
    fn line_end(&mut self, view: &[u8]) -> Result<LineEnd, HeadError> {
        let rest = view.get(self.scanned..).unwrap_or_default();
        let len = first_control(rest);
        let at = self.scanned + len;
        self.scanned = at;
        match rest.get(len..).unwrap_or_default() {
            [b'\r', b'\n', ..] => Ok(LineEnd::At(at)),
            [] | [b'\r'] => Ok(LineEnd::NotYet),
            [octet, ..] => Err(control_error(*octet)),
        }
    }

    /// The span of the whole line `line`, whose name and colon were read.
    #[inline]
    fn span(&self, line: &[u8]) -> Result<Span, HeadError> {
        let name = line.get(..self.name_len).unwrap_or_default();
        let after_colon = line.get(self.name_len + 1..).unwrap_or_default();
        let value = trimmed_start(after_colon);
        let value_start = self.line_start + line.len() - value.len();
        let known = Known::of(name);
        Ok(Span {
            // A section is at most `Limits::MOST_HEAD` bytes, so that a u32 holds every position in it.
            name_start: self.line_start as u32,
            value_start: value_start as u32,
            value_len: trimmed_end(value).len() as u32,
            name_len: u16::try_from(name.len()).map_err(|_| HeadError::TooLarge)?,
            known,
            stays: known.is_hop_by_hop(),
        })
    }
}

/// How a name ends.
enum NameEnd {
    Colon(usize),
    /// There is no name but the empty line that ends the section; the position after it.
    SectionEnd(usize),
    NotYet,
}

/// The error for a control character, or a line feed without its carriage return.
fn control_error(octet: u8) -> HeadError {
    match octet {
        b'\n' => HeadError::BareLf,
        b'\r' => HeadError::BareCr,
        0 => HeadError::Nul,
        _ => HeadError::Control,
    }
}
