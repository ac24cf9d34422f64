//! The local lane: `cmim_local_ops` finds the connections between the daemon and servers on this host, and
//! `cmim_local_msg` hands what one end sends straight to the other.
//!
//! The daemon marks its sockets before they connect. Only those, and the sockets at the other end of their connections
//! in the same network namespace, come into the sockhash; every other connection of the host is looked at once, when it
//! is made.

use core::ffi::c_void;

use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock,
};
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{sk_msg, sock_ops};
use aya_ebpf::programs::{SkMsgContext, SockOpsContext};
use cmim_common::connection::ConnectionKey;
use cmim_common::local::{Decision, End, Look, Pair, decide};

use crate::atomic::count;
use crate::key::key;
use crate::layout::{number, offset};
use crate::maps::{CMIM_ENDS, CMIM_LOCAL, CMIM_PAIRS};

/// What a sock_ops program returns when it has nothing to say.
const DONE: u32 = 1;
/// Replaces the value, whether there is one or not (`BPF_ANY`).
const ANY: u64 = 0;

#[sock_ops]
fn cmim_local_ops(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => daemon_connected(&context),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => server_accepted(&context),
        // The daemon's end alone asks for this one.
        BPF_SOCK_OPS_STATE_CB if context.arg(1) == BPF_TCP_CLOSE => {
            forget(key!(context.ops));
        }
        _ => {}
    }
    DONE
}

/// A connection of this host is made from here. If the daemon has marked it, its end is ready for the other.
#[inline(always)]
fn daemon_connected(context: &SockOpsContext) {
    let Some((socket, address)) = socket(context) else { return };
    let Some(end) = end_of(socket, 0) else { return };
    // SAFETY: a field of a live value. Nobody reads it before the socket is in the sockhash.
    unsafe { (*end).own = address };
    // SAFETY: the context is one of a socket.
    let cookie = unsafe { bpf_get_socket_cookie(context.ops.cast()) };
    // SAFETY: as above.
    let namespace = unsafe { bpf_get_netns_cookie(context.ops.cast()) };
    let pair = Pair { namespace, daemon_cookie: cookie, daemon: address, ..Pair::default() };
    if CMIM_PAIRS.insert(key!(context.ops), pair, ANY).is_err() {
        return;
    }
    if context.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_err() || !join(context, cookie) {
        let _ = CMIM_PAIRS.remove(key!(context.ops));
    }
}

/// A connection of this host is made to here. If the other end is the daemon's, they can talk directly.
#[inline(always)]
fn server_accepted(context: &SockOpsContext) {
    let own = key!(context.ops);
    let key = ConnectionKey {
        local_address: own.remote_address,
        remote_address: own.local_address,
        local_port: own.remote_port,
        remote_port: own.local_port,
    };
    let Some(pair) = CMIM_PAIRS.get_ptr_mut(key) else { return };
    // SAFETY: a live map value, written by the other end before this one could be made.
    let Pair { namespace, daemon_cookie, daemon, .. } = unsafe { pair.read_volatile() };
    // SAFETY: the context is one of a socket.
    if namespace != unsafe { bpf_get_netns_cookie(context.ops.cast()) } {
        return;
    }
    let Some((socket, address)) = socket(context) else { return };
    let Some(end) = end_of(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) else { return };
    let here = End { own: address, peer: daemon, peer_cookie: daemon_cookie };
    // SAFETY: a live value. Nobody reads it before the socket is in the sockhash.
    unsafe { end.write(here) };
    // SAFETY: the context is one of a socket.
    let cookie = unsafe { bpf_get_socket_cookie(context.ops.cast()) };
    if !join(context, cookie) {
        return;
    }
    // The cookie last: who sees it sees the rest.
    // SAFETY: a live map value; these fields are this end's to write.
    unsafe { (&raw mut (*pair).server).write_volatile(address) };
    // SAFETY: as above.
    unsafe { (&raw mut (*pair).server_cookie).write_volatile(cookie) };
    count!(local_connections, 1);
}

