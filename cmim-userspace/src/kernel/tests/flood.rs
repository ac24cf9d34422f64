//! A flood of SYNs from spoofed sources, and clients who want to connect meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::programs::xdp::XdpMode as AyaMode;

use super::host::{HERE_V4, Host, INTERFACE, PEER_INTERFACE, PEER_V4, RawLink, enter, in_namespaces, ip, set_sysctl};
use super::segment::{SYN, Segment};
use super::{listening, settings};
use crate::config::model::{Kernel, KernelMode, XdpMode};
use crate::kernel::{KernelPart, load, start};

/// A flooded listener must answer a real client within this time.
const PROMPTLY: Duration = Duration::from_millis(50);
/// A client has given up by then.
const PATIENCE: Duration = Duration::from_millis(900);
/// Clients come one after the other for this long.
const MEASURED: Duration = Duration::from_secs(2);
/// Of another length than the question: a cookie is the difference of two numbers that would otherwise grow in step, and
/// so come back a second time.
const ANSWER: &[u8] = b"answer";
/// What the flood sends at once, and its pause afterwards: without one it takes this host's few CPUs from everybody, and
/// all that the test would show is that.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_micros(500);
/// The kernel's queue of half-open connections in these tests.
const BACKLOG: u32 = 128;

/// Sends SYNs from ever other sources until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn begin(host: &Host, to: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (peer, stopped, counted) = (host.peer(), Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            enter(&peer);
            let link = RawLink::open(PEER_INTERFACE);
            let frames: Vec<_> = (0..4_096_u32)
                .map(|number| {
                    // RFC 2544, appendix C.2.2: a network for tests.
                    let source = Ipv4Addr::from(0xc612_0000 + number * 31);
                    Segment::new((source, 1_024 + number as u16).into(), to, SYN).frame(&[])
                })
                .collect();
            let mut frames = frames.iter().cycle();
            while !stopped.load(Ordering::Relaxed) {
                for frame in frames.by_ref().take(BURST) {
                    counted.fetch_add(u64::from(link.send(frame)), Ordering::Relaxed);
                }
                std::thread::sleep(PAUSE);
            }
        });
        let flood = Self { stop, sent, thread: Some(thread) };
        let end = Instant::now() + Duration::from_secs(5);
        while flood.sent.load(Ordering::Relaxed) < 10_000 {
            assert!(Instant::now() < end, "the flood does not flow");
            std::thread::yield_now();
        }
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood ends");
        }
    }
}

/// How long each client took from its SYN to the end of the answer; `None`: it gave up.
fn clients(host: &Host, to: SocketAddr) -> Vec<Option<Duration>> {
    let one = || {
        let began = Instant::now();
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(b"?").ok()?;
        stream.read_exact(&mut [0; ANSWER.len()]).ok()?;
        Some(began.elapsed())
    };
    let end = Instant::now() + MEASURED;
    host.in_peer(|| std::iter::repeat_with(one).take_while(|_| Instant::now() < end).collect())
}

/// A listener that answers each client with a byte.
fn serve() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((HERE_V4, 0)).into()).expect("a free port");
    socket.listen(i32::try_from(BACKLOG).expect("a small number")).expect("bound");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if stream.read_exact(&mut [0]).is_ok() {
                let _: std::io::Result<()> = stream.write_all(ANSWER);
            }
        }
    });
    address
}

struct Arm {
    name: &'static str,
    syncookies: u32,
    guard: Option<XdpMode>,
}

struct Seen {
    clients: usize,
    served: usize,
    /// 99 of 100 were served within this time.
    percentile: Duration,
}

