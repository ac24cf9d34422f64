//! The daemon's half of the control socket.
//!
//! Owns the socket file and the reading of requests; what they are answered with comes from [`Device`]. It runs on the
//! admin thread, so that a large answer never holds up a worker.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Device;
use super::error::ControlError;
use super::message::{Answer, Request};

/// The owner and its group may control the daemon, nobody else.
const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o755;
/// The largest request line, in bytes; every request of this protocol is far smaller.
const REQUEST_LINE_LIMIT: usize = 64 * 1024;
/// Operators asking at once; more than any number of shells, less than would cost descriptors that clients need.
const CONNECTIONS_LIMIT: usize = 64;
/// A control connection that says nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptor left), so that the loop does not spin until there is one again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    file: SocketFile,
    answering: Answering,
}

/// Requests that were read and whose answers are not out yet.
#[derive(Debug, Clone, Default)]
pub struct Answering(Arc<AtomicUsize>);

impl Answering {
    /// Whether every request has its answer, so that the daemon may end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    fn begin(&self) -> Owed {
        self.0.fetch_add(1, Ordering::Relaxed);
        Owed(self.clone())
    }
}

/// One of them, until it is dropped.
struct Owed(Answering);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

/// Binds the socket, replacing the file of a daemon that is gone.
pub fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
    let failed = |source| ControlError::Bind { path: path.to_owned(), source };
    make_directory(path)?;
    remove_stale(path)?;
    let listener = StdListener::bind(path).map_err(failed)?;
    let made = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(ControlSocket { listener, file, answering: Answering::default() })
}

/// Binds a socket beside the one at `path`, for a daemon that takes another's place: [`ControlSocket::take_place`] puts
/// it there.
pub fn bind_beside(path: &Path) -> Result<ControlSocket, ControlError> {
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(".new");
    bind(&beside)
}

impl ControlSocket {
    /// Moves the socket to `path` in one step; whoever connects there finds the one or the other.
    pub fn take_place(&mut self, path: &Path) -> Result<(), ControlError> {
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        fs::rename(self.path(), path).map_err(failed)?;
        self.file.path = path.to_owned();
        Ok(())
    }

    /// Gives the socket to the user that the daemon is about to become.
    ///
    /// # Errors
    ///
    /// When this process may not give files away.
    pub fn hand_to(&self, user: u32, group: u32) -> Result<(), ControlError> {
        let path = self.path();
        chown(path, Some(user), Some(group)).map_err(|source| ControlError::Bind { path: path.to_owned(), source })
    }

    /// To be asked before the daemon ends.
    #[must_use]
    pub fn answering(&self) -> Answering {
        self.answering.clone()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The file of a bound socket, known by its inode: a successor's file under the same name is not ours to remove.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours {
            // A user without rights on the directory leaves it; the next start replaces it.
            let _: io::Result<()> = fs::remove_file(&self.path);
        }
    }
}

