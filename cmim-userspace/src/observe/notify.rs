//! What systemd is told: `Type=notify` readiness and the watchdog.
//!
//! Outside systemd (no `NOTIFY_SOCKET`) every call does nothing. A failed message is logged and never stops the daemon.

use std::time::Duration;

use sd_notify::NotifyState;

/// The device accepts connections.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Another process is the daemon from now on. To be said by the one that was.
pub fn handed_over(to: u32) {
    send(&[NotifyState::MainPid(to)]);
}

/// The device has begun to drain.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The device is alive; to be sent every [`watchdog_interval`].
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] is to be called: half of the time after which systemd kills, as sd_watchdog_enabled(3) advises.
/// `None`: systemd does not watch this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd was not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::{env, fs};

    use super::*;

    /// Run by the tests below in a process of its own, because the environment belongs to the whole process.
    #[test]
    #[ignore = "a part of the other tests, which set its environment"]
    fn as_a_service() {
        if let Some(interval) = watchdog_interval() {
            assert_eq!(interval, Duration::from_secs(2));
            watchdog();
        }
        ready();
        stopping();
    }

    fn service() -> Command {
        let mut command = Command::new(env::current_exe().expect("this binary"));
        command.args(["--ignored", "--exact", "observe::notify::tests::as_a_service"]);
        command.env_remove("WATCHDOG_PID");
        command
    }

    #[test]
    fn systemd_hears_each_message_in_order() {
        let path = env::temp_dir().join(format!("cmim-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).expect("binds");
        let passed = service().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "4000000").output().expect("runs");
        assert!(passed.status.success(), "{passed:?}");
        manager.set_nonblocking(true).expect("non-blocking");
        for expected in ["WATCHDOG=1\n", "READY=1\n", "STOPPING=1\n"] {
            let mut heard = [0; 64];
            let length = manager.recv(&mut heard).expect("a message");
            assert_eq!(&heard[..length], expected.as_bytes());
        }
        fs::remove_file(path).expect("removed");
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let passed = service().env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").output().expect("runs");
        assert!(passed.status.success(), "{passed:?}");
    }
}
