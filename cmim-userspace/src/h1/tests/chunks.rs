//! The chunked coding at every split point, its refusals, and round trips.

use bytes::{BufMut, BytesMut};

use super::super::{ChunkError, ChunkedDecoder, Decoded, HeadError, LAST_CHUNK, chunk_header, last_chunk};
use super::{all_cuts, show_fields};

/// What a content came out as.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whole {
    content: Vec<u8>,
    trailers: String,
    left_over: Vec<u8>,
}

fn decode(bytes: &[u8], cuts: &[usize], limit: u64) -> Result<Option<Whole>, ChunkError> {
    let mut decoder = ChunkedDecoder::with_limit(limit);
    let mut buf = BytesMut::new();
    let mut content = Vec::new();
    let mut start = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        buf.extend_from_slice(&bytes[start..cut]);
        start = cut;
        loop {
            match decoder.decode(&mut buf)? {
                Decoded::Data(data) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(&data);
                }
                Decoded::NeedMore => break,
                Decoded::End { trailers } => {
                    let mut left_over = buf.to_vec();
                    left_over.extend_from_slice(&bytes[start..]);
                    return Ok(Some(Whole { content, trailers: show_fields(&trailers), left_over }));
                }
            }
        }
    }
    Ok(None)
}

#[track_caller]
fn decodes(bytes: &str, content: &str, trailers: &str, left_over: &str) {
    let expected = Whole { content: content.into(), trailers: trailers.into(), left_over: left_over.into() };
    for cuts in all_cuts(bytes.len()).chain([vec![]]) {
        assert_eq!(decode(bytes.as_bytes(), &cuts, u64::MAX), Ok(Some(expected.clone())), "cut at {cuts:?}");
    }
    for len in 0..bytes.len() - left_over.len() {
        assert_eq!(decode(&bytes.as_bytes()[..len], &[], u64::MAX), Ok(None), "whole at {len} bytes");
    }
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, reason: ChunkError) {
    let bytes = bytes.as_ref();
    for cuts in all_cuts(bytes.len()).chain([vec![]]) {
        assert_eq!(decode(bytes, &cuts, 1 << 20), Err(reason), "cut at {cuts:?}: {}", bytes.escape_ascii());
    }
}

#[test]
fn contents() {
    decodes("0\r\n\r\n", "", "", "");
    decodes("0\r\n\r\nGET /", "", "", "GET /");
    decodes("3\r\nabc\r\n0\r\n\r\n", "abc", "", "");
    decodes(
        "3\r\nabc\r\nA\r\n0123456789\r\nb\r\n0\r\n\r\n012345\r\n000\r\n\r\nx",
        "abc01234567890\r\n\r\n012345",
        "",
        "x",
    );
    decodes("0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n", "abc", "", "");
    decodes("3;a\r\nabc\r\n3;a=\"b;c\";d=\u{e9}\r\ndef\r\n0;e\r\n\r\n", "abcdef", "", "");
    decodes("1\r\nx\r\n0\r\nA: b\r\nC:d \r\n\r\nrest", "x", "Other A=b\nOther C=d\n", "rest");
}

#[test]
fn sizes_with_a_second_reading() {
    for bad in ["+3", "-3", "0x3", "0X3", " 3", "3 ", "3\t", "x", "", "g", "3g", "00000000000000003", "3 ;a", "\u{e9}"]
    {
        refused(format!("{bad}\r\nabc\r\n0\r\n\r\n"), ChunkError::Size);
    }
    refused("3\nabc\r\n0\r\n\r\n", ChunkError::SizeLineEnd);
    refused("3\rabc\r\n0\r\n\r\n", ChunkError::SizeLineEnd);
    refused("3;a\nabc\r\n0\r\n\r\n", ChunkError::SizeLineEnd);
    refused("3;a\rb\r\nabc\r\n0\r\n\r\n", ChunkError::Extension);
    refused("3;a\0\r\nabc\r\n0\r\n\r\n", ChunkError::Extension);
    refused(format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(256)), ChunkError::Extension);
}

#[test]
fn data_closed_by_crlf() {
    refused("3\r\nabcd\r\n0\r\n\r\n", ChunkError::DataEnd);
    refused("3\r\nabc\n0\r\n\r\n", ChunkError::DataEnd);
    refused("3\r\nabc\r0\r\n\r\n", ChunkError::DataEnd);
    refused("3\r\nabc0\r\n\r\n", ChunkError::DataEnd);
}