fn make_directory(path: &Path) -> Result<(), ControlError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        .map_err(|source| ControlError::Directory { path: parent.to_owned(), source })
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |source| ControlError::Bind { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(_) => Err(ControlError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Answers requests for as long as it is polled. Needs a tokio runtime; the file goes when this future is dropped.
pub async fn serve(socket: ControlSocket, device: Arc<dyn Device>) -> Result<(), ControlError> {
    let ControlSocket { listener, file, answering } = socket;
    let listener =
        UnixListener::from_std(listener).map_err(|source| ControlError::Failed { path: file.path.clone(), source })?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_LIMIT));
    loop {
        // Never closed, so this only waits.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (device, answering) = (Arc::clone(&device), answering.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(stream, &device, &answering).await {
                        tracing::debug!("a control connection failed: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("the control socket takes no connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection: requests and answers in turn until the other side ends it.
async fn converse(stream: UnixStream, device: &Arc<dyn Device>, answering: &Answering) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    let mut line = Vec::new();
    loop {
        line.clear();
        let Ok(read) = timeout(IDLE_LIMIT, read_line(&mut reading, &mut line)).await else {
            return Ok(());
        };
        let read = read?;
        let _owed = answering.begin();
        let given = match read {
            LineRead::Whole => answered(&line, device).await,
            LineRead::TooLong => {
                let text = format!("a request line is at most {REQUEST_LINE_LIMIT} bytes long");
                send(&mut writing, &Answer::Refused(text)).await?;
                return Ok(());
            }
            LineRead::End => return Ok(()),
        };
        send(&mut writing, &given).await?;
    }
}

enum LineRead {
    Whole,
    TooLong,
    End,
}

async fn read_line(reading: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<LineRead> {
    let limit = REQUEST_LINE_LIMIT as u64 + 1;
    reading.take(limit).read_until(b'\n', line).await?;
    Ok(match line.last() {
        None => LineRead::End,
        Some(b'\n') => LineRead::Whole,
        Some(_) if line.len() > REQUEST_LINE_LIMIT => LineRead::TooLong,
        // The other side ended its last line by closing.
        Some(_) => LineRead::Whole,
    })
}

async fn answered(line: &[u8], device: &Arc<dyn Device>) -> Answer {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return Answer::Refused(format!(
                "this daemon (cmim {}) does not understand the request: {error}",
                env!("CARGO_PKG_VERSION")
            ));
        }
    };
    if !request.takes_time() {
        return answer(request, device.as_ref());
    }
    let device = Arc::clone(device);
    // Not on the thread that feeds the watchdog.
    let answering = tokio::task::spawn_blocking(move || answer(request, device.as_ref()));
    answering.await.unwrap_or_else(|error| Answer::Refused(format!("the daemon failed: {error}")))
}

fn answer(request: Request, device: &dyn Device) -> Answer {
    match request {
        Request::Status => Answer::Status(Box::new(device.status())),
        Request::Connections => Answer::Connections(device.connections()),
        Request::Servers => Answer::Servers(device.servers()),
        Request::ServerDraining { upstream, address, draining } => {
            if device.set_draining(&upstream, &address, draining) {
                let done = if draining { "takes no new requests" } else { "takes requests" };
                Answer::Changed(format!("{address} of {upstream} {done}"))
            } else {
                Answer::Refused(format!(
                    "no server {address:?} is in an upstream {upstream:?} (`cmim servers` lists those that are)"
                ))
            }
        }
        Request::Jobs => Answer::Jobs(device.jobs()),
        Request::JobCancel { id } if device.cancel_job(&id) => Answer::Changed(format!("job {id} is stopped")),
        Request::JobCancel { id } => {
            Answer::Refused(format!("no job {id:?} is in the device (`cmim jobs` lists those that are)"))
        }
        Request::Queues => Answer::Queues(device.queues()),
        Request::Buffers => Answer::Buffers(Box::new(device.buffers())),
        Request::DenyAdd { sources } => deny(&sources, device),
        Request::DenyRemove { sources } => allow(&sources, device),
        Request::DenyList => device
            .denied()
            .map_or_else(Answer::Refused, |denied| Answer::Denied(denied.iter().map(ToString::to_string).collect())),
        Request::Guard => device.guard().map_or_else(Answer::Refused, |guard| Answer::Guard(Box::new(guard))),
        Request::Splices => device.splices().map_or_else(Answer::Refused, Answer::Splices),
        Request::ConfigShow => Answer::ConfigShow(device.config_toml()),
        Request::ConfigFile => device.config_file().map_or_else(
            || Answer::Refused("the daemon runs from flags, not from a file".to_owned()),
            Answer::ConfigFile,
        ),
        Request::Reload => {
            device.reload().map_or_else(Answer::NotReloaded, |reloaded| Answer::Reloaded(Box::new(reloaded)))
        }
        Request::ServerAdd { upstream, server } => {
            let added = device.add_server(&upstream, &server);
            changed(added, || format!("{} is a server of {upstream}", server.address))
        }
        Request::ServerRemove { upstream, address } => {
            let removed = device.remove_server(&upstream, &address);
            changed(removed, || format!("{address} is no server of {upstream} any more"))
        }
        Request::Upgrade { binary } => device.upgrade(binary).map_or_else(Answer::Refused, Answer::Changed),
        Request::Drain => {
            device.drain();
            Answer::Changed("draining".to_owned())
        }
    }
}

fn changed(result: Result<(), String>, done: impl FnOnce() -> String) -> Answer {
    result.map_or_else(Answer::Refused, |()| Answer::Changed(done()))
}

fn deny(sources: &str, device: &dyn Device) -> Answer {
    let denied = network(sources).and_then(|network| device.deny(network).map(|()| network));
    denied.map_or_else(Answer::Refused, |network| Answer::Changed(format!("{network} is denied")))
}

fn allow(sources: &str, device: &dyn Device) -> Answer {
    match network(sources).and_then(|network| Ok((network, device.allow(network)?))) {
        Ok((network, true)) => Answer::Changed(format!("{network} is no longer denied")),
        Ok((network, false)) => {
            Answer::Refused(format!("{network} is not in the list (`cmim deny list` shows those that are)"))
        }
        Err(why) => Answer::Refused(why),
    }
}

/// An address alone is the network of that one address. Host bits do not matter: 203.0.113.7/24 says which hosts as well.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    network.map(|network| network.trunc()).ok_or_else(|| {
        format!("{text:?} is no address or network such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32")
    })
}

