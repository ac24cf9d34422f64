//! What the tests stand on: directories, stores, streams and contents whose every byte is known.

use std::fs;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::buffer::content::{Full, Held};
use crate::buffer::faults::Faults;
use crate::buffer::{SendError, Store};
use crate::config::model::{self, TierKind};
use crate::net::Stream;

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory that goes with the test.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    mounted: bool,
}

impl Dir {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cmim-buffer-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, mounted: false }
    }

    /// A directory with a tmpfs of its own; `None`, with a word about it, where that is not allowed.
    pub(super) fn tmpfs(options: &std::ffi::CStr) -> Option<Self> {
        let mut dir = Self::new();
        match rustix::mount::mount(c"tmpfs", &dir.path, c"tmpfs", MountFlags::empty(), options) {
            Ok(()) => {
                dir.mounted = true;
                Some(dir)
            }
            Err(errno) => {
                println!("skipped: mounting a tmpfs needs root: {errno}");
                None
            }
        }
    }

    /// Bytes that the file system has given out.
    pub(super) fn bytes_used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    pub(super) fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).unwrap().next().is_none()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.mounted {
            rustix::mount::unmount(&self.path, UnmountFlags::DETACH).unwrap();
        }
        let _: std::io::Result<()> = fs::remove_dir_all(&self.path);
    }
}

pub(super) fn tier(kind: TierKind, path: &Path, size: u64) -> model::Tier {
    model::Tier { kind, path: path.to_owned(), size }
}

pub(super) fn buffer(memory: u64, memory_per_reply: u64, tiers: Vec<model::Tier>) -> model::Buffer {
    model::Buffer { memory, memory_per_reply, tiers }
}

/// A store with a flash and a disk tier of these sizes, and what can be made to fail in them.
pub(super) struct World {
    pub store: Arc<Store>,
    pub dirs: Vec<Dir>,
    pub faults: Vec<Faults>,
}

impl World {
    /// A size of 0: no such tier.
    pub(super) fn new(memory: u64, share: u64, flash: u64, disk: u64) -> Self {
        let sizes = [(TierKind::Flash, flash), (TierKind::Disk, disk)].into_iter().filter(|(_, size)| *size > 0);
        Self::over(memory, share, sizes.map(|(kind, size)| (kind, Dir::new(), size)).collect())
    }

    pub(super) fn over(memory: u64, share: u64, tiers: Vec<(TierKind, Dir, u64)>) -> Self {
        let faults: Vec<Faults> = tiers.iter().map(|_| Faults::default()).collect();
        let models = tiers.iter().map(|(kind, dir, size)| tier(*kind, &dir.path, *size));
        let store = Store::open_with(&buffer(memory, share, models.collect()), &faults).unwrap();
        Self { store, dirs: tiers.into_iter().map(|(_, dir, _)| dir).collect(), faults }
    }

    pub(super) fn used(&self) -> Vec<u64> {
        let report = self.store.report();
        std::iter::once(report.memory.used).chain(report.tiers.iter().map(|(_, _, tier)| tier.used)).collect()
    }

    /// Everything has been given back, and the figures say so.
    pub(super) fn comes_to_rest(&self) {
        until("all tiers are empty", || self.used().iter().all(|&used| used == 0));
        let report = self.store.report();
        assert_eq!(report.memory.contents, 0);
        assert!(report.tiers.iter().all(|(_, _, tier)| tier.contents == 0));
        assert!(!self.store.space.ram.staging_moves());
        assert!(self.dirs.iter().all(Dir::is_empty), "a file was left");
    }
}

/// Waits until `is_so`.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("the test hangs") })
}

/// `len` bytes from `start` on of the content of this number.
pub(super) fn bytes(content: u64, start: u64, len: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(len);
    let mut at = start;
    while out.len() < len {
        let word = ((at / 8) ^ content.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = (word ^ (word >> 29)).to_le_bytes();
        let part = &word[(at % 8) as usize..];
        let part = &part[..part.len().min(len - out.len())];
        out.extend_from_slice(part);
        at += part.len() as u64;
    }
    out.freeze()
}

/// Two ends of a connection.
pub(super) fn streams() -> (Stream, Stream) {
    let (one, other) = UnixStream::pair().unwrap();
    (Stream::Unix(one), Stream::Unix(other))
}

/// The same over TCP.
pub(super) async fn tcp_streams() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (Stream::Tcp(one.unwrap().into()), Stream::Tcp(other.unwrap().0.into()))
}

pub(super) async fn append(held: &mut Held, piece: Bytes) -> Result<(), Full> {
    let mut piece = Some(piece);
    poll_fn(|cx| held.poll_append(cx, &mut piece)).await?;
    assert!(piece.is_none());
    Ok(())
}

/// Appends `len` bytes of the content in pieces of `step`, behind what is there.
pub(super) async fn append_content(held: &mut Held, content: u64, len: u64, step: usize) -> Result<(), Full> {
    let end = held.total() + len;
    while held.total() < end {
        let step = step.min((end - held.total()) as usize);
        append(held, bytes(content, held.total(), step)).await?;
    }
    Ok(())
}

pub(super) async fn send(held: &mut Held, to: &Stream) -> Result<usize, SendError> {
    poll_fn(|cx| held.poll_send(cx, to)).await
}

pub(super) async fn receive(from: &Stream, buffer: &mut BytesMut) -> usize {
    buffer.reserve(64 * 1024);
    poll_fn(|cx| from.poll_read(cx, buffer)).await.unwrap()
}

/// Sends all that is held; gives what came out at the other end.
pub(super) async fn drain(held: &mut Held) -> Result<BytesMut, SendError> {
    let (to, from) = streams();
    let mut got = BytesMut::new();
    let len = held.len() as usize;
    let receive_all = async { while got.len() < len && receive(&from, &mut got).await > 0 {} };
    let send_all = async {
        while !held.is_empty() {
            send(held, &to).await?;
        }
        drop(to);
        Ok(())
    };
    let (sent, ()) = tokio::join!(send_all, receive_all);
    sent.map(|()| got)
}

/// Compares without printing megabytes.
pub(super) fn assert_content(got: &[u8], content: u64, start: u64) {
    let expected = bytes(content, start, got.len());
    if let Some(at) = got.iter().zip(&expected).position(|(one, other)| one != other) {
        panic!("content {content}: byte {} is wrong", start + at as u64);
    }
}
