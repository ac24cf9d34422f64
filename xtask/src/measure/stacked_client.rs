//! Sends stacked requests on one connection and reads the replies, which must be the right ones, whole and in order.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::page_server::{content, target};

/// More than all pages one after the other take.
const PATIENCE: Duration = Duration::from_secs(30);
/// No reply of ours is longer.
const MAX_CONTENT: usize = 1024 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All replies, right and in order, after this time from the requests' last byte.
    Right { time: Duration },
    /// A reply that is not the one that is due.
    Wrong { what: String },
}

/// Asks for `count` pages of `milliseconds` each, all at once.
pub(crate) fn ask(address: SocketAddr, milliseconds: u64, count: usize) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let targets: Vec<String> = (0..count).map(|number| target(milliseconds, number)).collect();
    let requests: String =
        targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n")).collect();
    let started = Instant::now();
    stream.write_all(requests.as_bytes()).context("sending the requests")?;
    let mut reader = BufReader::new(stream);
    for (index, target) in targets.iter().enumerate() {
        let reply = read_reply(&mut reader).with_context(|| format!("reply {} of {count}", index + 1))?;
        if let Some(wrong) = difference(target, &reply) {
            return Ok(Answer::Wrong { what: format!("reply {} of {count}: {wrong}", index + 1) });
        }
    }
    Ok(Answer::Right { time: started.elapsed() })
}

#[derive(Debug)]
struct Reply {
    status: String,
    content: Vec<u8>,
}

fn difference(target: &str, reply: &Reply) -> Option<String> {
    if reply.status != "200" {
        return Some(format!("status {} for {target}", reply.status));
    }
    let expected = content(target);
    if reply.content == expected {
        return None;
    }
    let line = reply.content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Some(format!(
        "{} bytes that begin with {:?}, not the {} bytes of {target}",
        reply.content.len(),
        String::from_utf8_lossy(line),
        expected.len()
    ))
}

/// The origin's pages have a length, and no proxy has a reason to take it from them.
fn read_reply(reader: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).context("the connection ended")?.to_owned();
    let mut length = None;
    loop {
        let mut field = String::new();
        if reader.read_line(&mut field)? == 0 {
            bail!("the connection ended in a head");
        }
        if field.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let length: usize = length.filter(|length| *length <= MAX_CONTENT).context("a reply without a fit length")?;
    let mut content = vec![0; length];
    reader.read_exact(&mut content).context("a content was cut")?;
    Ok(Reply { status, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(pages: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for page in pages {
            let content = content(page);
            bytes.extend(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len()).into_bytes());
            bytes.extend(content);
        }
        bytes
    }

    #[test]
    fn a_reply_in_the_wrong_place_is_noticed() -> Result<()> {
        let bytes = replies(&["/20/0", "/20/2"]);
        let mut reader = bytes.as_slice();
        assert_eq!(difference("/20/0", &read_reply(&mut reader)?), None);
        assert!(difference("/20/1", &read_reply(&mut reader)?).is_some());
        assert!(read_reply(&mut reader).is_err());
        Ok(())
    }

    #[test]
    fn a_cut_reply_is_an_error() {
        let bytes = replies(&["/20/0"]);
        assert!(read_reply(&mut &bytes[..bytes.len() - 1]).is_err());
    }
}
