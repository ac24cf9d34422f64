//! SYN cookies: turns a SYN into its own reply, and knows a cookie that comes back.
//!
//! The cookie is made with the listening socket at hand (`bpf_tcp_gen_syncookie`) and not from the packet alone: so the
//! kernel says no as long as it would refuse the cookie itself (SYN cookies are off, its queue has room, nobody
//! accepts), and remembers that it must take them from now on (`tcp_synq_overflow`). A reply that the listener would
//! answer with a reset would be worse than none.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{bpf_sock_tuple, iphdr, ipv6hdr, tcphdr, xdp_md};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie,
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use cmim_common::cookie::{
    ENDS_V4, ENDS_V6, REPLY_V4, REPLY_V6, RETURN_TIME, SHORTEST_FRAME, Scratch, TCP_HEADER, TCP_HEADER_MAX, ends_v4,
    ends_v6, header_length, is_bare_v4, is_bare_v6, mss_v4, mss_v6, reply_v4, reply_v6,
};
use cmim_common::listener::Listener;
use cmim_common::packet::{Packet as _, V4_HEADER, V6_HEADER};

use crate::frame::Frame;
use crate::maps::CMIM_SCRATCH;

/// Set by the daemon before the program is loaded: 0 where this kernel lacks a helper. The verifier then takes the
/// branches to them for what they are, dead.
#[unsafe(no_mangle)]
static CMIM_HAS_COOKIES: u32 = 1;

/// Which of the two headers stands in the packet.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What became of a SYN.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// The packet is now the reply, to be sent back.
    Sent,
    /// Nothing was changed.
    LeftToKernel,
}

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const THIS_NAMESPACE: u64 = -1_i32 as u64;
/// The interface that the packet came in by (`bpf_check_mtu`).
const THIS_INTERFACE: u32 = 0;
/// `IPV6_MIN_MTU`; in force where the link does not tell its own.
const LEAST_MTU: u32 = 1_280;

/// Turns the SYN whose IP header begins at `at` into its reply. The headers must be plain.
#[inline(always)]
pub(crate) fn answer(context: &XdpContext, at: usize, family: Family) -> Answer {
    if !is_built_in() {
        return Answer::LeftToKernel;
    }
    let answered = match family {
        Family::V4 => answer_v4(context.ctx, at),
        Family::V6 => answer_v6(context.ctx, at),
    };
    if answered { Answer::Sent } else { Answer::LeftToKernel }
}

// A function of its own has a stack frame of its own; the guard's would not hold all of this.
#[inline(never)]
fn answer_v4(context: *mut xdp_md, at: usize) -> bool {
    let context = XdpContext::new(context);
    let answer = || {
        let mut headers = Headers::load::<V4_HEADER>(&context, at)?;
        let Parts { ip, syn, ends, .. } = headers.parts::<V4_HEADER, ENDS_V4, REPLY_V4>()?;
        ends_v4(ip, syn, ends);
        let cookie = cookie::<ENDS_V4, V4_HEADER>(&context, &headers)?;
        let Parts { ip, syn, reply, .. } = headers.parts::<V4_HEADER, ENDS_V4, REPLY_V4>()?;
        reply_v4(ip, syn, cookie, mss_v4(mtu(&context)), reply);
        become_reply::<REPLY_V4>(&context, at, reply)
    };
    answer().is_some()
}

#[inline(never)]
fn answer_v6(context: *mut xdp_md, at: usize) -> bool {
    let context = XdpContext::new(context);
    let answer = || {
        let mut headers = Headers::load::<V6_HEADER>(&context, at)?;
        let Parts { ip, syn, ends, .. } = headers.parts::<V6_HEADER, ENDS_V6, REPLY_V6>()?;
        ends_v6(ip, syn, ends);
        let cookie = cookie::<ENDS_V6, V6_HEADER>(&context, &headers)?;
        let Parts { ip, syn, reply, .. } = headers.parts::<V6_HEADER, ENDS_V6, REPLY_V6>()?;
        reply_v6(ip, syn, cookie, mss_v6(mtu(&context)), reply);
        become_reply::<REPLY_V6>(&context, at, reply)
    };
    answer().is_some()
}

