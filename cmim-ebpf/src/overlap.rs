//! The beginning of a burst that has come before.
//!
//! TCP keeps a segment whole that begins with bytes it has and ends with new ones, as when what was sent twice and what
//! follows it arrive in one (`tcp_data_queue`, `tcp_add_backlog`), and a reader begins in its middle. The kernel's reader
//! for verdicts does not (`tcp_read_skb`): the client would get those bytes twice, and the socket's own account would
//! be ahead of what has arrived. So they are cut off before anything is decided.

use aya_ebpf::helpers::{bpf_skb_adjust_room, bpf_skc_to_tcp_sock};
use aya_ebpf::programs::SkBuffContext;
use cmim_common::connection::Connection;
use cmim_common::splice::Cut;

use crate::layout::{number, offset};

/// The helper takes so much at a time, and no more (`sk_skb_adjust_room`).
const STEP: u32 = 0xfff;
/// A segment that was sent again is no longer than 64 KiB.
const STEPS: u32 = 32;

/// Cuts off what has come before; what is left of the burst, in bytes. `None`: the kernel has no memory for that.
#[inline(always)]
pub(crate) fn cut(context: &SkBuffContext, connection: &mut Connection) -> Option<Cut> {
    // SAFETY: the kernel hands every program a readable context. The first word of `cb` is that of `struct tcp_skb_cb`
    // here (`sk_skb_convert_ctx_access`): the sequence number of the first byte.
    let first = unsafe { (&raw const (*context.skb.skb).cb[0]).read_volatile() };
    let read = if connection.has_next == 0 { read(context) } else { None };
    let cut = connection.arrive(first, context.len(), read);
    let mut left = cut.old;
    for _ in 0..STEPS {
        if left == 0 {
            return Some(cut);
        }
        let step = if left < STEP { left } else { STEP };
        // SAFETY: the context is this program's own.
        if unsafe { bpf_skb_adjust_room(context.skb.skb, -(step as i32), 0, 0) } != 0 {
            return None;
        }
        left -= step;
    }
    if left == 0 { Some(cut) } else { None }
}

/// The sequence number of the next byte that a reader of this socket gets.
#[inline(always)]
fn read(context: &SkBuffContext) -> Option<u32> {
    // SAFETY: the kernel hands every program a readable context.
    let socket = unsafe { (&raw const (*context.skb.skb).__bindgen_anon_2.sk).read_volatile() };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the context's socket.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return None;
    }
    number(tcp.cast(), offset!(copied_seq))
}