/// The daemon's end is closed.
#[inline(always)]
fn forget(key: ConnectionKey) {
    let Some(pair) = CMIM_PAIRS.get_ptr(key) else { return };
    // SAFETY: a live map value.
    let joined = unsafe { (&raw const (*pair).server_cookie).read_volatile() } != 0;
    if CMIM_PAIRS.remove(key).is_ok() && joined {
        count!(local_closed, 1);
    }
}

/// The socket of a context, and where it lies in the kernel.
#[inline(always)]
fn socket(context: &SockOpsContext) -> Option<(*mut bpf_sock, u64)> {
    // SAFETY: the kernel hands every program a readable context.
    let socket = unsafe { (&raw const (*context.ops).__bindgen_anon_2.sk).read_volatile() };
    if socket.is_null() {
        return None;
    }
    // SAFETY: a socket of the context's.
    let address = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if address.is_null() { None } else { Some((socket, address as u64)) }
}

#[inline(always)]
fn end_of(socket: *mut bpf_sock, flags: u64) -> Option<*mut End> {
    let map = (&raw const CMIM_ENDS).cast_mut().cast::<c_void>();
    // SAFETY: the map is one for sockets, and the socket is the context's.
    let end = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.cast::<End>();
    if end.is_null() { None } else { Some(end) }
}

/// Puts the context's socket into the sockhash. From now on what it sends comes before `cmim_local_msg`.
#[inline(always)]
fn join(context: &SockOpsContext, cookie: u64) -> bool {
    // SAFETY: the kernel hands every program its context to pass on to helpers.
    CMIM_LOCAL.update(cookie, unsafe { &mut *context.ops }, ANY).is_ok()
}

#[sk_msg]
fn cmim_local_msg(context: SkMsgContext) -> u32 {
    // SAFETY: the kernel hands every program a readable context.
    let socket = unsafe { (&raw const (*context.msg).__bindgen_anon_3.sk).read_volatile() };
    if !socket.is_null()
        && let Some(end) = end_of(socket, 0)
    {
        // SAFETY: the kernel hands every program a readable context.
        let length = unsafe { (&raw const (*context.msg).size).read_volatile() };
        if send(&context, end, length) {
            count!(local_messages, 1);
            count!(local_bytes, u64::from(length));
        } else {
            count!(local_passed, 1);
        }
    }
    SK_PASS
}

/// Whether the message was handed over; else TCP carries it.
#[inline(always)]
fn send(context: &SkMsgContext, end: *mut End, length: u32) -> bool {
    // SAFETY: a live value, which does not change once the peer is known.
    let mut known = unsafe { end.read_volatile() };
    if known.peer == 0 {
        // SAFETY: as above.
        let Some((peer, cookie)) = find_peer(context) else { return false };
        known.peer = peer;
        known.peer_cookie = cookie;
        // SAFETY: as above; one message of a socket is looked at at a time.
        unsafe { (&raw mut (*end).peer_cookie).write_volatile(cookie) };
        // SAFETY: as above.
        unsafe { (&raw mut (*end).peer).write_volatile(peer) };
    }
    let Some(look) = look(&known) else { return false };
    if decide(length, look) != Decision::HandOver {
        return false;
    }
    // A miss, where the other end has just closed, leaves the message to TCP: the helper only notes where to go.
    CMIM_LOCAL.redirect_msg(context, known.peer_cookie, u64::from(BPF_F_INGRESS)) == i64::from(SK_PASS)
}

/// The server's end, once it has joined.
#[inline(always)]
fn find_peer(context: &SkMsgContext) -> Option<(u64, u64)> {
    let pair = CMIM_PAIRS.get_ptr(key!(context.msg))?;
    // SAFETY: a live map value. The cookie was written last.
    let Pair { server_cookie, server, .. } = unsafe { pair.read_volatile() };
    if server_cookie == 0 || server == 0 { None } else { Some((server, server_cookie)) }
}

#[inline(always)]
fn look(end: &End) -> Option<Look> {
    let (written, read, unread) = (offset!(write_seq), offset!(copied_seq), offset!(received));
    let (own, peer) = (end.own as *const u8, end.peer as *const u8);
    Some(Look { written: number(own, written)?, read: number(peer, read)?, unread: number(peer, unread)? })
}
