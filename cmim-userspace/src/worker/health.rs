//! Active health checks: a GET to each server, on a connection of its own.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::model::{Config, Health, SendProxyProtocol, ServerAddress};
use crate::exchange::is_shortage;
use crate::exchange::upstream::SharedUpstream;
use crate::h1::{Limits, Method, ReplyParser};
use crate::net::{self, proxy_protocol};
use crate::upstream::Endpoint;

/// Checks the servers of `upstream` for ever; returns at once where its configuration has no `health`.
pub(super) async fn check(upstream: Arc<SharedUpstream>, config: Arc<Config>) {
    let Some(health) = upstream.model.health.clone() else { return };
    let mut tick = interval(health.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        for server in &upstream.model.servers {
            let endpoint = Endpoint::new(&server.address);
            let (health, config) = (health.clone(), Arc::clone(&config));
            let upstream = Arc::clone(&upstream);
            // Side by side: a server that does not answer must not delay the others' checks.
            tokio::spawn(async move {
                let announced = upstream.model.send_proxy_protocol;
                let well = match check_once(&endpoint.address, announced, health, config).await {
                    Ok(status) => (200..400).contains(&status),
                    // The device's own want says nothing about the server.
                    Err(error) if is_shortage(&error) => return,
                    Err(error) => {
                        tracing::debug!(server = %endpoint.name, "health check failed: {error}");
                        false
                    }
                };
                upstream.checked(&endpoint, well);
            });
        }
    }
}

/// The status of one check's reply.
async fn check_once(
    address: &ServerAddress,
    announced: SendProxyProtocol,
    health: Health,
    config: Arc<Config>,
) -> io::Result<u16> {
    let exchange = async {
        let mut stream = net::connect(address, health.timeout).await?;
        let mut buffer = BytesMut::new();
        match announced {
            SendProxyProtocol::Off => {}
            SendProxyProtocol::V1 => proxy_protocol::write_own_v1(&mut buffer),
            SendProxyProtocol::V2 => proxy_protocol::write_own_v2(&mut buffer),
        }
        let host = match address {
            ServerAddress::Tcp(address) => address.to_string(),
            ServerAddress::Unix(_) => "localhost".to_owned(),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: cmim-health\r\nConnection: close\r\n\r\n",
            health.path
        );
        buffer.extend_from_slice(request.as_bytes());
        stream.write_all(&buffer).await?;
        buffer.clear();
        let limits = Limits::of_reply(config.limits.reply_head);
        let mut parser = ReplyParser::new();
        loop {
            buffer.reserve(4096);
            // As `write_all` does, because this task may move between threads.
            let (own, read) = (&mut stream, &mut buffer);
            if std::future::poll_fn(move |cx| own.poll_read(cx, read)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let head = parser.parse(&mut buffer, &Method::Get, &limits).map_err(io::Error::other)?;
            if let Some(head) = head.filter(|head| !head.is_interim()) {
                return Ok(head.status);
            }
        }
    };
    timeout(health.timeout, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
