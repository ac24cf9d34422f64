//! The proof of a refusal: the right status, a closed connection, and a server that saw nothing.

use crate::deadline::PATIENCE;
use crate::origin::faulty::ok;
use crate::{Device, ScriptedServer};

/// Stands behind each refused request: would be a request of its own, were the connection still read.
const BEHIND: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// A request head with `fields` (whole lines) behind a plain start.
pub fn with_fields(method: &str, fields: &str) -> Vec<u8> {
    format!("{method} /refused HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes()
}

/// Sends each request on a connection of its own and holds the device to one of `statuses`, a closed connection and a
/// server that saw nothing.
#[track_caller]
pub fn assert_refused(statuses: &[u16], requests: &[Vec<u8>]) {
    let server = ScriptedServer::start(ok);
    let device = Device::before(&[server.address()]);
    let mut wrong = Vec::new();
    for request in requests {
        if let Err(fault) = refusal(&device, statuses, request) {
            wrong.push(format!("`{}`: {fault}", request.escape_ascii()));
        }
        let received = server.received().concat();
        if !received.is_empty() {
            wrong.push(format!("`{}`: reached the server: `{}`", request.escape_ascii(), received.escape_ascii()));
            break;
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
    // The device is unharmed, and nothing was held back to be sent later.
    assert_eq!(device.client().get("/good").status(), 200);
    let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/good"]);
}

fn refusal(device: &Device, statuses: &[u16], request: &[u8]) -> Result<(), String> {
    let mut client = device.client();
    client.send([request, BEHIND].concat());
    let reply = client.try_reply("GET").map_err(|error| error.to_string())?;
    if !statuses.contains(&reply.status()) {
        return Err(format!("status {}, not {statuses:?}", reply.status()));
    }
    if !reply.fields().lists("connection", "close") {
        return Err(format!("{} without `Connection: close`", reply.status()));
    }
    if !client.wire().ends(PATIENCE) {
        return Err(format!("{}, and then not closed: `{}`", reply.status(), client.wire().ahead().escape_ascii()));
    }
    Ok(())
}

/// One such head for each of `fields`.
pub fn heads(method: &str, fields: &[&str]) -> Vec<Vec<u8>> {
    fields.iter().map(|fields| with_fields(method, fields)).collect()
}

/// Requests as they stand.
pub fn raw(requests: &[&str]) -> Vec<Vec<u8>> {
    requests.iter().map(|request| request.as_bytes().to_vec()).collect()
}
