//! Which octets may stand where (RFC 9110 5.6.2 and 5.5, RFC 9112 3.2).

/// One class bit per octet, looked up by its value.
const CLASSES: [u8; 256] = classes();
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const REG_NAME: u8 = 4;

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let b = octet as u8;
        if b.is_ascii_alphanumeric() || is_one_of(b, b"!#$%&'*+-.^_`|~") {
            table[octet] |= TOKEN;
        }
        // Wider than RFC 3986, because browsers send `|`, `"`, `[` and the like unescaped; but nothing that ends or
        // splits a request line, no fragment and no octet outside ASCII.
        if b.is_ascii_graphic() && b != b'#' {
            table[octet] |= TARGET;
        }
        // unreserved, pct-encoded and sub-delims of RFC 3986 3.2.2; the comma is left out, because a list of hosts
        // reads differently from parser to parser.
        if b.is_ascii_alphanumeric() || is_one_of(b, b"-._~%!$&'()*+;=") {
            table[octet] |= REG_NAME;
        }
        octet += 1;
    }
    table
}

const fn is_one_of(octet: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == octet {
            return true;
        }
        i += 1;
    }
    false
}

#[inline]
fn has(octet: u8, class: u8) -> bool {
    CLASSES[usize::from(octet)] & class != 0
}

#[inline]
pub(super) fn is_token_octet(octet: u8) -> bool {
    has(octet, TOKEN)
}

/// A token: at least one octet, all of them allowed in a name.
#[inline]
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| has(b, TOKEN))
}

/// Whether all octets may stand in a request target.
#[inline]
pub(super) fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| has(b, TARGET))
}

/// Whether all octets may stand in a registered name of a host.
pub(super) fn is_reg_name(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| has(b, REG_NAME)) && memchr::memchr_iter(b'%', bytes).all(|at| is_escape(bytes, at))
}

/// Whether the per cent sign at `at` is followed by two hexadecimal digits.
fn is_escape(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The length of the beginning of `bytes` that may stand in a field value or reason phrase: everything up to the first
/// control character other than the tab. Octets above 127 are opaque data (RFC 9110 5.5).
#[inline]
pub(super) fn first_control(bytes: &[u8]) -> usize {
    let mut passed = 0;
    loop {
        let found = passed + control_or_tab(bytes.get(passed..).unwrap_or_default());
        if bytes.get(found) != Some(&b'\t') {
            return found;
        }
        passed = found + 1;
    }
}

/// The position of the first control character, or the length. Eight octets at a time: this looks at every octet of
/// every head, and a search for the line's end comes free with it.
#[inline]
fn control_or_tab(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = control_bits(u64::from_le_bytes(*word));
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let tail = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
    words.len() * 8 + tail
}

/// The top bit of each octet that is below 0x20 or is 0x7f. A borrow may also set it in octets above a hit, so that only
/// the lowest one counts.
#[inline]
fn control_bits(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * EACH;
    let below_space = word.wrapping_sub(0x20 * EACH) & !word;
    let is_delete = word ^ (0x7f * EACH);
    let delete = is_delete.wrapping_sub(EACH) & !is_delete;
    (below_space | delete) & TOP
}

/// Without the optional white space at the start (spaces and tabs only, RFC 9110 5.6.3).
#[inline]
pub(super) fn trimmed_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the optional white space at the end.
#[inline]
pub(super) fn trimmed_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list (RFC 9110 5.6.1), trimmed; empty members are yielded as such.
pub(super) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(|member| trimmed_end(trimmed_start(member)))
}
