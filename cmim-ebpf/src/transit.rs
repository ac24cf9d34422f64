//! Whether a packet only passes through this host.
//!
//! A listener on every address of its family, or of a network, is on those of them that are this host's, and not on those
//! of others for whom the host forwards; what goes to them is none of the guard's business.

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup as Route, xdp_md};
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;
use cmim_common::packet::Packet as _;

use crate::cookie::Family;
use crate::frame::Frame;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Asks the routing table about the packet whose IP header begins at `at`. A host that does not forward at all says so
/// without a look at its routes.
#[inline(always)]
pub(crate) fn is_transit(context: &XdpContext, at: usize, family: Family) -> bool {
    match family {
        Family::V4 => is_transit_v4(context.ctx, at),
        Family::V6 => is_transit_v6(context.ctx, at),
    }
}

// Functions of their own, for the size of the question on the stack.
#[inline(never)]
fn is_transit_v4(context: *mut xdp_md, at: usize) -> bool {
    let Some([s0, s1, s2, s3, d0, d1, d2, d3]) = Frame::of(&XdpContext::new(context)).read::<8>(at + 12) else {
        return false;
    };
    // SAFETY: all zeros is a question.
    let mut route: Route = unsafe { core::mem::zeroed() };
    route.family = AF_INET;
    route.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes([s0, s1, s2, s3]);
    route.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes([d0, d1, d2, d3]);
    leads_on(context, &mut route)
}

#[inline(never)]
fn is_transit_v6(context: *mut xdp_md, at: usize) -> bool {
    let frame = Frame::of(&XdpContext::new(context));
    let (Some(source), Some(destination)) = (frame.read::<16>(at + 8), frame.read::<16>(at + 24)) else {
        return false;
    };
    // SAFETY: all zeros is a question.
    let mut route: Route = unsafe { core::mem::zeroed() };
    route.family = AF_INET6;
    route.__bindgen_anon_3.ipv6_src = words(source);
    route.__bindgen_anon_4.ipv6_dst = words(destination);
    leads_on(context, &mut route)
}

#[inline(always)]
fn leads_on(context: *mut xdp_md, route: &mut Route) -> bool {
    // SAFETY: the kernel hands every program a readable context.
    route.ifindex = unsafe { (&raw const (*context).ingress_ifindex).read_volatile() };
    // SAFETY: the question is as long as said.
    let answer = unsafe { bpf_fib_lookup(context.cast(), route, size_of::<Route>() as i32, 0) };
    answer >= 0 && answer != i64::from(BPF_FIB_LKUP_RET_NOT_FWDED) && answer != i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
}

#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}
