//! What the machine has used of its CPUs, and who: the proxy, the origin, the load generator, the kernel's own threads,
//! programs that have nothing to do with it. And what memory the proxy has. All from /proc.
//!
//! Two accounts meet here. The machine's is user, nice, system, irq and softirq of /proc/stat. Each program's is what the
//! scheduler ran it, with the interrupts that came in its time. What is left between the two is work on packets while no
//! program ran: it belongs to the requests as well, and is told apart so that the parts can be seen to add up.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::results::{Better, Metric};

/// Between two looks at a memory that may still change, and at most in all.
const SETTLING: Duration = Duration::from_millis(250);
const SETTLED_AT_LAST: Duration = Duration::from_secs(4);
const MICRO: f64 = 1_000_000.0;
/// In a process's flags: a thread of the kernel's own.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The names that the report's targets look for.
pub(crate) const MACHINE: &str = "machine's CPU per request";
pub(crate) const PROXY: &str = "proxy's CPU per request";

/// CPU time in seconds up to a moment; two of them tell what was used in between.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    at: Instant,
    machine: f64,
    proxy: f64,
    origin: f64,
    load: f64,
    kernel: KernelThreads,
    programs: f64,
}

/// Ticks by process id: such a thread may end, and hands its time to nobody.
type KernelThreads = HashMap<u32, u64>;

/// CPU seconds between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) machine: f64,
    pub(crate) proxy: f64,
    pub(crate) origin: f64,
    /// This program and the generators that it ran.
    pub(crate) load: f64,
    /// ksoftirqd and the like.
    pub(crate) kernel: f64,
    /// Programs that have nothing to do with it.
    pub(crate) others: f64,
    /// Of all CPUs together.
    pub(crate) whole: f64,
}

impl Reading {
    pub(crate) fn take(proxy: &[u32], origin: &[u32]) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let machine = busy_ticks(&text).context("/proc/stat has no line for all CPUs")?;
        let at = Instant::now();
        let (kernel, programs) = everybody()?;
        Ok(Self {
            at,
            machine: seconds(machine),
            proxy: seconds(used(proxy)),
            origin: seconds(used(origin)),
            load: seconds(used(&[std::process::id()])),
            kernel,
            programs: seconds(programs),
        })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let (proxy, origin, load) =
            (self.proxy - earlier.proxy, self.origin - earlier.origin, self.load - earlier.load);
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let whole = (self.at - earlier.at).as_secs_f64() * f64::from(u32::try_from(processors).unwrap_or(1));
        Used {
            machine: self.machine - earlier.machine,
            proxy,
            origin,
            load,
            kernel: seconds(grown(&earlier.kernel, &self.kernel)),
            others: (self.programs - earlier.programs - proxy - origin - load).max(0.0),
            whole,
        }
    }
}

impl Used {
    /// What it cost: all that the machine did but for other programs.
    pub(crate) fn ours(&self) -> f64 {
        (self.machine - self.others).max(0.0)
    }

    /// What no program and no thread of the kernel's was charged with: interrupts while nothing ran, and the error of
    /// the sampling, so that it can be a little below nothing.
    pub(crate) fn outside(&self) -> f64 {
        self.ours() - self.proxy - self.origin - self.load - self.kernel
    }

    /// The rows of [`metrics`] for so many requests. The direct path has no proxy.
    pub(crate) fn row(&self, requests: f64, direct: bool) -> Vec<Option<f64>> {
        let each = |value: f64| Some(value * MICRO / requests);
        vec![
            each(self.ours()),
            each(self.proxy).filter(|_| !direct),
            each(self.load),
            each(self.origin),
            each(self.kernel),
            each(self.outside()),
            Some(self.others * 100.0 / self.whole),
        ]
    }
}

