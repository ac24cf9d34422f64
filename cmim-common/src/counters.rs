//! What the kernel part counts: the one value per CPU of `CMIM_COUNTERS`.
//!
//! Named fields and not an array by reason, so that `bpftool map dump` prints words.

use core::mem::{align_of, size_of};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// All counters of one CPU. They only grow; 64 bits do not wrap.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($name)),+].len();

            /// Every counter with its name, in the order of the map.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, u64); Self::COUNT] {
                [$((stringify!($name), self.$name)),+]
            }

            /// Adds another CPU's counters to these.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)+
            }
        }
    };
}

counters! {
    /// Packets that the guard saw. Each is also in exactly one of `passed`, `dropped_denied`, `dropped_flags`,
    /// `dropped_rate`, `dropped_wrapped` and `cookies_sent`.
    packets,
    /// Their bytes, link headers included.
    bytes,
    /// Packets that went on to the network stack.
    passed,
    /// Dropped: the source is in `CMIM_DENY_V4` or `CMIM_DENY_V6`.
    dropped_denied,
    /// Dropped: TCP flags that no real connection sends.
    dropped_flags,
    /// Dropped: a SYN over its source's or its listener's rate.
    dropped_rate,
    /// Dropped: to this host, and wrapped so that its source or its TCP header cannot be read.
    dropped_wrapped,
    /// Answered by the guard itself: a SYN over its listener's rate, with a SYN cookie.
    cookies_sent,
    /// Cookies that came back in an ACK, and so began a connection. Counted in `passed` as well.
    cookies_returned,
    /// Packets that are neither IPv4 nor IPv6; they pass.
    not_ip,
    /// Packets cut short within their headers; they pass, the stack has its own opinion of them.
    truncated,
    /// TCP packets with SYN and without ACK, to any address.
    tcp_syn,
    /// TCP packets to one of `CMIM_LISTENERS` that passed.
    to_listener,
    /// Bursts that the verdict handed from socket to socket.
    splice_redirected,
    /// Their bytes.
    splice_redirected_bytes,
    /// Bursts of a spliced connection that the verdict left to userspace.
    splice_passed,
    /// Their bytes.
    splice_passed_bytes,
    /// Bytes of spliced connections that had come before and were cut off.
    splice_repeated_bytes,
    /// Events that found no room in the ring. The daemon looks for itself now and then, so that they only delay.
    splice_events_lost,
    /// Connections between the daemon and a server of this host that took the local lane.
    local_connections,
    /// Those of them that are closed again.
    local_closed,
    /// Messages that went straight from one of their ends to the other.
    local_messages,
    /// Their bytes.
    local_bytes,
    /// Messages on these connections that TCP carried.
    local_passed,
}

const _: () = {
    assert!(size_of::<Counters>() == 8 * Counters::COUNT);
    assert!(align_of::<Counters>() == 8);
};

#[cfg(test)]
mod tests {
    use super::Counters;

    #[test]
    fn cpus_add_up_field_by_field() {
        let mut sum = Counters { packets: 2, dropped_denied: 1, ..Counters::default() };
        sum.add(&Counters { packets: 3, passed: 5, ..Counters::default() });
        assert_eq!(sum, Counters { packets: 5, passed: 5, dropped_denied: 1, ..Counters::default() });
        assert_eq!(sum.named()[0], ("packets", 5));
        assert_eq!(sum.named().len(), Counters::COUNT);
    }
}
