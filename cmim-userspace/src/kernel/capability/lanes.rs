//! Which lanes a device with this `[kernel]` table has on this host, and why not.
//!
//! The two in the kernel are not asked for but tried, with maps and programs of their own of which nothing is left. A
//! lane that the table turns off is nothing amiss.

use cmim_common::local::LONGEST_HEAD;

use super::{Finding, NEED_RIGHTS, finding};
use crate::config::model::{Kernel, KernelMode, LocalBypass, SpliceMode};
use crate::kernel::error::KernelError;
use crate::kernel::local::Local;
use crate::kernel::maps::Maps;
use crate::kernel::{btf, load, loaded};

const SOCKMAP: &str = "tunnels in the kernel";
const LOCAL: &str = "servers on this host, past TCP";

const MODE_OFF: &str = "kernel.mode = \"off\"";

/// In the order in which `cmim status` has them.
pub(super) fn lanes(kernel: &Kernel, longest_head: usize, may_try: bool) -> [Finding; 4] {
    [
        good("copy", "always there (through the daemon's memory)".to_owned()),
        pipe(kernel.splice),
        sockmap(kernel, may_try),
        local(kernel, longest_head, may_try),
    ]
}

fn pipe(splice: SpliceMode) -> Finding {
    match splice {
        SpliceMode::Off => off("pipe", "kernel.splice = \"off\""),
        _ => good("pipe", "always there (long contents by splice(2))".to_owned()),
    }
}

fn sockmap(kernel: &Kernel, may_try: bool) -> Finding {
    let name = "sockmap";
    match (kernel.mode, kernel.splice) {
        (KernelMode::Off, _) => return off(name, MODE_OFF),
        (_, SpliceMode::Off) => return off(name, "kernel.splice = \"off\""),
        (_, SpliceMode::Pipe) => return off(name, "kernel.splice = \"pipe\""),
        (_, SpliceMode::Auto | SpliceMode::Sockmap) => {}
    }
    if !may_try {
        return not_tried(name, SOCKMAP);
    }
    // Bytes are carried between connections of this process's own.
    match loaded::try_sockmap(kernel) {
        Ok(()) => good(name, format!("carries, stops and ends as it should ({SOCKMAP})")),
        Err(error) => refused(name, &error, SOCKMAP),
    }
}

fn local(kernel: &Kernel, longest_head: usize, may_try: bool) -> Finding {
    let name = "local";
    if kernel.mode == KernelMode::Off {
        return off(name, MODE_OFF);
    }
    if kernel.local_bypass == LocalBypass::Off {
        return off(name, "kernel.local_bypass = \"off\"");
    }
    if longest_head > LONGEST_HEAD as usize {
        return off(name, &format!("limits.request_head is over {LONGEST_HEAD} bytes"));
    }
    if !may_try {
        return not_tried(name, LOCAL);
    }
    match try_local(kernel.local_bypass) {
        Ok(Trial::Taken) => good(name, format!("passed its trial ({LOCAL})")),
        Ok(Trial::NotFaster) => {
            good(name, "off: it works, but TCP is as fast here (kernel.local_bypass = \"on\" takes it)".to_owned())
        }
        Err(error) => refused(name, &error, LOCAL),
    }
}

/// What the local lane's trial leads to.
enum Trial {
    Taken,
    /// With `auto` it is left out then.
    NotFaster,
}

/// A short connection of this process to itself; other connections of the host are not touched.
fn try_local(wanted: LocalBypass) -> Result<Trial, KernelError> {
    let mut ebpf = load::object(false, btf::socket_layout()?)?;
    let maps = Maps::take(&mut ebpf)?;
    let mut local = Local::take(&mut ebpf)?;
    local.turn_on(&mut ebpf, &maps, wanted)?;
    Ok(if local.cgroup().is_some() { Trial::Taken } else { Trial::NotFaster })
}

fn good(name: &str, detail: String) -> Finding {
    finding(name, "lane", true, detail, "")
}

/// The operator wants it so.
fn off(name: &str, why: &str) -> Finding {
    good(name, format!("off: {why}"))
}

fn not_tried(name: &str, purpose: &str) -> Finding {
    finding(name, "lane", false, format!("not tried ({purpose})"), NEED_RIGHTS)
}

fn refused(name: &str, error: &KernelError, purpose: &str) -> Finding {
    let way_out = error.way_out().unwrap_or_default();
    finding(name, "lane", false, format!("{} ({purpose})", error.told()), &way_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::settings;

    const HEAD: usize = 32 << 10;

    /// As a user finds them who may not try any.
    fn untried(mode: KernelMode, splice: SpliceMode, local_bypass: LocalBypass) -> [Finding; 4] {
        lanes(&Kernel { splice, local_bypass, ..settings(mode, "/sys/fs/bpf/cmim".into(), &[]) }, HEAD, false)
    }

    #[test]
    fn what_the_table_turns_off_is_said_and_nothing_amiss() {
        for (mode, splice, bypass, off) in [
            (KernelMode::Auto, SpliceMode::Off, LocalBypass::Auto, &[("pipe", "splice"), ("sockmap", "splice")][..]),
            (KernelMode::Auto, SpliceMode::Pipe, LocalBypass::Auto, &[("sockmap", "splice")]),
            (KernelMode::Required, SpliceMode::Auto, LocalBypass::Off, &[("local", "local_bypass")]),
            (KernelMode::Off, SpliceMode::Auto, LocalBypass::On, &[("sockmap", "mode"), ("local", "mode")]),
        ] {
            let lanes = untried(mode, splice, bypass);
            let said: Vec<(&str, &str)> = lanes
                .iter()
                .filter(|lane| lane.ok)
                .filter_map(|lane| {
                    let key = lane.detail.strip_prefix("off: kernel.")?.split(' ').next()?;
                    Some((lane.name.as_str(), key))
                })
                .collect();
            assert_eq!(said, off, "{lanes:?}");
        }
    }

    #[test]
    fn heads_that_the_local_lane_cannot_take_keep_it_off() {
        let kernel = Kernel { local_bypass: LocalBypass::On, ..settings(KernelMode::Auto, "/sys".into(), &[]) };
        let [.., local] = lanes(&kernel, 41 << 10, false);
        assert_eq!((local.ok, local.detail.as_str()), (true, "off: limits.request_head is over 40960 bytes"));
    }

    #[test]
    fn a_lane_that_may_not_be_tried_is_missing_and_the_others_are_there() {
        let lanes = untried(KernelMode::Auto, SpliceMode::Auto, LocalBypass::Auto);
        let told = lanes.each_ref().map(|lane| (lane.name.as_str(), lane.ok));
        assert_eq!(told, [("copy", true), ("pipe", true), ("sockmap", false), ("local", false)]);
        assert!(lanes.iter().all(|lane| lane.ok || lane.way_out.as_deref() == Some(NEED_RIGHTS)), "{lanes:?}");
    }
}