async fn send(writing: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writing.write_all(&line).await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::thread;

    use super::*;
    use crate::control::client::ask;
    use crate::control::message::{
        Buffers, Connection, Guard, Job, NewServer, Queue, Reloaded, Server, Splice, Status,
    };
    use crate::observe::counters::Totals;

    /// A device with one figure in each answer.
    #[derive(Default)]
    pub(crate) struct FakeDevice {
        pub(crate) draining: bool,
    }

    impl Device for FakeDevice {
        fn status(&self) -> Status {
            Status { version: "9.9.9".to_owned(), draining: self.draining, ..Status::default() }
        }

        fn totals(&self) -> Totals {
            Totals::default()
        }

        fn connections(&self) -> Vec<Connection> {
            vec![Connection { id: 7, ..Connection::default() }]
        }

        fn servers(&self) -> Vec<Server> {
            vec![Server { upstream: "app".to_owned(), ..Server::default() }]
        }

        fn set_draining(&self, upstream: &str, address: &str, _draining: bool) -> bool {
            upstream == "app" && address == "127.0.0.1:9001"
        }

        fn jobs(&self) -> Vec<Job> {
            vec![Job { id: "7.0".to_owned(), ..Job::default() }]
        }

        fn cancel_job(&self, id: &str) -> bool {
            id == "7.0"
        }

        fn buffers(&self) -> Buffers {
            Buffers::default()
        }

        fn splices(&self) -> Result<Vec<Splice>, String> {
            Ok(vec![Splice { id: 1, lane: "sockmap".to_owned(), ..Splice::default() }])
        }

        fn queues(&self) -> Vec<Queue> {
            vec![Queue { upstream: "app".to_owned(), ..Queue::default() }]
        }

        fn deny(&self, _: IpNet) -> Result<(), String> {
            Ok(())
        }

        fn allow(&self, sources: IpNet) -> Result<bool, String> {
            Ok(sources.prefix_len() == 24)
        }

        fn denied(&self) -> Result<Vec<IpNet>, String> {
            Ok(vec!["203.0.113.0/24".parse().expect("a literal of this test")])
        }

        fn guard(&self) -> Result<Guard, String> {
            Err("there is no kernel part running".to_owned())
        }

        fn config_toml(&self) -> String {
            "[daemon]\nworkers = 2\n".to_owned()
        }

        fn config_file(&self) -> Option<PathBuf> {
            None
        }

        fn reload(&self) -> Result<Reloaded, Vec<String>> {
            Err(vec!["one".to_owned(), "two".to_owned()])
        }

        fn add_server(&self, _: &str, server: &NewServer) -> Result<(), String> {
            if server.weight > 1 { Ok(()) } else { Err("it is there".to_owned()) }
        }

        fn remove_server(&self, _: &str, _: &str) -> Result<(), String> {
            Ok(())
        }

        fn drain(&self) {}

        fn upgrade(&self, _: Option<PathBuf>) -> Result<String, String> {
            Err("it does not start".to_owned())
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cmim-control-{}-{name}", std::process::id()));
        let _: io::Result<()> = fs::remove_dir_all(&dir);
        dir
    }

    /// A daemon on a thread of its own while `talk` runs.
    fn with_daemon(name: &str, talk: impl FnOnce(&Path)) {
        let dir = scratch(name);
        let path = dir.join("control.sock");
        let socket = bind(&path).expect("binds");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let daemon = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    ended = serve(socket, Arc::new(FakeDevice::default())) => ended.expect("serves"),
                    _ = stopped => {}
                }
            });
        });
        talk(&path);
        drop(stop);
        daemon.join().expect("the daemon ends");
        assert!(!path.exists(), "the socket file goes with the daemon");
        fs::remove_dir_all(dir).expect("removed");
    }

    fn raw(path: &Path, sent: &[u8]) -> String {
        let mut stream = StdStream::connect(path).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.write_all(sent).expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }

    #[test]
    fn each_request_gets_its_answer() {
        with_daemon("answers", |path| {
            let Ok(Answer::Status(status)) = ask(path, &Request::Status) else {
                panic!("no status");
            };
            assert_eq!(status.version, "9.9.9");
            let connections = ask(path, &Request::Connections).expect("an answer");
            assert!(matches!(connections, Answer::Connections(list) if list[0].id == 7));
            let servers = ask(path, &Request::Servers).expect("an answer");
            assert!(matches!(servers, Answer::Servers(list) if list[0].upstream == "app"));
            let config = ask(path, &Request::ConfigShow).expect("an answer");
            assert!(matches!(config, Answer::ConfigShow(text) if text.contains("workers = 2")));
        });
    }

    #[test]
    fn networks_are_denied_and_allowed_by_any_way_of_writing_them() {
        with_daemon("deny", |path| {
            let add = |sources: &str| ask(path, &Request::DenyAdd { sources: sources.to_owned() }).expect("an answer");
            for (sources, network) in [
                ("203.0.113.7", "203.0.113.7/32"),
                ("203.0.113.7/24", "203.0.113.0/24"),
                ("2001:db8::1", "2001:db8::1/128"),
            ] {
                assert_eq!(add(sources), Answer::Changed(format!("{network} is denied")));
            }
            assert!(
                matches!(add("example.org"), Answer::Refused(why) if why.contains("\"example.org\" is no address"))
            );
            let remove = |sources: &str| ask(path, &Request::DenyRemove { sources: sources.to_owned() });
            assert!(matches!(remove("10.0.0.0/24"), Ok(Answer::Changed(_))));
            assert!(matches!(remove("10.0.0.0/8"), Ok(Answer::Refused(why)) if why.contains("cmim deny list")));
            assert_eq!(
                ask(path, &Request::DenyList).expect("an answer"),
                Answer::Denied(vec!["203.0.113.0/24".to_owned()])
            );
            assert!(matches!(ask(path, &Request::Guard), Ok(Answer::Refused(_))));
        });
    }

    #[test]
    fn changes_are_made_or_refused_with_every_reason() {
        with_daemon("changes", |path| {
            let answer = |request| ask(path, &request).expect("an answer");
            assert_eq!(answer(Request::Reload), Answer::NotReloaded(vec!["one".to_owned(), "two".to_owned()]));
            assert!(matches!(answer(Request::ConfigFile), Answer::Refused(why) if why.contains("from flags")));
            let add = |weight| Request::ServerAdd {
                upstream: "app".to_owned(),
                server: NewServer { address: "127.0.0.1:1".to_owned(), weight, max_requests: 0, backup: false },
            };
            assert_eq!(answer(add(2)), Answer::Changed("127.0.0.1:1 is a server of app".to_owned()));
            assert_eq!(answer(add(1)), Answer::Refused("it is there".to_owned()));
            assert_eq!(answer(Request::Drain), Answer::Changed("draining".to_owned()));
        });
    }

    #[test]
    fn several_requests_go_over_one_connection() {
        with_daemon("several", |path| {
            let text = raw(path, b"{\"command\":\"servers\"}\n{\"command\":\"status\"}");
            let names: Vec<_> = text.lines().map(|line| &line[..9]).collect();
            assert_eq!(names, ["{\"servers", "{\"status\""]);
        });
    }

    #[test]
    fn garbage_is_refused_and_the_connection_goes_on() {
        with_daemon("garbage", |path| {
            let text = raw(path, b"GET / HTTP/1.1\n{\"command\":\"explode\"}\n{\"command\":\"status\"}\n");
            let lines: Vec<_> = text.lines().collect();
            assert!(lines[0].starts_with("{\"refused\":"), "{text}");
            assert!(lines[1].contains("explode"), "{text}");
            assert!(lines[2].starts_with("{\"status\""), "{text}");
        });
    }

    #[test]
    fn an_endless_line_is_refused_at_the_limit() {
        with_daemon("endless", |path| {
            let text = raw(path, &vec![b'x'; REQUEST_LINE_LIMIT + 1]);
            assert!(text.contains("at most 65536 bytes"), "{text}");
        });
    }

    #[test]
    fn a_living_daemon_is_not_replaced() {
        with_daemon("living", |path| {
            let error = bind(path).expect_err("refused");
            assert!(error.to_string().starts_with("another cmim answers at "), "{error}");
            assert!(ask(path, &Request::Status).is_ok(), "the first one goes on");
        });
    }

    #[test]
    fn a_successors_socket_takes_the_place_in_one_step() {
        let dir = scratch("place");
        let path = dir.join("control.sock");
        let old = bind(&path).expect("binds");
        let mut new = bind_beside(&path).expect("binds");
        new.take_place(&path).expect("moves");
        drop(old);
        assert!(StdStream::connect(&path).is_ok(), "the new one's stays and listens");
        drop(new);
        assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced() {
        let dir = scratch("stale");
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("control.sock");
        drop(StdListener::bind(&path).expect("binds"));
        assert!(path.exists(), "std leaves the file, as a killed daemon does");
        let socket = bind(&path).expect("replaces it");
        let mode = fs::metadata(&path).expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop(socket);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = scratch("file");
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("control.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind(&path), Err(ControlError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_successors_file_under_the_same_name_stays() {
        let dir = scratch("successor");
        let path = dir.join("control.sock");
        let old = bind(&path).expect("binds");
        fs::rename(&path, dir.join("old.sock")).expect("moved away");
        let new = bind(&path).expect("binds");
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
        fs::remove_dir_all(dir).expect("removed");
    }
}
