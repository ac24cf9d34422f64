//! VLAN devices on natively guarded interfaces. Their tags are the driver's to take off (`rx-vlan-offload`), before the
//! guard sees a frame; the guard must not answer such a frame, as its reply would have no tag.

use std::collections::BTreeMap;
use std::fmt;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use cmim_common::names;

use super::error::KernelError;
use super::maps::{ANY, take};

/// The VLAN devices of this thread's network namespace. There is no such file where there never was one.
const DEVICES: &str = "/proc/thread-self/net/vlan/config";

/// More devices than the kernel lets stand on one another (`MAX_NEST_DEV`).
const MOST_NESTED: u32 = 16;

/// What the guard knows of interfaces with VLAN devices on them.
pub(super) struct Links {
    map: HashMap<MapData, u32, u32>,
    told: BTreeMap<u32, u32>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Links {
    /// Takes the handle out of a loaded object.
    ///
    /// # Errors
    ///
    /// When the object and this binary do not belong together.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { map: take(ebpf, names::LINKS)?, told: BTreeMap::new() })
    }

    /// Looks which VLAN devices stand on these interfaces now.
    pub(super) fn look<'a>(&mut self, native: impl Iterator<Item = (&'a str, u32)>) {
        let devices = std::fs::read_to_string(DEVICES).unwrap_or_default();
        self.tell(native.map(|(name, index)| (index, deepest(&devices, name))).filter(|(_, deepest)| *deepest > 0));
    }

    /// Makes the guard know exactly these, by the interfaces' numbers.
    pub(super) fn tell(&mut self, links: impl Iterator<Item = (u32, u32)>) {
        let links: BTreeMap<u32, u32> = links.collect();
        for (index, deepest) in &links {
            if self.told.get(index) != Some(deepest)
                && let Err(error) = self.map.insert(index, deepest, ANY)
            {
                tracing::debug!("interface {index}: {error}");
            }
        }
        for index in self.told.keys().filter(|index| !links.contains_key(index)) {
            // It may never have come in.
            let _: Result<(), aya::maps::MapError> = self.map.remove(index);
        }
        self.told = links;
    }
}

/// How many VLAN devices stand on one another on an interface, at most. `devices`: a line each, `eth0.7 | 7 | eth0`, below
/// two that are none.
fn deepest(devices: &str, interface: &str) -> u32 {
    let device = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        Some((columns.next()?.to_owned(), columns.nth(1)?.to_owned()))
    };
    let stands_on: BTreeMap<String, String> = devices.lines().filter_map(device).collect();
    let depth = |device: &String| {
        let mut below = device;
        for depth in 1..=MOST_NESTED {
            below = stands_on.get(below)?;
            if below == interface {
                return Some(depth);
            }
        }
        None
    };
    stands_on.keys().filter_map(depth).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::deepest;

    const DEVICES: &str = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                           eth0.7         | 7  | eth0\nouter          | 100  | eth1\ninner          | 7  | outer\n";

    #[test]
    fn the_deepest_stack_of_vlan_devices_counts() {
        assert_eq!(deepest(DEVICES, "eth0"), 1);
        assert_eq!(deepest(DEVICES, "eth1"), 2);
        assert_eq!(deepest(DEVICES, "outer"), 1);
        for without in ["inner", "eth2", "Name-Type"] {
            assert_eq!(deepest(DEVICES, without), 0, "{without}");
        }
        assert_eq!(deepest("", "eth0"), 0);
    }

    #[test]
    fn devices_that_stand_on_themselves_end_nowhere() {
        assert_eq!(deepest("a | 1 | b\nb | 1 | a\n", "eth0"), 0);
    }
}
