//! A small server in a process of its own, so that a test can kill it as the kernel kills: `mortal ADDRESS DELAY JOURNAL`.
//!
//! It answers each request with its target, DELAY milliseconds after it came, and keeps the connection. Before that it
//! appends `METHOD TARGET` to the file JOURNAL, which outlives it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

const BACKLOG: i32 = 1024;
const STACK: usize = 128 * 1024;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, delay, journal] = arguments.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let delay = Duration::from_millis(delay.parse().map_err(io::Error::other)?);
    let journal = Arc::new(OpenOptions::new().create(true).append(true).open(journal)?);
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    loop {
        let (socket, _) = listener.accept()?;
        let journal = Arc::clone(&journal);
        thread::Builder::new().stack_size(STACK).spawn(move || serve(socket.into(), delay, &journal))?;
    }
}

/// Answers the requests of one connection until its peer ends it.
fn serve(stream: TcpStream, delay: Duration, journal: &File) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut content = vec![0; content_length(&mut reader)?];
        reader.read_exact(&mut content)?;
        // One write: lines of several threads do not mix.
        let mut journal = journal;
        journal.write_all(format!("{method} {target}\n").as_bytes())?;
        thread::sleep(delay);
        let length = target.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}");
        reader.get_mut().write_all(response.as_bytes())?;
    }
}

/// Reads the rest of a head.
fn content_length(reader: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(length) };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}
