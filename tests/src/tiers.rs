//! A device whose file tiers lie on small file systems of the test's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::request;
use crate::deadline::until;
use crate::mounts::Tmpfs;
use crate::pattern::Pattern;
use crate::{Client, Device, Setup};

pub const MEBIBYTE: u64 = 1 << 20;

/// A flash and a disk tier, each on a file system of exactly its size.
#[derive(Debug)]
pub struct Tiers {
    pub flash: Tmpfs,
    pub disk: Tmpfs,
    sizes: [u64; 2],
}

impl Tiers {
    /// Sizes in bytes. To be called inside [`crate::mounts::in_own_mounts`].
    #[track_caller]
    pub fn new(flash: u64, disk: u64) -> Self {
        Self { flash: Tmpfs::new(flash), disk: Tmpfs::new(disk), sizes: [flash, disk] }
    }

    /// A device before `server` with these tiers and 8 MiB of RAM.
    pub fn before(&self, server: &str) -> Setup<'static> {
        let [flash, disk] = self.sizes;
        let tables = table("flash", self.flash.path(), flash) + &table("disk", self.disk.path(), disk);
        Setup::before(&[server]).buffer("memory = \"8MiB\"").tables(&tables)
    }

    /// The names in both directories.
    pub fn names(&self) -> Vec<PathBuf> {
        [self.flash.names(), self.disk.names()].concat()
    }

    /// Waits until the device and `df` say the same of both file systems, while nothing moves.
    #[track_caller]
    pub fn assert_agrees_with_df(&self, device: &Device, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let told = device.json(&["buffers"]);
            let df = [self.flash.used(), self.disk.used()];
            if [&told["flash"]["used"], &told["disk"]["used"]] == [&Value::from(df[0]), &Value::from(df[1])] {
                return;
            }
            assert!(Instant::now() < end, "df says {df:?}, the device {told}");
        }
    }

    /// Waits until nothing is held any more, neither by the device's word nor by that of the file systems.
    #[track_caller]
    pub fn assert_empty(&self, device: &Device, patience: Duration) {
        until("every tier is empty", patience, || {
            let told = device.json(&["buffers"]);
            ["memory", "flash", "disk"]
                .iter()
                .all(|tier| told[tier]["used"] == 0 && told[tier]["replies"] == 0)
                .then_some(())
        });
        self.assert_agrees_with_df(device, patience);
    }
}

/// The table of one tier.
pub fn table(kind: &str, path: &Path, size: u64) -> String {
    format!("[[buffer.tier]]\nkind = \"{kind}\"\npath = \"{}\"\nsize = {size}\n", path.display())
}

/// A client that takes a few kilobytes of `pattern` and no more until it is read from.
#[track_caller]
pub fn slow_client(device: &Device, pattern: Pattern, delimited: &str) -> Client {
    let mut client = Client::connect_slow(device.address(), 4096);
    client.send(request("GET", &pattern.target(delimited), "", b""));
    client
}

/// Reads on as fast as it goes.
pub fn hurry(client: &mut Client) {
    client.wire().socket().set_recv_buffer_size(1 << 20).expect("a receive buffer");
}

/// Why a tier is not used at the moment.
#[track_caller]
pub fn degraded(device: &Device, tier: &str) -> Option<String> {
    device.json(&["buffers"])[tier]["degraded"].as_str().map(str::to_owned)
}
