//! The shared types as plain bytes, for aya's typed map handles.

use crate::connection::{Connection, ConnectionKey};
use crate::counters::Counters;
use crate::deny::Denial;
use crate::listener::{Listener, ListenerKey};
use crate::local::{End, Pair};
use crate::rate::Bucket;
use crate::settings::Settings;
use crate::splice::SocketLayout;
use crate::spread::Worker;

macro_rules! plain_bytes {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: the type is `#[repr(C)]`, holds integers and byte arrays only, so every bit pattern is a value of it,
        // and has no padding: its module asserts its size as the sum of its fields.
        #[expect(unsafe_code, reason = "aya takes map types by an unsafe marker trait")]
        unsafe impl aya::Pod for $type {}
    )+};
}

plain_bytes!(
    ConnectionKey,
    Connection,
    ListenerKey,
    Listener,
    Denial,
    Counters,
    Bucket,
    Settings,
    SocketLayout,
    Worker,
    End,
    Pair
);
