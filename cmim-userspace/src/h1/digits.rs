//! Numbers as heads, chunk lines and the access log write them, and as fields have them.

use bytes::BufMut;

/// A u64 has at most 20 decimal digits.
const MOST_DECIMAL: usize = 20;
/// And at most 16 hexadecimal ones.
const MOST_HEX: usize = 16;

/// Writes a number in decimal. By hand, because the standard formatter costs more than the rest of a small head.
pub fn put_decimal(number: u64, out: &mut impl BufMut) {
    let mut digits = [0; MOST_DECIMAL];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(digits.get(MOST_DECIMAL - used..).unwrap_or_default());
}

/// Writes a number in hexadecimal.
pub(super) fn put_hex(number: u64, out: &mut impl BufMut) {
    let mut digits = [0; MOST_HEX];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        let value = (rest & 0xf) as u8;
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        rest >>= 4;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(digits.get(MOST_HEX - used..).unwrap_or_default());
}

/// A number in decimal digits and nothing else; one that a u64 cannot have is the largest that it can.
pub(super) fn read_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit & 0xf))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_whole() {
        for value in [0, 9, 10, 15, 16, 99, 100, 255, 1_000, u64::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            put_decimal(value, &mut decimal);
            put_hex(value, &mut hex);
            assert_eq!(read_decimal(&decimal), Some(value));
            assert_eq!((decimal, hex), (value.to_string().into_bytes(), format!("{value:x}").into_bytes()));
        }
    }

    #[test]
    fn a_number_is_read_from_digits_alone_and_has_an_end() {
        assert_eq!(read_decimal(b"007"), Some(7));
        assert_eq!(read_decimal(&[b'9'; 30]), Some(u64::MAX));
        for none in [b"".as_slice(), b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1,2"] {
            assert_eq!(read_decimal(none), None, "{}", none.escape_ascii());
        }
    }
}
