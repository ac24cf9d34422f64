//! `cmim_verdict`: for each burst that arrives on a socket of the sockhash, says whether the kernel hands it to the
//! other socket of its splice or leaves it to the daemon.

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use aya_log_ebpf::warn;
use cmim_common::connection::Connection;
use cmim_common::splice::{Burst, Decision, Event, Noted, Reason, decide};

use crate::atomic::count;
use crate::key::key;
use crate::maps::{CMIM_CONNECTIONS, CMIM_EVENTS, CMIM_TAKEN, CMIM_TARGETS};
use crate::{overlap, target};

/// Redirect to the target's send side, not to its receive queue.
const EGRESS: u64 = 0;

#[stream_verdict]
fn cmim_verdict(context: SkBuffContext) -> u32 {
    let key = key!(context.skb.skb);
    let Some(connection) = CMIM_CONNECTIONS.get_ptr_mut(key) else {
        return SK_PASS;
    };
    // SAFETY: a live map value. The kernel runs one verdict of a socket at a time, and the daemon does not write an entry
    // that verdicts can find.
    let connection = unsafe { &mut *connection };
    let Some(taken) = CMIM_TAKEN.get_ptr(connection.slot) else {
        return SK_PASS;
    };
    let Some(cut) = overlap::cut(&context, connection) else {
        return give_up(&context, connection);
    };
    if cut.old > 0 {
        count!(splice_repeated_bytes, u64::from(cut.old));
    }
    let burst = Burst {
        length: u64::from(cut.new),
        // SAFETY: an aligned word of the map's memory. Volatile, because the daemon writes it meanwhile.
        taken: unsafe { taken.read_volatile() },
        target: target::look(&connection.target),
    };
    match decide(connection, burst) {
        Decision::Redirect => redirect(&context, connection, burst),
        Decision::Pass(reason) => pass(&context, connection, burst, reason),
        Decision::Forget => SK_DROP,
    }
}

#[inline(always)]
fn redirect(context: &SkBuffContext, connection: &mut Connection, burst: Burst) -> u32 {
    let verdict = CMIM_TARGETS.redirect_skb(context, connection.target, EGRESS);
    if verdict != i64::from(SK_PASS) {
        // The target left between the look and the redirect. The helper only notes where to go, so passing is still
        // free to choose, and no byte is lost.
        return pass(context, connection, burst, Reason::TargetMissing);
    }
    let noted = connection.note_redirected(burst);
    count!(splice_redirected, 1);
    count!(splice_redirected_bytes, burst.length);
    tell(connection, noted);
    SK_PASS
}

/// Drops the burst, and all that follows on its connection: better a content that is cut than one that is wrong.
#[inline(always)]
fn give_up(context: &SkBuffContext, connection: &mut Connection) -> u32 {
    let noted = connection.note_broken();
    if noted.is_news {
        warn!(context, "generation {}: no memory for a burst that has come in part before", connection.generation);
    }
    tell(connection, noted);
    SK_DROP
}

/// Leaves the burst in the receive queue of its own socket.
#[inline(always)]
fn pass(context: &SkBuffContext, connection: &mut Connection, burst: Burst, reason: Reason) -> u32 {
    let noted = connection.note_passed(burst, reason);
    if matches!(reason, Reason::TargetMissing) && noted.is_news {
        warn!(context, "generation {}: the splice's target left the sockhash", connection.generation);
    }
    count!(splice_passed, 1);
    count!(splice_passed_bytes, burst.length);
    tell(connection, noted);
    SK_PASS
}

/// Tells the daemon what it has to know.
#[inline(always)]
fn tell(connection: &Connection, noted: Noted) {
    if !noted.is_news {
        return;
    }
    let event = Event { generation: connection.generation };
    if CMIM_EVENTS.output(event, 0).is_err() {
        count!(splice_events_lost, 1);
    }
}