fn run(host: &Host, arm: &Arm) -> Seen {
    set_sysctl("net.ipv4.tcp_syncookies", arm.syncookies);
    let to = serve();
    let part = arm.guard.map(|xdp_mode| {
        let kernel = Kernel {
            xdp_mode,
            syn_rate_per_listener: 1_000,
            ..settings(KernelMode::Required, host.bpffs().join("cmim"), &[INTERFACE])
        };
        start(&kernel, &listening(&[(1, to)]), 1).expect("the kernel part starts here")
    });
    let flood = Flood::begin(host, to);
    let (before, began) = (flood.sent.load(Ordering::Relaxed), Instant::now());
    let clients = clients(host, to);
    let rate = (flood.sent.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    drop(flood);
    let mut times: Vec<_> = clients.iter().flatten().copied().collect();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let seen = Seen { clients: clients.len(), served: times.len(), percentile: at(99) };
    println!(
        "{}: beside {rate:.0} SYN/s {} of {} clients served, median {:.1?}, 99 % within {:.1?}, slowest {:.1?}{}",
        arm.name,
        seen.served,
        seen.clients,
        at(50),
        seen.percentile,
        times.last().copied().unwrap_or_default(),
        part.map_or_else(String::new, |part| told(&part, arm.syncookies > 0, seen.served)),
    );
    seen
}

/// What the guard counted.
fn told(part: &KernelPart, has_cookies: bool, served: usize) -> String {
    let counters = part.counters().expect("readable").expect("loaded");
    let (sent, returned, dropped) = (counters.cookies_sent, counters.cookies_returned, counters.dropped_rate);
    if has_cookies {
        assert!(sent > 0, "{counters:?}");
        assert!((1..=u64::try_from(served).expect("it fits")).contains(&returned), "{counters:?}");
    } else {
        assert!(sent == 0 && returned == 0 && dropped > 0, "{counters:?}");
    }
    let passed = counters.tcp_syn - sent - dropped;
    format!(" (cookies sent {sent}, returned {returned}; SYNs passed {passed}, dropped {dropped})")
}

#[test]
fn under_a_flood_of_spoofed_syns_real_clients_connect_promptly() {
    in_namespaces("under_a_flood_of_spoofed_syns_real_clients_connect_promptly", |host| {
        // The device answers spoofed sources into the void behind the peer.
        ip(&["route", "add", "default", "via", &PEER_V4.to_string()]);
        set_sysctl("net.core.somaxconn", BACKLOG);
        set_sysctl("net.ipv4.tcp_max_syn_backlog", BACKLOG);
        // Native XDP answers into the peer's ring, which a veth has only with XDP on that side too.
        let mut passing = load::object(true, cmim_common::splice::SocketLayout::default()).expect("maps");
        let guard = load::guard(&mut passing).expect("the guard loads");
        host.in_peer(|| guard.attach(PEER_INTERFACE, AyaMode::Driver)).expect("veth knows native XDP");

        let arms = [
            Arm { name: "no guard, tcp_syncookies=0", syncookies: 0, guard: None },
            Arm { name: "no guard, tcp_syncookies=1", syncookies: 1, guard: None },
            Arm { name: "guard (native), tcp_syncookies=0", syncookies: 0, guard: Some(XdpMode::Native) },
            Arm { name: "guard (native), tcp_syncookies=1", syncookies: 1, guard: Some(XdpMode::Native) },
            Arm { name: "guard (native), tcp_syncookies=2", syncookies: 2, guard: Some(XdpMode::Native) },
            Arm { name: "guard (generic), tcp_syncookies=1", syncookies: 1, guard: Some(XdpMode::Generic) },
        ];
        for arm in &arms {
            let seen = run(host, arm);
            // Without the kernel's own cookies the guard has none to give: it only keeps the queue from filling.
            if arm.guard.is_some() && arm.syncookies > 0 {
                assert_eq!(seen.served, seen.clients, "{}", arm.name);
                assert!(seen.percentile < PROMPTLY, "{}: {:?}", arm.name, seen.percentile);
            } else if arm.guard.is_none() && arm.syncookies == 0 {
                assert!(seen.served * 2 < seen.clients, "{}: the flood was none", arm.name);
            }
        }
    });
}