/// What a measurement under load tells about CPUs.
pub(crate) fn metrics() -> Vec<Metric> {
    vec![
        Metric::new(MACHINE, "µs", Better::Lower),
        Metric::new(PROXY, "µs", Better::Lower),
        Metric::new("of the machine's: load generator", "µs", Better::Neither),
        Metric::new("of the machine's: origin", "µs", Better::Neither),
        Metric::new("of the machine's: kernel threads", "µs", Better::Neither),
        Metric::new("of the machine's: interrupts in no program", "µs", Better::Neither),
        Metric::new("other programs, not counted", "% of the machine", Better::Neither),
    ]
}

/// What these processes used, with their children that have ended.
fn used(pids: &[u32]) -> u64 {
    let stat = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    pids.iter().filter_map(stat).filter_map(|text| ProcessTicks::find(&text)).map(ProcessTicks::all).sum()
}

/// What the kernel's threads and all programs used. A program that ends hands its times to its parent, so that the sum
/// is kept.
fn everybody() -> Result<(KernelThreads, u64)> {
    let (mut kernel, mut programs) = (KernelThreads::new(), 0);
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some(ticks) = ProcessTicks::find(&text) else { continue };
        if ticks.kernel {
            kernel.insert(pid, ticks.all());
        } else {
            programs += ticks.all();
        }
    }
    Ok((kernel, programs))
}

/// What those that are still there have used since.
fn grown(earlier: &KernelThreads, now: &KernelThreads) -> u64 {
    now.iter().map(|(pid, ticks)| ticks.saturating_sub(earlier.get(pid).copied().unwrap_or(0))).sum()
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
    kernel: bool,
    own: u64,
    ended_children: u64,
}

impl ProcessTicks {
    /// flags, and utime, stime, cutime, cstime. The name before them may hold spaces and brackets.
    fn find(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let flags: u64 = fields.nth(6)?.parse().ok()?;
        let ticks: Vec<u64> = fields.skip(4).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
        let &[user, system, children_user, children_system] = ticks.as_slice() else { return None };
        Some(Self {
            kernel: flags & PF_KTHREAD != 0,
            own: user + system,
            ended_children: children_user + children_system,
        })
    }

    fn all(self) -> u64 {
        self.own + self.ended_children
    }
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
    use rustix::time::{ClockId, clock_gettime};

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
        let expected = ProcessTicks { kernel: false, own: 77 + 23, ended_children: 5 + 6 };
        assert_eq!(ProcessTicks::find(text), Some(expected));
        let kernel = "14 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 12 0 0 20 0 1 0 4 0 0\n";
        let expected = ProcessTicks { kernel: true, own: 12, ended_children: 0 };
        assert_eq!(ProcessTicks::find(kernel), Some(expected));
        assert_eq!(ProcessTicks::find("42 (a) S 1"), None);
    }

    #[test]
    fn a_kernel_thread_that_ended_takes_nothing_back() {
        let (earlier, now) = (KernelThreads::from([(14, 10), (20, 500)]), KernelThreads::from([(14, 13), (21, 2)]));
        assert_eq!(grown(&earlier, &now), 3 + 2);
    }

    #[test]
    fn resident_memory_is_found() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t1\n"), Some(12_345.0));
        assert_eq!(resident("Name:\tkthread\n"), None);
    }

    /// A known load: what this thread burns by its own clock is what the meter charges to this program, and the machine
    /// was busy at least so long. Other tests may run beside it, in this program and others: they only add.
    #[test]
    fn a_known_load_is_found_again() -> Result<()> {
        const LOAD: f64 = 0.5;
        let own_clock = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
                .as_secs_f64()
        };
        let before = Reading::take(&[], &[])?;
        let start = own_clock();
        while own_clock() - start < LOAD {
            std::hint::spin_loop();
        }
        let used = Reading::take(&[], &[])?.since(&before);
        // Two readings, each to the hundredth of a second; the machine's by samples.
        assert!(used.load > LOAD - 0.03, "{used:?}");
        assert!(used.ours() > LOAD * 0.9 - 0.03, "{used:?}");
        let parts = used.proxy + used.origin + used.load + used.kernel + used.outside() + used.others;
        assert!((parts - used.machine.max(used.others)).abs() < 0.01, "{used:?}");
        Ok(())
    }
}
