//! Whole exchanges: the device under callgrind, a client that asks one request after the other on one connection, and a
//! server that sends the same reply each time.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::callgrind;
use crate::measure::process::Process;

/// One exchange, as the server makes it.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) what: &'static str,
    /// What the device's reply must have as its content.
    length: usize,
    chunked: bool,
}

pub(super) const CASES: [Case; 2] = [
    Case { what: "exchange: 1 KB with a length, connections kept", length: 1024, chunked: false },
    Case { what: "exchange: 8 KB in chunks, held and given a length", length: 8192, chunked: true },
];

const FEW: u32 = 500;
const MANY: u32 = 2500;
/// Everything is slow there.
const PATIENCE: Duration = Duration::from_secs(60);
const CONFIGURATION: &str = "[daemon]
workers = 1
control_socket = \"@directory@/cmim.sock\"
shutdown_grace = \"1s\"
[kernel]
mode = \"off\"
[access_log]
path = \"off\"
[[listener]]
name = \"perf\"
address = [\"@listen@\"]
upstream = \"origin\"
[[upstream]]
name = \"origin\"
servers = [{ address = \"@server@\" }]
";

/// Instructions of one exchange.
pub(super) fn count(valgrind: &Path, device: &Path, case: &Case) -> Result<f64> {
    let directory = std::env::temp_dir().join(format!("cmim-perf-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let run = |number: u32| run(valgrind, device, case, number, &directory);
    let counted = run(FEW).and_then(|few| callgrind::difference((FEW, few), (MANY, run(MANY)?)));
    let _ = fs::remove_dir_all(&directory);
    counted
}

fn run(valgrind: &Path, device: &Path, case: &Case, number: u32, directory: &Path) -> Result<f64> {
    let server = serve(case.reply())?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let file = directory.join("cmim.toml");
    let text = CONFIGURATION
        .replace("@directory@", &directory.display().to_string())
        .replace("@listen@", &address.to_string())
        .replace("@server@", &server.to_string());
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let mut command = callgrind::command(valgrind);
    command.arg(device).args(["run", "--config"]).arg(&file);
    let mut process = Process::start(command, "cmim under valgrind", &directory.join("log"))?;
    process.wait_until(PATIENCE, || TcpStream::connect(address).is_ok())?;
    ask(address, case, number)?;
    let said = process.end(PATIENCE)?;
    callgrind::collected(&said).with_context(|| format!("valgrind told no count: {said}"))
}

impl Case {
    fn reply(&self) -> Vec<u8> {
        let content = vec![b'x'; self.length];
        let head = "HTTP/1.1 200 OK\r\nServer: perf\r\nContent-Type: text/html\r\n";
        if self.chunked {
            let begin = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", self.length);
            [begin.as_bytes(), &content, b"\r\n0\r\n\r\n"].concat()
        } else {
            [format!("{head}Content-Length: {}\r\n\r\n", self.length).as_bytes(), &content].concat()
        }
    }
}

/// Asks one after the other; every reply has the length that it must have.
fn ask(address: SocketAddr, case: &Case, number: u32) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut content = vec![0; case.length];
    let request = format!("GET /page HTTP/1.1\r\nHost: {address}\r\nUser-Agent: perf\r\nAccept: */*\r\n\r\n");
    for _ in 0..number {
        stream.write_all(request.as_bytes())?;
        let head = read_head(&mut reader)?.context("the device ended the connection")?;
        if !head.to_ascii_lowercase().contains(&format!("\r\ncontent-length: {}\r\n", case.length)) {
            bail!("WRONG REPLY: {head}");
        }
        reader.read_exact(&mut content)?;
    }
    Ok(())
}

/// A server that answers each request with the same bytes, on threads that end with this process.
fn serve(reply: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = reply.clone();
            // A device that went away is nothing to tell about.
            thread::spawn(move || drop(answer(&stream, &reply)));
        }
    });
    Ok(address)
}

fn answer(mut stream: &TcpStream, reply: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while read_head(&mut reader)?.is_some() {
        stream.write_all(reply)?;
    }
    Ok(())
}

/// A head with its last line's end; `None` where the connection ended.
fn read_head(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}
