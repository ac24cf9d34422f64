//! The server before a device with one figure in each answer.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::thread;

use super::*;
use crate::control::client::ask;
use crate::control::message::{Buffers, Connection, Guard, Job, NewServer, Queue, Reloaded, Server, Splice, Status};
use crate::control::socket::bind;
use crate::control::socket::tests::scratch;
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
            ("::ffff:203.0.113.7", "203.0.113.7/32"),
            ("::ffff:203.0.113.7/104", "203.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(add(sources), Answer::Changed(format!("{network} is denied")));
        }
        assert!(matches!(add("example.org"), Answer::Refused(why) if why.contains("\"example.org\" is no address")));
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
