//! `cmim run`: the daemon.

use std::path::PathBuf;

use super::CliError;
use crate::config::{self, Quick, Source};
use crate::worker;

/// Read when neither a file nor flags are given.
pub(super) const DEFAULT_FILE: &str = "/etc/cmim/cmim.toml";

const EXAMPLES: &str = "\
Examples:
  cmim run
  cmim run --config ./cmim.toml
  cmim run --listen 127.0.0.1:8080 --server 127.0.0.1:9001 --server unix:/run/app.sock
  cmim run --listen '[::]:8080' --server 10.0.0.11:8080 --kernel off --set upstream.hold_time=5s

SIGTERM and SIGINT drain and end it; SIGHUP reads the file again, as cmim reload
does, and opens the access log anew.";

/// Run the daemon in the foreground, from a file or, without one, from flags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file [default: /etc/cmim/cmim.toml]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "servers", "kernel", "workers", "pin_dir", "interfaces", "access_log", "set"])]
    config: Option<PathBuf>,

    /// Listen here, such as 127.0.0.1:8080 or [::]:80; may be repeated
    #[arg(long, value_name = "ADDRESS", requires = "servers")]
    listen: Vec<String>,

    /// Send requests to this server, such as 127.0.0.1:9001 or unix:/run/app.sock; may be repeated
    #[arg(long = "server", value_name = "ADDRESS", requires = "listen")]
    servers: Vec<String>,

    /// The kernel part: auto, required or off
    #[arg(long, value_name = "MODE", requires = "listen")]
    kernel: Option<String>,

    /// Event loops: a number, or auto for one per CPU
    #[arg(long, value_name = "N", requires = "listen")]
    workers: Option<String>,

    /// Where BPF maps are pinned
    #[arg(long, value_name = "DIR", requires = "listen")]
    pin_dir: Option<PathBuf>,

    /// Attach the XDP guard to this interface; may be repeated
    #[arg(long = "interface", value_name = "NAME", requires = "listen")]
    interfaces: Vec<String>,

    /// A file, stdout or off
    #[arg(long, value_name = "PATH", requires = "listen")]
    access_log: Option<String>,

    /// Any key of the configuration file, such as timeouts.client_idle=30s; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "listen")]
    set: Vec<String>,
}

pub(super) fn execute(args: Args, control: Option<PathBuf>) -> Result<(), CliError> {
    if args.listen.is_empty() {
        let file = args.config.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let source = Source::new(&file, control.as_deref()).map_err(|errors| {
            worker::tell_predecessor(&errors);
            CliError::Flags(errors)
        })?;
        let config = source.load().map_err(|errors| {
            worker::tell_predecessor(&errors);
            CliError::File(errors)
        })?;
        worker::run(config, Some(source))?;
    } else {
        let config = config::quick(&quick(args, control)).map_err(CliError::Flags)?;
        worker::run(config, None)?;
    }
    Ok(())
}

fn quick(args: Args, control: Option<PathBuf>) -> Quick {
    Quick {
        listen: args.listen,
        servers: args.servers,
        kernel: args.kernel,
        workers: args.workers,
        control,
        pin_dir: args.pin_dir,
        interfaces: args.interfaces,
        access_log: args.access_log,
        set: args.set,
    }
}
