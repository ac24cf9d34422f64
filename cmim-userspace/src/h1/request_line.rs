//! The request line (RFC 9112 3): a method, a target and a version, with exactly one space between each.

use bytes::{BufMut, Bytes, BytesMut};

use super::authority::{is_host_and_port, is_host_with_port};
use super::error::{HeadError, RequestError};
use super::limits::Limits;
use super::method::{Method, Version};
use super::octet::{is_target, is_token_octet};

/// The longest registered method has 17 letters; a longer name than this is answered 501 (RFC 9112 3).
const MOST_METHOD: usize = 32;

/// `HTTP/1.1` and CRLF.
const VERSION_LINE: usize = 10;

/// How far a request line has been read.
#[derive(Debug, Default)]
pub(super) struct RequestLine {
    method_end: Option<usize>,
    target_end: Option<usize>,
    /// Up to where the target holds no space or line end.
    scanned: usize,
}

/// A request line in which every character was checked; positions are those of the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeLine {
    pub(super) method_end: usize,
    pub(super) target_end: usize,
    pub(super) version: Version,
    /// Where the first field line begins.
    pub(super) end: usize,
}

impl RequestLine {
    /// Goes on reading the line at the front of `view`; `None` as long as it is not whole.
    pub(super) fn read(&mut self, view: &[u8], limits: &Limits) -> Result<Option<WholeLine>, RequestError> {
        let Some(method_end) = self.method_end(view)? else { return Ok(None) };
        let Some(target_end) = self.target_end(view, method_end + 1, limits)? else { return Ok(None) };
        let rest = view.get(target_end + 1..).unwrap_or_default();
        let Some(version) = version(rest)? else { return Ok(None) };
        Ok(Some(WholeLine { method_end, target_end, version, end: target_end + 1 + VERSION_LINE }))
    }

    fn method_end(&mut self, view: &[u8]) -> Result<Option<usize>, RequestError> {
        if self.method_end.is_some() {
            return Ok(self.method_end);
        }
        // Bytes that cannot be a method (a TLS hello, say) are refused at once, not when the time for a head is over.
        match view.iter().take(MOST_METHOD + 1).position(|&b| !is_token_octet(b)) {
            None if view.len() > MOST_METHOD => Err(RequestError::MethodTooLong),
            None => Ok(None),
            Some(0) => Err(RequestError::MethodSyntax),
            Some(end) if view.get(end) == Some(&b' ') => {
                self.method_end = Some(end);
                self.scanned = end + 1;
                Ok(self.method_end)
            }
            Some(_) => Err(RequestError::MethodSyntax),
        }
    }

    fn target_end(&mut self, view: &[u8], start: usize, limits: &Limits) -> Result<Option<usize>, RequestError> {
        if self.target_end.is_some() {
            return Ok(self.target_end);
        }
        // One byte more than a target may have: the space after the longest one.
        let bounded = view.get(..view.len().min(start.saturating_add(limits.target).saturating_add(1)));
        let rest = bounded.and_then(|view| view.get(self.scanned..)).unwrap_or_default();
        let Some(found) = memchr::memchr2(b' ', b'\n', rest) else {
            self.scanned += rest.len();
            return if self.scanned - start > limits.target { Err(RequestError::TargetTooLong) } else { Ok(None) };
        };
        let end = self.scanned + found;
        let target = view.get(start..end).unwrap_or_default();
        if target.is_empty() || view.get(end) == Some(&b'\n') {
            return Err(RequestError::RequestLine);
        }
        if !is_target(target) {
            return Err(RequestError::TargetSyntax);
        }
        self.target_end = Some(end);
        Ok(self.target_end)
    }
}

/// The version and the line's end; `None` as long as they are not whole.
fn version(rest: &[u8]) -> Result<Option<Version>, RequestError> {
    match rest.get(..VERSION_LINE) {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', b'\n'])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match (major, minor) {
                (b'1', b'0') => Ok(Some(Version::Http10)),
                (b'1', _) => Ok(Some(Version::Http11)),
                _ => Err(RequestError::UnknownVersion),
            }
        }
        Some(line) => Err(version_error(line)),
        None if memchr::memchr(b'\n', rest).is_some() => Err(version_error(rest)),
        None => Ok(None),
    }
}

fn version_error(line: &[u8]) -> RequestError {
    let line_end = memchr::memchr(b'\n', line);
    let text = line.get(..line_end.unwrap_or(line.len())).unwrap_or_default();
    if text.contains(&b' ') {
        RequestError::RequestLine
    } else if line_end.is_some() && !text.ends_with(b"\r") {
        HeadError::BareLf.into()
    } else {
        RequestError::VersionSyntax
    }
}

/// What a request target asks for.
#[derive(Debug)]
pub(super) struct Destination {
    /// In the form in which it is sent on.
    pub(super) target: Bytes,
    /// The authority that the target itself names; it wins over Host (RFC 9112 3.2.2).
    pub(super) authority: Option<Bytes>,
}

impl Destination {
    /// Sorts a target into its form (RFC 9112 3.2).
    pub(super) fn of(method: &Method, target: Bytes) -> Result<Self, RequestError> {
        if *method == Method::Connect {
            if !is_host_with_port(&target) {
                return Err(RequestError::TargetForm);
            }
            return Ok(Self { authority: Some(target.clone()), target });
        }
        match *target {
            [b'/', ..] => Ok(Self { target, authority: None }),
            [b'*'] if *method == Method::Options => Ok(Self { target, authority: None }),
            _ => Self::of_absolute(method, &target),
        }
    }

    fn of_absolute(method: &Method, target: &Bytes) -> Result<Self, RequestError> {
        let rest = after_scheme(target).ok_or(RequestError::TargetForm)?;
        let authority_len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(authority_len).ok_or(RequestError::TargetForm)?;
        if !is_host_and_port(authority) {
            return Err(RequestError::AuthoritySyntax);
        }
        let origin_form = match path {
            // RFC 9112 3.2.4: the last proxy turns an OPTIONS for the whole server into the asterisk-form.
            [] if *method == Method::Options => Bytes::from_static(b"*"),
            [] => Bytes::from_static(b"/"),
            [b'/', ..] => target.slice_ref(path),
            query => {
                let mut with_path = BytesMut::with_capacity(query.len() + 1);
                with_path.put_u8(b'/');
                with_path.put_slice(query);
                with_path.freeze()
            }
        };
        Ok(Self { target: origin_form, authority: Some(target.slice_ref(authority)) })
    }
}

/// What follows `http://` or `https://`, in any case.
fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}
