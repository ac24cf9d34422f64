//! The daemon's half of what is said over the control socket.
//!
//! Owns the reading of requests; what they are answered with comes from [`Device`]. It runs on the admin thread, so that
//! a large answer never holds up a worker.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Device;
use super::error::ControlError;
use super::message::{Answer, Request};
use super::socket::{Answering, ControlSocket};

/// The largest request line, in bytes; every request of this protocol is far smaller.
const REQUEST_LINE_LIMIT: usize = 64 * 1024;
/// Operators asking at once; more than any number of shells, less than would cost descriptors that clients need.
const CONNECTIONS_LIMIT: usize = 64;
/// A control connection that says nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptor left), so that the loop does not spin until there is one again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What of an IPv4 address in IPv6 comes before it, `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

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
/// An IPv4 network that is written as part of IPv6 (::ffff:203.0.113.0/120) is that IPv4 network, as packets have it.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    network.map(|network| unmapped(network.trunc())).ok_or_else(|| {
        format!("{text:?} is no address or network such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32")
    })
}

fn unmapped(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network)
}

async fn send(writing: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writing.write_all(&line).await
}

#[cfg(test)]
pub(crate) mod tests;
