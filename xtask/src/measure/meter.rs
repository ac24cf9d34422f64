//! What the machine and the proxy have used so far: CPU time and memory, from /proc.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks at a memory that may still change, and at most in all.
const SETTLING: Duration = Duration::from_millis(250);
const SETTLED_AT_LAST: Duration = Duration::from_secs(4);

/// CPU time in seconds up to a moment; two of them tell what was used in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    machine: f64,
    proxy: f64,
    /// The origin, ourselves and the load generators that have ended.
    rest: f64,
}

impl Reading {
    pub(crate) fn take(proxy: &[u32], origin: &[u32]) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let machine = busy_ticks(&text).context("/proc/stat has no line for all CPUs")?;
        let ourselves = fs::read_to_string("/proc/self/stat").ok().and_then(|text| process_ticks(&text));
        let rest = used(origin) + ourselves.map_or(0, |ticks| ticks.own + ticks.ended_children);
        Ok(Self { at: Instant::now(), machine: seconds(machine), proxy: seconds(used(proxy)), rest: seconds(rest) })
    }

    /// CPU seconds of the whole machine since `earlier`.
    pub(crate) fn machine_since(&self, earlier: &Self) -> f64 {
        self.machine - earlier.machine
    }

    /// CPU seconds of the proxy since `earlier`.
    pub(crate) fn proxy_since(&self, earlier: &Self) -> f64 {
        self.proxy - earlier.proxy
    }

    /// The share of the machine that programs which have nothing to do with it took since `earlier`. What the kernel's
    /// own threads did for our packets is among it.
    pub(crate) fn others_since(&self, earlier: &Self) -> f64 {
        let ours = self.proxy - earlier.proxy + self.rest - earlier.rest;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let whole = (self.at - earlier.at).as_secs_f64() * f64::from(u32::try_from(processors).unwrap_or(1));
        ((self.machine_since(earlier) - ours) / whole).max(0.0)
    }
}

fn used(pids: &[u32]) -> u64 {
    let stat = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    pids.iter().filter_map(stat).filter_map(|text| process_ticks(&text)).map(|ticks| ticks.own).sum()
}

/// Resident memory of the processes in KiB.
pub(crate) fn resident_kib(pids: &[u32]) -> f64 {
    let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    pids.iter().filter_map(status).filter_map(|text| resident(&text)).sum()
}

/// The same once it has come to rest.
pub(crate) fn settled_kib(pids: &[u32]) -> f64 {
    let deadline = Instant::now() + SETTLED_AT_LAST;
    let mut last = resident_kib(pids);
    loop {
        thread::sleep(SETTLING);
        let now = resident_kib(pids);
        if (now - last).abs() < 1.0 || Instant::now() > deadline {
            return now;
        }
        last = now;
    }
}

/// user, nice, system, idle, iowait, irq, softirq, steal, ...; guest time is in user. Steal is somebody else's work.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else { return None };
    Some(user + nice + system + irq + softirq)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessTicks {
    own: u64,
    ended_children: u64,
}

/// utime, stime, cutime, cstime. The name before them may hold spaces and brackets.
fn process_ticks(stat: &str) -> Option<ProcessTicks> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[user, system, children_user, children_system] = ticks.as_slice() else { return None };
    Some(ProcessTicks { own: user + system, ended_children: children_user + children_system })
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn seconds(ticks: u64) -> f64 {
    // Exact up to 2^53 ticks, some millions of years.
    #[expect(clippy::cast_precision_loss, reason = "CPU times are far from 2^53 ticks")]
    let (ticks, per_second) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
    ticks / per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_neither_idle_nor_stolen() {
        let text = "cpu  100 20 300 4000 50 6 70 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 1\n";
        assert_eq!(busy_ticks(text), Some(100 + 20 + 300 + 6 + 70));
        assert_eq!(busy_ticks("cpu0 1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy_ticks("cpu  1 2 3\n"), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_times() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194304 500 0 1 0 77 23 5 6 20 0 3 0 100 200 300\n";
        assert_eq!(process_ticks(text), Some(ProcessTicks { own: 77 + 23, ended_children: 5 + 6 }));
        assert_eq!(process_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_found() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t1\n"), Some(12_345.0));
        assert_eq!(resident("Name:\tkthread\n"), None);
    }
}
