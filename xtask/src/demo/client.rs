//! A raw HTTP client for the tour: it sends what it is told and keeps what came back, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Nothing in the tour takes a healthy device this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Vec<String>,
    pub(crate) content: Vec<u8>,
}

impl Reply {
    pub(crate) fn status(&self) -> &str {
        self.head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.iter().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub(crate) fn length(&self) -> Option<usize> {
        self.field("content-length")?.parse().ok()
    }

    /// The head in one line.
    pub(crate) fn shown(&self) -> String {
        self.head.join(" | ")
    }
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Reply> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n"))?;
        self.read().with_context(|| format!("GET {path}"))
    }

    pub(crate) fn send(&mut self, bytes: &str) -> Result<()> {
        self.reader.get_mut().write_all(bytes.as_bytes()).context("sending a request")
    }

    /// Reads one reply to its end: by its length, by its chunks, or by the close.
    pub(crate) fn read(&mut self) -> Result<Reply> {
        let mut reply = Reply { head: Vec::new(), content: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            reply.head.push(line);
        }
        if let Some(length) = reply.length() {
            self.take(length, &mut reply.content)?;
        } else if reply.field("transfer-encoding").is_some() {
            self.chunks(&mut reply.content)?;
        } else {
            self.reader.read_to_end(&mut reply.content).context("reading to the close")?;
        }
        Ok(reply)
    }

    fn chunks(&mut self, content: &mut Vec<u8>) -> Result<()> {
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
            self.take(size, content)?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, length: usize, content: &mut Vec<u8>) -> Result<()> {
        let limit = u64::try_from(length)?;
        let got = self.reader.by_ref().take(limit).read_to_end(content).context("reading a content")?;
        if got < length {
            bail!("the content ended after {got} of {length} bytes");
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("reading a head")? == 0 {
            bail!("the connection ended where a reply was due");
        }
        Ok(line.trim_end().to_owned())
    }
}