#[test]
fn contents_over_the_limit_are_refused_at_the_size() {
    refused("100001\r\n", ChunkError::ContentTooLarge);
    refused("ffffffffffffffff\r\n", ChunkError::ContentTooLarge);
    refused("2\r\nab\r\nFFFFF\r\n", ChunkError::ContentTooLarge);
    assert_eq!(ChunkError::ContentTooLarge.status(), 413);
    let two = decode(b"1\r\na\r\nffffffffffffffff\r\n", &[], u64::MAX);
    assert_eq!(two, Err(ChunkError::ContentTooLarge), "the sum is over 64 bits");
}

#[test]
fn trailers_are_bounded_and_strict() {
    refused("0\r\nA : b\r\n\r\n", ChunkError::Trailers(HeadError::SpaceBeforeColon));
    refused("0\r\nA: b\n\r\n", ChunkError::Trailers(HeadError::BareLf));
    refused("0\r\n\n", ChunkError::Trailers(HeadError::BareLf));
    refused("0\r\n A: b\r\n\r\n", ChunkError::Trailers(HeadError::ObsFold));
    let many: String = (0..65).map(|n| format!("F{n}: v\r\n")).collect();
    refused(format!("0\r\n{many}\r\n"), ChunkError::Trailers(HeadError::TooManyFields));
    let long = format!("0\r\nA: {}", "v".repeat(17 << 10));
    assert_eq!(decode(long.as_bytes(), &[], 1), Err(ChunkError::Trailers(HeadError::TooLarge)));
    assert_eq!(ChunkError::Trailers(HeadError::TooLarge).status(), 431);
    assert_eq!(ChunkError::Size.status(), 400);
}

#[test]
fn end_stays_the_end() {
    let mut decoder = ChunkedDecoder::new();
    let mut buf = BytesMut::from(&b"0\r\n\r\n0\r\n\r\n"[..]);
    for _ in 0..2 {
        assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::End { .. })));
        assert_eq!(&buf[..], LAST_CHUNK);
    }
}

#[test]
fn data_shares_the_buffer() {
    let mut buf = BytesMut::from(&b"5\r\nhello\r\n"[..]);
    let at = buf[3..].as_ptr();
    let Ok(Decoded::Data(data)) = ChunkedDecoder::new().decode(&mut buf) else { panic!("no data") };
    assert_eq!(data.as_ptr(), at);
}

#[test]
fn encoded_chunks() {
    let mut out = BytesMut::new();
    for len in [1, 15, 16, 0xabcdef, usize::MAX] {
        chunk_header(len, &mut out);
    }
    assert_eq!(out, "1\r\nf\r\n10\r\nabcdef\r\nffffffffffffffff\r\n");
}

#[test]
fn trailers_that_would_have_had_to_come_before_are_left_out() {
    let mut buf = BytesMut::from(
        "0\r\nA: b\r\nContent-Length: 5\r\nHost: x\r\nSet-Cookie: c\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 1\r\nA: d\r\n\r\n",
    );
    let Ok(Decoded::End { trailers }) = ChunkedDecoder::new().decode(&mut buf) else { panic!("not whole") };
    let mut out = BytesMut::new();
    last_chunk(&trailers, &mut out);
    assert_eq!(out, "0\r\nA: b\r\nSet-Cookie: c\r\nA: d\r\n\r\n");
    out.clear();
    last_chunk(&super::super::Fields::default(), &mut out);
    assert_eq!(out, LAST_CHUNK);
}

proptest::proptest! {
    #[test]
    fn round_trip(pieces in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 1..300), 0..8),
                  cuts in proptest::collection::vec(0..3000_usize, 0..20)) {
        let mut encoded = BytesMut::new();
        for piece in &pieces {
            chunk_header(piece.len(), &mut encoded);
            encoded.put_slice(piece);
            encoded.put_slice(b"\r\n");
        }
        encoded.put_slice(LAST_CHUNK);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (encoded.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = decode(&encoded, &cuts, u64::MAX);
        proptest::prop_assert_eq!(whole, Ok(Some(Whole { content: pieces.concat(), trailers: String::new(), left_over: vec![] })));
    }
}
