//! `cargo xtask demo`: runs the device before the demo servers, drives it over raw sockets and says, line by line, what
//! it did. Each line is "ok" or "FAILED" by what both sides of the device really saw.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::build::{self, build};
use crate::device::Device;
use crate::progress::{Mark, painted};
use crate::project::Project;
use crate::run::Interrupt;
use crate::setup;

pub(crate) mod client;
mod kernel;
mod tour;

use kernel::Before;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    build: build::Options,
    /// End after the tour; exit code 0 only if every line held
    #[arg(long)]
    once: bool,
}

/// What a line of the tour found: what to show, or what was wrong.
pub(crate) type Found = Result<Vec<String>>;

pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let binary = build(project, &options.build)?;
    setup::mount_bpffs();
    let interrupt = Interrupt::listen()?;
    let before = Before::look();
    let mut device = Device::start(&binary, "off")?;
    println!();
    println!("cmim listens on {}; behind it", device.address);
    println!("  a static server on {} (lengths known, keeps connections) for /static/", device.fixed.address);
    println!("  a dynamic server on {} (no lengths, closes after each reply) for the rest", device.dynamic.address);
    println!();
    let mut lines = Lines::default();
    for (claim, check) in tour::LINES {
        lines.show(claim, check(&device));
    }
    let in_kernel = kernel::loaded(&device, &before);
    let kept = in_kernel.as_ref().map(|(kept, _)| kept.clone()).unwrap_or_default();
    lines.show("the kernel part", in_kernel.map(|(_, shown)| shown));
    if !options.once {
        by_hand(&binary.display().to_string(), &device);
        interrupt.wait(&mut device)?;
    }
    let ended = device.stop();
    lines.show("nothing left after its end", ended.and_then(|status| kernel::gone(&device, &kept, status)));
    println!();
    println!("{} of {} lines held", lines.held, lines.all);
    Ok(if lines.held == lines.all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default)]
struct Lines {
    all: usize,
    held: usize,
}

impl Lines {
    fn show(&mut self, claim: &str, found: Found) {
        self.all += 1;
        let (mark, word, shown) = match found {
            Ok(shown) => {
                self.held += 1;
                (Mark::Good, "ok    ", shown)
            }
            Err(error) => (Mark::Bad, "FAILED", vec![format!("{error:#}")]),
        };
        println!("{}  {claim}", painted(mark, word));
        for line in shown {
            println!("          {line}");
        }
    }
}

fn by_hand(binary: &str, device: &Device) {
    let (address, control) = (device.address, device.control.display());
    println!();
    println!("It stays up. Try by hand, and end it with Ctrl-C:");
    println!("  curl -v http://{address}/page/1 http://{address}/page/2     the dynamic server, on one connection");
    println!("  curl -v http://{address}/static/hello.txt                   the static server");
    println!("  curl -sv http://{address}/big -o /dev/null                  6 MiB without a length, sent with one");
    println!("  {binary} status --control {control}");
    println!("  {binary} connections --control {control}");
    println!("  its configuration: {}", device.configuration().display());
    println!();
}
