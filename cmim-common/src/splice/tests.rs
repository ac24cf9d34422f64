use super::{Burst, Cut, Decision, Noted, OVERHEAD, Reason, Target, decide};
use crate::connection::{Connection, ConnectionKey, ENDLESS, Lane, State};

const WINDOW: u64 = 1_000;
const BASE: u32 = u32::MAX - 100;

fn splicing() -> Connection {
    let address = "192.0.2.1:80".parse().expect("a literal of this test");
    Connection {
        generation: 1,
        remaining: 5_000,
        spliced: 0,
        accepted: 0,
        passed: 0,
        window: WINDOW,
        target: ConnectionKey::new(address, address),
        slot: 0,
        base: BASE,
        next: BASE,
        lane: Lane::Sockmap as u8,
        state: State::Splicing as u8,
        has_base: 1,
        has_next: 1,
        reserved: 0,
    }
}

/// To a target that has taken this many bytes since the base, and has room.
fn burst_at(length: u64, written: u32) -> Burst {
    let target = Target { write_seq: BASE.wrapping_add(written), queued: 0, limit: 1 << 20 };
    Burst { length, taken: 0, target: Some(target) }
}

fn burst(length: u64) -> Burst {
    burst_at(length, 0)
}

#[test]
fn a_burst_within_content_and_window_is_redirected() {
    assert_eq!(decide(&splicing(), burst(1)), Decision::Redirect);
    assert_eq!(decide(&splicing(), burst(WINDOW)), Decision::Redirect);
}

#[test]
fn a_burst_over_the_window_goes_to_userspace() {
    assert_eq!(decide(&splicing(), burst(WINDOW + 1)), Decision::Pass(Reason::OverWindow));
    let filled = Connection { spliced: 900, ..splicing() };
    assert_eq!(decide(&filled, burst_at(200, 100)), Decision::Redirect);
    assert_eq!(decide(&filled, burst_at(201, 100)), Decision::Pass(Reason::OverWindow));
}

#[test]
fn what_the_target_accepted_opens_the_window_again_also_where_sequence_numbers_wrap() {
    for spliced in [900, 0x1_0000_0384, 0xffff_ffff] {
        let drained = Connection { spliced, ..splicing() };
        assert_eq!(decide(&drained, burst_at(WINDOW, spliced as u32)), Decision::Redirect, "{spliced}");
        let one = burst_at(WINDOW, (spliced as u32).wrapping_sub(1));
        assert_eq!(decide(&drained, one), Decision::Pass(Reason::OverWindow), "{spliced}");
    }
}

#[test]
fn what_userspace_passed_on_is_in_the_targets_sequence_too() {
    let entry = Connection { spliced: 600, passed: 300, ..splicing() };
    let burst = Burst { taken: 300, ..burst_at(WINDOW, 900) };
    assert_eq!(decide(&entry, burst), Decision::Redirect);
    let burst = Burst { taken: 300, ..burst_at(WINDOW, 899) };
    assert_eq!(decide(&entry, burst), Decision::Pass(Reason::OverWindow));
}

#[test]
fn a_target_whose_tcp_would_not_take_a_burst_at_once_is_spared_it() {
    let full = |queued, limit| Burst { target: Some(Target { write_seq: BASE, queued, limit }), ..burst(100) };
    let needed = 200 + OVERHEAD as u32;
    assert_eq!(decide(&splicing(), full(5_000, 5_000 + needed)), Decision::Redirect);
    assert_eq!(decide(&splicing(), full(5_001, 5_000 + needed)), Decision::Pass(Reason::NoRoom));
    assert_eq!(decide(&splicing(), full(u32::MAX, u32::MAX)), Decision::Pass(Reason::NoRoom));
}

#[test]
fn nothing_overtakes_what_userspace_still_holds() {
    let mut entry = Connection { remaining: ENDLESS, ..splicing() };
    let over = burst(WINDOW + 1);
    assert_eq!(decide(&entry, over), Decision::Pass(Reason::OverWindow));
    assert_eq!(entry.note_passed(over, Reason::OverWindow), Noted { is_news: true });
    assert_eq!((entry.passed, entry.state), (WINDOW + 1, State::Paused as u8));

    let small = burst(1);
    assert_eq!(decide(&entry, small), Decision::Pass(Reason::Behind));
    assert_eq!(entry.note_passed(small, Reason::Behind), Noted { is_news: false }, "it was told once");

    let one_short = Burst { taken: WINDOW + 1, ..burst_at(1, 1_001) };
    assert_eq!(decide(&entry, one_short), Decision::Pass(Reason::Behind));
    let level = Burst { taken: WINDOW + 2, ..burst_at(1, 1_002) };
    assert_eq!(decide(&entry, level), Decision::Redirect);
    entry.note_redirected(level);
    assert_eq!(entry.state, State::Splicing as u8);
}

#[test]
fn a_burst_that_ends_the_content_is_redirected_told_and_the_last() {
    let mut ending = Connection { remaining: 10, ..splicing() };
    assert_eq!(decide(&ending, burst(11)), Decision::Pass(Reason::PastEnd));
    assert_eq!(decide(&ending, burst(10)), Decision::Redirect);
    assert_eq!(ending.note_redirected(burst(10)), Noted { is_news: true });
    assert_eq!((ending.remaining, ending.spliced, ending.state), (0, 10, State::Draining as u8));
    assert_eq!(decide(&ending, burst(1)), Decision::Pass(Reason::NotSplicing));
    ending.note_passed(burst(1), Reason::NotSplicing);
    assert_eq!((ending.passed, ending.state), (1, State::Draining as u8), "what should not have come is counted");
}

