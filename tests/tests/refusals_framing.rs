//! docs/http.md: every refusal of a request for its framing, raw bytes in. Nothing of a refused request, nor of what follows it
//! on the same connection, reaches the server.

use cmim_tests::refusal::{assert_refused, heads, raw, with_fields};

#[test]
fn content_length_with_transfer_encoding() {
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0\r\n",
        "content-length: 5\r\nTRANSFER-ENCODING: Chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ];
    let content = b"0\r\n\r\n";
    let requests: Vec<_> = heads("POST", &both).into_iter().map(|head| [head.as_slice(), content].concat()).collect();
    assert_refused(&[400], &requests);
}

#[test]
fn content_length_with_an_unknown_transfer_encoding() {
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
    ];
    assert_refused(&[400, 501], &heads("POST", &both));
}

#[test]
fn several_differing_content_lengths() {
    let lengths = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nContent-Length: 43\r\n",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\ncontent-length: 4\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5,5,6\r\n",
        "Content-Length: 5\r\nContent-Length: 05\r\nContent-Length: 7\r\n",
    ];
    assert_refused(&[400], &heads("POST", &lengths));
}

#[test]
fn a_content_length_that_is_not_digits_only() {
    let lengths =
        ["+5", "-5", "-0", "5 5", "0x5", "a", "5a", "5.0", "", "5,", ",5", "5;", "\"5\"", "1e1", "٣", "5\u{b}"];
    let lines: Vec<String> = lengths.iter().map(|length| format!("Content-Length: {length}\r\n")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_refused(&[400], &heads("POST", &lines));
}

#[test]
fn a_content_length_above_every_number() {
    let lines = ["Content-Length: 18446744073709551616\r\n", "Content-Length: 99999999999999999999999999999999\r\n"];
    assert_refused(&[400, 413], &heads("POST", &lines));
}

#[test]
fn a_transfer_encoding_with_chunked_twice_or_not_last() {
    let codings = [
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked,chunked\r\n",
    ];
    assert_refused(&[400], &heads("POST", &codings));
}

#[test]
fn an_unknown_transfer_coding() {
    let codings =
        ["Transfer-Encoding: foo\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: foo, chunked\r\n"];
    assert_refused(&[501], &heads("POST", &codings));
}

#[test]
fn any_transfer_encoding_but_exactly_chunked() {
    let codings = [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked\u{c}\r\n",
        "Transfer-Encoding: chun ked\r\n",
    ];
    assert_refused(&[400, 501], &heads("POST", &codings));
}

#[test]
fn an_http_1_0_request_with_transfer_encoding() {
    assert_refused(
        &[400],
        &raw(&[
            "POST /refused HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /refused HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
            "GET /refused HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ]),
    );
}

/// Chunked requests whose content is this.
fn chunked(contents: &[&str]) -> Vec<Vec<u8>> {
    let head = with_fields("POST", "Transfer-Encoding: chunked\r\n");
    contents.iter().map(|content| [head.as_slice(), content.as_bytes()].concat()).collect()
}

#[test]
fn a_chunk_size_with_a_sign_a_prefix_a_space_or_too_many_digits() {
    assert_refused(
        &[400],
        &chunked(&[
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "0X5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\t\r\nhello\r\n0\r\n\r\n",
            "5 0\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
            "5g\r\nhello\r\n0\r\n\r\n",
            "g\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "5,\r\nhello\r\n0\r\n\r\n",
            "5_0\r\nhello\r\n0\r\n\r\n",
            "-0\r\n\r\n",
        ]),
    );
}

#[test]
fn chunk_data_or_lines_not_closed_by_crlf() {
    assert_refused(
        &[400],
        &chunked(&[
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\n\r\n",
            "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
        ]),
    );
}

#[test]
fn a_trailer_section_that_is_no_field_section() {
    assert_refused(
        &[400],
        &chunked(&[
            "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
            "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
        ]),
    );
}
