//! The rare lines that the BPF programs write, on their way into the daemon's log.

use std::fmt;
use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;

/// The reading end of the programs' log. Hand it to one task: [`KernelLog::forward`].
pub struct KernelLog {
    lines: EbpfLogger<IntoTracing>,
}

impl fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelLog").finish_non_exhaustive()
    }
}

impl KernelLog {
    /// Takes the log's ring out of a loaded object. The ring must outlive the loading of the programs.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let lines = EbpfLogger::init_with_logger(ebpf, IntoTracing).map_err(|source| KernelError::Log { source })?;
        Ok(Self { lines })
    }

    /// Forwards lines as they come; sleeps in between. Returns only when the ring cannot be watched.
    ///
    /// # Errors
    ///
    /// When the runtime refuses the ring's descriptor.
    pub async fn forward(self) -> io::Result<()> {
        let mut ring = watch(self.lines)?;
        loop {
            let mut readable = ring.readable_mut().await?;
            readable.get_inner_mut().flush();
            readable.clear_ready();
        }
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor's life")]
fn watch(lines: EbpfLogger<IntoTracing>) -> io::Result<AsyncFd<EbpfLogger<IntoTracing>>> {
    // SAFETY: the logger owns the ring's descriptor, never changes it, and closes it when it is dropped, which the
    // AsyncFd does after it has deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(lines, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// aya-log speaks the `log` crate's language, the daemon `tracing`'s.
#[derive(Debug, Clone, Copy)]
struct IntoTracing;

impl log::Log for IntoTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(origin = "kernel", "{line}"),
            log::Level::Warn => tracing::warn!(origin = "kernel", "{line}"),
            log::Level::Info => tracing::info!(origin = "kernel", "{line}"),
            log::Level::Debug | log::Level::Trace => tracing::debug!(origin = "kernel", "{line}"),
        }
    }

    fn flush(&self) {}
}
