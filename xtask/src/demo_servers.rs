//! Two small HTTP servers for `run` and `demo`, each with one habit that costs.
//!
//! The static one knows its lengths and keeps connections. The dynamic one makes its pages while it sends them, so it
//! knows no length: it ends a reply by closing, after every single one. Both count what they see, which is how the demo
//! tells the device's figures from the truth.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The dynamic server's `/big`: what a slow client would hold a server process for.
pub(crate) const BIG_PAGE: usize = 6 * 1024 * 1024;
/// Pieces in which the dynamic server makes its pages.
const PIECE: usize = 16 * 1024;
/// A demo server waits this long for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Heads longer than this are not the demo's.
const MAX_HEAD: u64 = 64 * 1024;

/// A server running on its own threads for as long as this process does.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

/// What a server has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    accepted: AtomicU64,
    closed: AtomicU64,
    requests: AtomicU64,
    replied: AtomicU64,
}

impl Seen {
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether every connection so far has ended, and with it all counting for it.
    pub(crate) fn is_settled(&self) -> bool {
        self.closed() == self.accepted()
    }

    /// Requests of which at least the first line has arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Replies whose last byte the kernel has taken.
    pub(crate) fn replied(&self) -> u64 {
        self.replied.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy)]
enum Habit {
    /// Content-Length, keep-alive.
    Fixed,
    /// No length, closes after each reply.
    Dynamic,
}

pub(crate) fn start_static() -> Result<Server> {
    start(Habit::Fixed)
}

pub(crate) fn start_dynamic() -> Result<Server> {
    start(Habit::Dynamic)
}

fn start(habit: Habit) -> Result<Server> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no loopback port for a demo server")?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Seen::default());
    let server = Server { address, seen: Arc::clone(&seen) };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            seen.accepted.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                // A client that went away is nothing to tell about.
                let _ = serve(&stream, habit, &seen);
                drop(stream);
                seen.closed.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    Ok(server)
}

fn serve(stream: &TcpStream, habit: Habit, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, seen)? {
        match habit {
            Habit::Fixed => fixed(stream, &request)?,
            Habit::Dynamic => dynamic(stream, &request)?,
        }
        seen.replied.fetch_add(1, Ordering::Relaxed);
        if matches!(habit, Habit::Dynamic) {
            break;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Request {
    head_only: bool,
    path: String,
}

/// Reads one request with its content; `None` when the connection has ended.
fn read_request(reader: &mut BufReader<&TcpStream>, seen: &Seen) -> io::Result<Option<Request>> {
    let mut line = String::new();
    let mut head = reader.take(MAX_HEAD);
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    seen.requests.fetch_add(1, Ordering::Relaxed);
    let mut words = line.split_whitespace();
    let head_only = words.next() == Some("HEAD");
    let target = words.next().unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/").to_owned();
    let mut content = 0_u64;
    loop {
        let mut field = String::new();
        if head.read_line(&mut field)? == 0 || field.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = field.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            content = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.take(content), &mut io::sink())?;
    Ok(Some(Request { head_only, path }))
}

fn fixed(mut stream: &TcpStream, request: &Request) -> io::Result<()> {
    let (status, kind, content) = file(&request.path);
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: demo-static\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    let mut reply = head.into_bytes();
    if !request.head_only {
        reply.extend_from_slice(&content);
    }
    stream.write_all(&reply)
}

/// The static server's files.
pub(crate) fn file(path: &str) -> (&'static str, &'static str, Vec<u8>) {
    match path {
        "/static/" | "/static/index.html" => (
            "200 OK",
            "text/html",
            b"<h1>cmim demo</h1><p>The static server: lengths known, connections kept.</p>\n".to_vec(),
        ),
        "/static/hello.txt" => ("200 OK", "text/plain", b"hello from the static server\n".to_vec()),
        "/static/1m.bin" => ("200 OK", "application/octet-stream", pattern(1024 * 1024)),
        _ => (
            "404 Not Found",
            "text/plain",
            b"the static server has /static/index.html, /static/hello.txt and /static/1m.bin\n".to_vec(),
        ),
    }
}

fn dynamic(mut stream: &TcpStream, request: &Request) -> io::Result<()> {
    let (status, content) = page(&request.path);
    let chunked = request.path == "/chunked";
    let coding = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: demo-dynamic\r\nContent-Type: text/plain\r\n{coding}Connection: close\r\n\r\n"
    )?;
    if request.head_only {
        return Ok(());
    }
    for piece in content.chunks(PIECE) {
        if chunked {
            write!(stream, "{:x}\r\n", piece.len())?;
        }
        stream.write_all(piece)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// The dynamic server's pages.
pub(crate) fn page(path: &str) -> (&'static str, Vec<u8>) {
    match path {
        "/" => ("200 OK", b"cmim demo, the dynamic server: no lengths, closes after each reply.\nTry /page/1, /chunked and /big, and /static/index.html of the other server.\n".to_vec()),
        "/chunked" => ("200 OK", pattern(3 * PIECE + 100)),
        "/big" => ("200 OK", pattern(BIG_PAGE)),
        _ if path.starts_with("/page/") => ("200 OK", format!("this is {path}, made while it was sent\n").repeat(20).into_bytes()),
        _ => ("404 Not Found", b"the dynamic server has /, /page/ANYTHING, /chunked and /big\n".to_vec()),
    }
}

/// Bytes that show a shift by any amount: a counter in lines of 16.
fn pattern(length: usize) -> Vec<u8> {
    (0..length.div_ceil(16)).flat_map(|line| format!("{line:015}\n").into_bytes()).take(length).collect()
}