/// Copies of a SYN's headers in this CPU's scratch memory, with room for what is made of them.
struct Headers {
    memory: &'static mut Scratch,
    /// Of the TCP header with its options, which say how large the client's segments may be.
    tcp_length: u32,
}

impl Headers {
    #[inline(always)]
    fn load<const I: usize>(context: &XdpContext, at: usize) -> Option<Self> {
        let fixed = Frame::of(context).read::<TCP_HEADER>(at + I)?;
        let tcp_length = bounded(header_length(&fixed)? as u32)?;
        // SAFETY: the slot belongs to this CPU alone, and the guard neither interrupts itself on it nor keeps this.
        let memory = unsafe { &mut *CMIM_SCRATCH.get_ptr_mut(0)? };
        let (ip, tcp) = (memory.ip.as_mut_ptr().cast::<c_void>(), memory.tcp.as_mut_ptr().cast::<c_void>());
        // SAFETY: the memory has room for either family's header, and the helper checks the packet's end.
        let ip_loaded = unsafe { bpf_xdp_load_bytes(context.ctx, at as u32, ip, I as u32) } == 0;
        // SAFETY: the memory has room for `tcp_length`, and the helper checks the packet's end.
        let tcp_loaded = unsafe { bpf_xdp_load_bytes(context.ctx, (at + I) as u32, tcp, tcp_length) } == 0;
        (ip_loaded && tcp_loaded).then_some(Self { memory, tcp_length })
    }

    /// The IP header, the TCP header without options, the ends and the reply, in a family's sizes.
    #[inline(always)]
    fn parts<const I: usize, const E: usize, const R: usize>(&mut self) -> Option<Parts<'_, I, E, R>> {
        let Scratch { ip, tcp, ends, reply } = &mut *self.memory;
        Some(Parts {
            ip: ip.first_chunk()?,
            syn: tcp.first_chunk()?,
            ends: ends.first_chunk_mut()?,
            reply: reply.first_chunk_mut()?,
        })
    }
}

struct Parts<'a, const I: usize, const E: usize, const R: usize> {
    ip: &'a [u8; I],
    syn: &'a [u8; TCP_HEADER],
    ends: &'a mut [u8; E],
    reply: &'a mut [u8; R],
}

/// The length of a TCP header once more, compared where the verifier looks: LLVM knows already that it fits and would
/// leave the comparison out, or make it with another register.
#[inline(always)]
fn bounded(length: u32) -> Option<u32> {
    let mut length = u64::from(length);
    // SAFETY: no instruction; the compiler only has to forget what it knows of the register.
    unsafe { asm!("/* {0} */", inout(reg) length, options(nomem, nostack, preserves_flags)) };
    if length < TCP_HEADER as u64 || length > TCP_HEADER_MAX as u64 {
        return None;
    }
    Some(length as u32)
}

/// The listening socket's cookie for this SYN; `None`: there is no such socket, or it would not take a cookie.
#[inline(always)]
fn cookie<const E: usize, const I: usize>(context: &XdpContext, headers: &Headers) -> Option<u32> {
    let ends = headers.memory.ends.as_ptr().cast_mut().cast::<bpf_sock_tuple>();
    // SAFETY: the ends have the size of their family, which is how the helper tells the family.
    let socket = unsafe { bpf_skc_lookup_tcp(context.as_ptr(), ends, E as u32, THIS_NAMESPACE, 0) };
    if socket.is_null() {
        return None;
    }
    let ip = headers.memory.ip.as_ptr().cast_mut().cast();
    let tcp = headers.memory.tcp.as_ptr().cast_mut().cast::<tcphdr>();
    // SAFETY: both headers are copies as long as said; the socket is referenced.
    let made = unsafe { bpf_tcp_gen_syncookie(socket.cast(), ip, I as u32, tcp, headers.tcp_length) };
    // SAFETY: gives the lookup's reference back.
    unsafe { bpf_sk_release(socket.cast()) };
    // The upper half is the segment size that the cookie holds, which only its maker needs.
    (made > 0).then_some(made as u32)
}

