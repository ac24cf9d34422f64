//! Servers with slow pages: a page takes its time, and a server works on so many at once.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Pages that one server works on at the same time.
pub(super) const AT_ONCE: usize = 4;
/// No page of a benchmark takes longer.
const LONGEST: u64 = 10_000;

/// Starts a server on a loopback port of the kernel's choice; it runs for as long as this process does.
pub(super) fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no loopback port for a server")?;
    let address = listener.local_addr()?;
    let places = Arc::new(Places::default());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let places = Arc::clone(&places);
            // A connection that breaks ends its thread; the benchmark sees the reply that is missing.
            thread::spawn(move || drop(serve(stream, &places)));
        }
    });
    Ok(address)
}

/// The page for a target such as `/100/7`: it takes 100 ms, and says its own target.
fn serve(stream: TcpStream, places: &Places) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut field = String::new();
            if reader.read_line(&mut field)? == 0 {
                return Ok(());
            }
            if field.trim_end().is_empty() {
                break;
            }
        }
        let target = request.split(' ').nth(1).context("a request line without a target")?;
        let takes: u64 = target.split('/').nth(1).and_then(|takes| takes.parse().ok()).context("no duration")?;
        places.within(|| thread::sleep(Duration::from_millis(takes.min(LONGEST))));
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
        reader.get_mut().write_all(reply.as_bytes())?;
    }
}

/// Places for the pages that a server works on.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

impl Places {
    fn within(&self, work: impl FnOnce()) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.freed.wait_while(taken, |taken| *taken >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        drop(taken);
        work();
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.freed.notify_one();
    }
}
