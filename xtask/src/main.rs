//! `cargo xtask`: the front door. One file per task; each installs or builds what it needs itself.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod attack;
mod build;
mod command;
mod deb;
mod demo;
mod demo_servers;
mod device;
mod install;
mod lint;
mod measure;
mod progress;
mod project;
mod run;
mod setup;
mod test;

use progress::{Mark, painted};
use project::Project;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, shows, tests and installs cmim")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find what a build needs, install what is missing
    Setup(setup::Options),
    /// Build the BPF object and the `cmim` binary with it inside
    Build(build::Options),
    /// Build and run `cmim run ARGS`; without ARGS before two demo servers
    Run(run::Options),
    /// Run the device before two demo servers and show what it does
    Demo(demo::Options),
    /// Run everything that checks: format, clippy, architecture, unit tests, device tests
    Test(test::Options),
    /// Attack the device in earnest: what the suite does in seconds, at full scale
    Attack(attack::Options),
    /// Measure the device beside HAProxy and nginx
    Bench(measure::Options),
    /// Check format, clippy and architecture; or count instructions
    Lint(lint::Options),
    /// Install the binary, its configuration, systemd unit, man pages and completions
    Install(install::Options),
    /// Make a Debian package of what install writes
    Deb,
    /// Remove what install wrote; a changed configuration stays
    Uninstall(install::Options),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", painted(Mark::Bad, "error:"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    let project = Project::find()?;
    match task {
        Task::Setup(options) => setup::run(&project, &options)?,
        Task::Install(options) => install::install(&project, &options)?,
        Task::Deb => deb::run(&project)?,
        Task::Uninstall(options) => install::uninstall(&options)?,
        Task::Build(options) => build::run(&project, &options)?,
        Task::Run(options) => return run::run(&project, &options),
        Task::Demo(options) => return demo::run(&project, &options),
        Task::Test(options) => return test::run(&project, &options),
        Task::Attack(options) => return attack::run(&project, &options),
        Task::Bench(options) => return measure::run(&project, &options),
        Task::Lint(options) => return lint::run(&project, &options),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_nothing() {
        super::Arguments::command().debug_assert();
    }
}