/// The largest packet of the interface.
#[inline(always)]
fn mtu(context: &XdpContext) -> u32 {
    let mut mtu = 0;
    // SAFETY: the helper writes one number. Its verdict on this packet's size does not matter here.
    unsafe { bpf_check_mtu(context.as_ptr(), THIS_INTERFACE, &mut mtu, 0, 0) };
    if mtu == 0 { LEAST_MTU } else { mtu }
}

/// Cuts or stretches the packet to the reply's length and writes the reply over it. The link headers stay, VLAN tags
/// and all, but for the two addresses.
#[inline(always)]
fn become_reply<const R: usize>(context: &XdpContext, at: usize, reply: &[u8; R]) -> Option<()> {
    let frame = Frame::of(context);
    let whole = at + R;
    let padded = if whole < SHORTEST_FRAME { SHORTEST_FRAME } else { whole };
    let change = padded as i64 - frame.length() as i64;
    // SAFETY: the helper checks what it is asked for; `frame` is not used after it.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, change as i32) } != 0 {
        return None;
    }
    // From here on the packet is no longer the SYN. None of this can fail: it lies within the new length. Padding was the
    // SYN's options, which go back to whom they belong.
    let frame = Frame::of(context);
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = frame.read::<12>(0)?;
    frame.write(0, [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])?;
    let reply = reply.as_ptr().cast_mut().cast();
    // SAFETY: the reply is as long as said, and the helper checks the packet's end.
    let written = unsafe { bpf_xdp_store_bytes(context.ctx, at as u32, reply, R as u32) };
    (written == 0).then_some(())
}

/// Whether this segment brings back a cookie of a listener that has lately sent some. The kernel checks it again and
/// decides; here it is only counted.
#[inline(always)]
pub(crate) fn is_returned(context: &XdpContext, listener: *mut Listener, at: usize, family: Family) -> bool {
    if !is_built_in() {
        return false;
    }
    // SAFETY: a field of a live map value.
    let cookie_at = unsafe { (&raw const (*listener).cookie_at).read_volatile() };
    if cookie_at == 0 {
        return false;
    }
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(cookie_at) > RETURN_TIME {
        return false;
    }
    match family {
        Family::V4 => is_cookie_v4(context.ctx, at),
        Family::V6 => is_cookie_v6(context.ctx, at),
    }
}

#[inline(never)]
fn is_cookie_v4(context: *mut xdp_md, at: usize) -> bool {
    let frame = Frame::of(&XdpContext::new(context));
    let (Some(mut ip), Some(mut tcp)) = (frame.read::<V4_HEADER>(at), frame.read::<TCP_HEADER>(at + V4_HEADER)) else {
        return false;
    };
    if !is_bare_v4(&ip, &tcp) {
        return false;
    }
    let (ip, tcp) = (ip.as_mut_ptr().cast::<iphdr>(), tcp.as_mut_ptr().cast::<tcphdr>());
    // SAFETY: both headers are on the stack and whole.
    unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip, tcp) == 0 }
}

#[inline(never)]
fn is_cookie_v6(context: *mut xdp_md, at: usize) -> bool {
    let frame = Frame::of(&XdpContext::new(context));
    let (Some(mut ip), Some(mut tcp)) = (frame.read::<V6_HEADER>(at), frame.read::<TCP_HEADER>(at + V6_HEADER)) else {
        return false;
    };
    if !is_bare_v6(&ip, &tcp) {
        return false;
    }
    let (ip, tcp) = (ip.as_mut_ptr().cast::<ipv6hdr>(), tcp.as_mut_ptr().cast::<tcphdr>());
    // SAFETY: both headers are on the stack and whole.
    unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip, tcp) == 0 }
}

#[inline(always)]
fn is_built_in() -> bool {
    // SAFETY: a constant of this object; volatile, because the daemon changes it behind the compiler's back.
    unsafe { (&raw const CMIM_HAS_COOKIES).read_volatile() != 0 }
}
