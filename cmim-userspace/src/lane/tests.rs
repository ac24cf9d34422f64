//! The sockmap lane between real sockets: random traffic, compared byte by byte.

mod contents;
mod traffic;
mod tunnels;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use bytes::BytesMut;

use super::sockmap::Splicer;
use super::tunnel::End;
use crate::config::model::{Kernel, KernelMode};
use crate::kernel::tests::host::in_namespaces;
use crate::kernel::tests::settings;
use crate::kernel::{SpliceEvents, start};
use crate::net::Stream;

const DEADLINE: Duration = Duration::from_secs(20);
/// Small enough that traffic meets it.
const WINDOW: u64 = 64 * 1024;

/// The lane in namespaces of the test's own.
fn with_lane(name: &'static str, test: impl FnOnce(Lane) + Send + 'static) {
    in_namespaces(name, move |host| {
        let kernel = settings(KernelMode::Required, host.bpffs().join("cmim"), &[]);
        let mut part = start(&Kernel { splice_window: WINDOW, ..kernel }, &[], 1).expect("the kernel part starts here");
        let events = part.take_events().expect("once");
        test(Lane { splicer: part.splicer().expect("the lane"), events: Some(events) });
    });
}

struct Lane {
    splicer: Splicer,
    events: Option<SpliceEvents>,
}

impl Lane {
    /// Runs something on an event loop, with the news on their way, within the deadline.
    fn run<T>(&mut self, work: impl AsyncFnOnce(&Splicer) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let news = self.events.take();
        let ended = runtime.block_on(async {
            let forwarding = news.expect("one run a test").forward();
            tokio::select! {
                ended = tokio::time::timeout(DEADLINE, work(&self.splicer)) => ended,
                _ = forwarding => panic!("the news ended"),
            }
        });
        ended.expect("within the deadline")
    }

    fn is_empty(&self) -> bool {
        self.splicer.list().expect("readable").is_empty()
    }
}

/// A far end, and the device's own of the same connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
    let near = listener.accept().expect("it connected").0;
    for socket in [&far, &near] {
        socket.set_nodelay(true).expect("of TCP");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        socket.set_write_timeout(Some(DEADLINE)).expect("a timeout");
    }
    (far, near)
}

/// On the event loop that runs now.
fn stream(near: TcpStream) -> Stream {
    near.set_nonblocking(true).expect("a socket");
    Stream::Tcp(tokio::net::TcpStream::from_std(near).expect("an event loop").into())
}

fn end(stream: &Stream) -> End<'_> {
    End { stream, read: BytesMut::new() }
}
