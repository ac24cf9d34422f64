//! The tour's lines about HTTP: each drives the device, then compares what the client got, what the server saw and what
//! the device says of itself.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::Found;
use super::client::{Client, Reply};
use crate::demo_servers::{BIG_PAGE, file, page};
use crate::device::Device;
use crate::progress::size;

/// Requests on one client connection.
const MANY: u64 = 100;
/// Clients that come one after the other, and requests of each.
const CLIENTS: u64 = 20;
const EACH: u64 = 10;
/// A server may take this long to be rid of a page that nobody reads.
const FREED_WITHIN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(2);

/// What is claimed, and what finds out whether it is true.
type Line = (&'static str, fn(&Device) -> Found);

pub(crate) const LINES: [Line; 6] = [
    ("the client's connection is kept while the server closes its own", kept),
    ("a reply that ends by closing leaves with Content-Length", length_found),
    ("a chunked reply leaves with Content-Length, too", dechunked),
    ("server connections are used again", reused),
    ("a slow client does not hold the server", slow_client),
    ("a request with two lengths is refused and reaches no server", refused),
];

fn kept(device: &Device) -> Found {
    let seen = &device.dynamic.seen;
    let (before, clients) = (seen.accepted(), figure(device, "/client_connections/accepted_total")?);
    let mut client = Client::connect(device.address)?;
    for number in 0..MANY {
        let path = format!("/page/{number}");
        let reply = client.get(&path)?;
        same(&reply, &page(&path).1, &path)?;
        ensure!(reply.length().is_some(), "{path} came without a length, so its end was the connection's end");
    }
    let accepted = figure(device, "/client_connections/accepted_total")? - clients;
    ensure!(accepted == 1, "the device accepted {accepted} client connections for {MANY} requests");
    within(FREED_WITHIN, "the dynamic server still has a connection", || seen.is_settled())?;
    let closed = seen.accepted() - before;
    ensure!(closed == MANY, "the server saw {closed} connections for {MANY} requests");
    Ok(vec![format!(
        "{MANY} requests over 1 client connection; the dynamic server closed {closed} connections meanwhile"
    )])
}

fn length_found(device: &Device) -> Found {
    let path = "/page/length";
    let direct = Client::connect(device.dynamic.address)?.get(path)?;
    ensure!(direct.length().is_none(), "the demo server gave a length itself");
    let through = Client::connect(device.address)?.get(path)?;
    same(&through, &direct.content, path)?;
    let Some(length) = through.length() else { bail!("no Content-Length in: {}", through.shown()) };
    ensure!(length == direct.content.len(), "Content-Length {length} for {} bytes", direct.content.len());
    Ok(vec![
        format!("server: {}", direct.shown()),
        format!("device: {}", through.shown()),
        format!("{length} bytes, the same from both"),
    ])
}

fn dechunked(device: &Device) -> Found {
    let direct = Client::connect(device.dynamic.address)?.get("/chunked")?;
    ensure!(direct.field("transfer-encoding").is_some(), "the demo server did not chunk");
    let through = Client::connect(device.address)?.get("/chunked")?;
    same(&through, &direct.content, "/chunked")?;
    ensure!(through.field("transfer-encoding").is_none(), "still chunked: {}", through.shown());
    let Some(length) = through.length() else { bail!("no Content-Length in: {}", through.shown()) };
    Ok(vec![format!("{length} bytes, the same as from the server; no Transfer-Encoding")])
}

fn reused(device: &Device) -> Found {
    let before = (figure(device, "/server_connections/reused_total")?, device.fixed.seen.accepted());
    for _ in 0..CLIENTS {
        let mut client = Client::connect(device.address)?;
        for _ in 0..EACH {
            let path = "/static/hello.txt";
            same(&client.get(path)?, &file(path).2, path)?;
        }
    }
    let requests = CLIENTS * EACH;
    let reused = figure(device, "/server_connections/reused_total")? - before.0;
    let opened = device.fixed.seen.accepted() - before.1;
    ensure!(
        opened + reused >= requests,
        "{requests} requests, but only {opened} connections opened and {reused} reuses counted"
    );
    ensure!(opened < CLIENTS, "the static server saw {opened} connections from {CLIENTS} clients");
    Ok(vec![format!(
        "{requests} requests of {CLIENTS} clients: the static server saw {opened} connection(s), used again {reused} times"
    )])
}

fn slow_client(device: &Device) -> Found {
    let seen = &device.dynamic.seen;
    within(FREED_WITHIN, "the dynamic server is still busy with an earlier page", || seen.is_settled())?;
    let replied = seen.replied();
    let mut client = Client::connect(device.address)?;
    let started = Instant::now();
    client.send("GET /big HTTP/1.1\r\nHost: demo\r\n\r\n")?;
    within(FREED_WITHIN, "the server is still busy with the page", || seen.replied() > replied && seen.is_settled())?;
    let freed = started.elapsed();
    let reply = client.read()?;
    same(&reply, &page("/big").1, "/big")?;
    let length = size(u64::try_from(BIG_PAGE)?);
    Ok(vec![format!(
        "the server was rid of {length} after {} ms, before the client read a byte; the client then read all of it",
        freed.as_millis()
    )])
}

fn refused(device: &Device) -> Found {
    let seen = (device.dynamic.seen.requests(), device.fixed.seen.requests());
    let mut client = Client::connect(device.address)?;
    client.send(
        "POST /page/x HTTP/1.1\r\nHost: demo\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )?;
    let reply = client.read()?;
    ensure!(reply.status() == "400", "answered with {}", reply.shown());
    let reached = seen != (device.dynamic.seen.requests(), device.fixed.seen.requests());
    ensure!(!reached, "refused, but a server saw it");
    // The next client is none the worse for it.
    let next = get(device.address, "/page/next")?;
    same(&next, &page("/page/next").1, "/page/next")?;
    Ok(vec![format!("device: {}", reply.shown())])
}

fn get(address: SocketAddr, path: &str) -> Result<Reply> {
    Client::connect(address)?.get(path)
}

fn same(reply: &Reply, content: &[u8], path: &str) -> Result<()> {
    ensure!(reply.status() == "200", "{path}: {}", reply.shown());
    let (got, wanted) = (reply.content.len(), content.len());
    ensure!(reply.content == content, "{path}: the content differs from the server's ({got} bytes for {wanted})");
    Ok(())
}

fn within(limit: Duration, otherwise: &str, holds: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !holds() {
        ensure!(started.elapsed() < limit, "{otherwise} after {} s", limit.as_secs());
        thread::sleep(POLL);
    }
    Ok(())
}

/// A figure of `cmim status --json`.
fn figure(device: &Device, pointer: &str) -> Result<u64> {
    let status = device.status()?;
    match status.pointer(pointer).and_then(Value::as_u64) {
        Some(figure) => Ok(figure),
        None => bail!("cmim status --json has no figure {pointer}"),
    }
}
