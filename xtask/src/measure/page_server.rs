//! The small origin of `bench stacked`: a page takes a given time to make, and only so many are made at once, as with
//! a server of few processes. Each page tells its own target, so that a reply in the wrong place shows.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a page has at least; the rest depends on its target, so that lengths differ, too.
const SMALLEST_PAGE: usize = 2000;
const MAX_HEAD: usize = 64 * 1024;
/// A connection of which nothing is heard for so long has no proxy any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts one on its own threads; they run until this process ends.
pub(crate) fn start(at_a_time: usize) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port for an origin")?;
    let address = listener.local_addr()?;
    let places = Arc::new(Places { free: Mutex::new(at_a_time), freed: Condvar::new() });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let places = Arc::clone(&places);
            // A proxy that went away is nothing to tell about.
            thread::spawn(move || drop(serve(&stream, &places)));
        }
    });
    Ok(address)
}

/// The target of page `number`, which takes `milliseconds` to make.
pub(crate) fn target(milliseconds: u64, number: usize) -> String {
    format!("/{milliseconds}/{number}")
}

/// The content that belongs to a target.
pub(crate) fn content(target: &str) -> Vec<u8> {
    let line = format!("page {target}\n");
    let sum: usize = target.bytes().map(usize::from).sum();
    line.bytes().cycle().take(SMALLEST_PAGE + sum).collect()
}

/// The server's processes, so to speak.
#[derive(Debug)]
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Places {
    fn work(&self, time: Duration) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        thread::sleep(time);
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

fn serve(mut stream: &TcpStream, places: &Places) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(target) = read_target(&mut reader)? {
        let milliseconds = target.split('/').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        places.work(Duration::from_millis(milliseconds));
        let content = content(&target);
        let mut reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
        reply.extend_from_slice(&content);
        stream.write_all(&reply)?;
    }
    Ok(())
}

/// Reads a request's head; `None` when the connection has ended.
fn read_target(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    let mut length = reader.read_line(&mut first)?;
    loop {
        let mut field = String::new();
        if reader.read_line(&mut field)? == 0 {
            return Ok(None);
        }
        if field.trim().is_empty() {
            return Ok(first.split_whitespace().nth(1).map(str::to_owned));
        }
        length += field.len();
        if length > MAX_HEAD {
            return Err(io::Error::other("a head without end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_different_targets_differ() {
        assert_ne!(content("/100/1"), content("/100/2"));
        assert_ne!(content("/100/1").len(), content("/100/2").len());
        assert!(content("/100/1").starts_with(b"page /100/1\n"));
    }

    #[test]
    fn a_target_is_read_and_an_end_noticed() {
        let mut two: &[u8] = b"GET /20/3 HTTP/1.1\r\nHost: x\r\n\r\nGET /20/4 HTTP/1.1\r\n\r\nGET /cut";
        let targets: Vec<Option<String>> = (0..3).filter_map(|_| read_target(&mut two).ok()).collect();
        assert_eq!(targets, [Some("/20/3".to_owned()), Some("/20/4".to_owned()), None]);
    }
}
