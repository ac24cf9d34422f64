//! The command's half of the control socket: one request, one answer, no runtime.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::error::ControlError;
use super::message::{Answer, Request};

/// A daemon answers within milliseconds; one that takes longer than this is stopped or stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// One that resolves host names or starts another process may take this long.
const LONG_ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Asks the daemon at `path`. A refusal is an answer, not an error of this function.
pub fn ask(path: &Path, request: &Request) -> Result<Answer, ControlError> {
    let mut stream = UnixStream::connect(path).map_err(|error| unreachable_socket(path, error))?;
    let limit = if request.takes_time() { LONG_ANSWER_LIMIT } else { ANSWER_LIMIT };
    let failed = |error| failed_exchange(path, limit, error);
    stream.set_read_timeout(Some(limit)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(failed)?;

    let mut line =
        serde_json::to_vec(request).map_err(|source| ControlError::Garbled { path: path.to_owned(), source })?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;

    line.clear();
    BufReader::new(stream).read_until(b'\n', &mut line).map_err(failed)?;
    if line.is_empty() {
        return Err(ControlError::NoAnswer { path: path.to_owned() });
    }
    serde_json::from_slice(&line).map_err(|source| ControlError::Garbled { path: path.to_owned(), source })
}

fn unreachable_socket(path: &Path, source: io::Error) -> ControlError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NoDaemon { path, source },
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed { path, source },
        _ => ControlError::Failed { path, source },
    }
}

fn failed_exchange(path: &Path, limit: Duration, source: io::Error) -> ControlError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::TimedOut { path, seconds: limit.as_secs() }
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::NoAnswer { path },
        _ => ControlError::Failed { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::{fs, thread};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cmim-ask-{}-{name}", std::process::id()));
        let _: io::Result<()> = fs::remove_file(&path);
        path
    }

    #[test]
    fn no_daemon_says_so_and_gives_the_way_out() {
        let path = scratch("none");
        let error = ask(&path, &Request::Status).expect_err("nobody there");
        assert_eq!(
            error.to_string(),
            format!("no daemon answers at {} (is it running? --control names another socket)", path.display())
        );
    }

    #[test]
    fn an_answer_of_another_kind_of_program_is_not_an_answer() {
        let path = scratch("foreign");
        let listener = UnixListener::bind(&path).expect("binds");
        let foreign = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            stream.write_all(b"220 ready\n").expect("sent");
        });
        let error = ask(&path, &Request::Status).expect_err("not an answer");
        assert!(matches!(error, ControlError::Garbled { .. } | ControlError::NoAnswer { .. }), "{error}");
        foreign.join().expect("ends");
        fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_daemon_that_closes_gave_no_answer() {
        let path = scratch("closes");
        let listener = UnixListener::bind(&path).expect("binds");
        let closing = thread::spawn(move || drop(listener.accept()));
        let error = ask(&path, &Request::Status).expect_err("no answer");
        assert!(matches!(error, ControlError::NoAnswer { .. }), "{error}");
        closing.join().expect("ends");
        fs::remove_file(path).expect("removed");
    }
}