#[test]
fn a_burst_past_the_end_ends_the_content_in_userspace() {
    let mut entry = Connection { remaining: 10, ..splicing() };
    assert_eq!(entry.note_passed(burst(11), Reason::PastEnd), Noted { is_news: true });
    assert_eq!((entry.remaining, entry.passed, entry.state), (0, 11, State::Draining as u8));
}

#[test]
fn what_came_before_is_no_part_of_a_burst() {
    let cut = |first: u32, length| splicing().arrive(BASE.wrapping_add(first), length, None);
    assert_eq!(cut(0, 100), Cut { old: 0, new: 100 });
    assert_eq!(cut(0_u32.wrapping_sub(30), 100), Cut { old: 30, new: 70 });
    assert_eq!(cut(0_u32.wrapping_sub(30), 30), Cut { old: 30, new: 0 });
    assert_eq!(cut(0_u32.wrapping_sub(50), 30), Cut { old: 30, new: 0 });
    assert_eq!(cut(20, 30), Cut { old: 0, new: 30 }, "TCP brings no gap; nothing is cut for one");
}

#[test]
fn a_burst_ends_where_the_next_begins_also_where_sequence_numbers_wrap() {
    let mut entry = splicing();
    for _ in 0..5 {
        let (expected, again) = (entry.next, entry.next.wrapping_sub(40));
        assert_eq!(entry.arrive(again, 100, None), Cut { old: 40, new: 60 });
        assert_eq!(entry.next, expected.wrapping_add(60));
        assert_eq!(entry.arrive(again, 20, None), Cut { old: 20, new: 0 });
        assert_eq!(entry.next, expected.wrapping_add(60), "old bytes do not set it back");
    }
}

#[test]
fn the_first_burst_begins_where_the_socket_was_read_to() {
    let first = |read| Connection { has_next: 0, next: 7, ..splicing() }.arrive(1_000, 100, read);
    assert_eq!(first(Some(1_010)), Cut { old: 10, new: 90 });
    assert_eq!(first(Some(1_000)), Cut { old: 0, new: 100 });
    assert_eq!(first(Some(990)), Cut { old: 0, new: 100 });
    assert_eq!(first(None), Cut { old: 0, new: 100 });
    for (read, next) in [(None, 1_100), (Some(1_050), 1_100), (Some(1_200), 1_200)] {
        let mut entry = Connection { has_next: 0, ..splicing() };
        entry.arrive(1_000, 100, read);
        assert_eq!((entry.has_next, entry.next), (1, next), "{read:?}");
    }
}

#[test]
fn nothing_follows_a_burst_that_was_lost() {
    let mut entry = splicing();
    assert_eq!(entry.note_broken(), Noted { is_news: true });
    assert_eq!(entry.note_broken(), Noted { is_news: false });
    assert_eq!(decide(&entry, burst(1)), Decision::Forget);
    assert_eq!(entry.remaining, splicing().remaining, "the content is not whole");
}

#[test]
fn the_first_burst_finds_the_base() {
    let mut entry = Connection { has_base: 0, base: 0, passed: 7, ..splicing() };
    let first = Burst { taken: 7, ..burst_at(100, 7) };
    assert_eq!(decide(&entry, first), Decision::Redirect);
    entry.note_redirected(first);
    assert_eq!((entry.base, entry.has_base, entry.accepted), (BASE, 1, 0));
    let second = Burst { taken: 7, ..burst_at(100, 67) };
    entry.note_redirected(second);
    assert_eq!((entry.spliced, entry.accepted), (200, 60));
}

#[test]
fn a_tunnel_has_no_end_but_has_a_window() {
    let mut tunnel = Connection { remaining: ENDLESS, ..splicing() };
    assert_eq!(decide(&tunnel, burst(WINDOW)), Decision::Redirect);
    assert_eq!(decide(&tunnel, burst(u64::MAX)), Decision::Pass(Reason::OverWindow));
    assert_eq!(tunnel.note_redirected(burst(WINDOW)), Noted { is_news: false });
    assert_eq!(tunnel.remaining, ENDLESS);
}

#[test]
fn a_missing_target_goes_to_userspace_whatever_else_holds() {
    let lost = Burst { target: None, ..burst(1) };
    assert_eq!(decide(&splicing(), lost), Decision::Pass(Reason::TargetMissing));
}

#[test]
fn only_a_splicing_entry_redirects() {
    for number in 0..=u8::MAX {
        let entry = Connection { state: number, ..splicing() };
        let redirected = decide(&entry, burst(1)) == Decision::Redirect;
        let may = number == State::Splicing as u8 || number == State::Paused as u8;
        assert_eq!(redirected, may, "state {number}");
    }
}

#[test]
fn an_end_without_bytes_is_never_queued() {
    for state in [State::Installing, State::Splicing, State::Paused, State::Draining] {
        let entry = Connection { state: state as u8, passed: 5, ..splicing() };
        assert_eq!(decide(&entry, burst(0)), Decision::Forget, "{state:?}");
    }
}

#[test]
fn impossible_figures_never_overflow() {
    let odd = Connection { window: u64::MAX, remaining: ENDLESS, ..splicing() };
    let more_than_given = Burst { length: 100, ..burst_at(0, 1_000_000) };
    assert_eq!(decide(&odd, more_than_given), Decision::Redirect);
    assert_eq!(decide(&odd, burst(u64::MAX)), Decision::Pass(Reason::NoRoom));
}
