//! The admin address (`daemon.metrics_address`): `/metrics`, `/healthz`, `/readyz` and the status page.
//!
//! Owns the routes; every figure comes from [`Device`]. It runs on the admin thread and shares nothing with the data path
//! but the counters.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{metrics, page};
use crate::control::Device;

/// The page has no script and loads nothing.
const PAGE_POLICY: (HeaderName, &str) =
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
const NOT_STORED: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("daemon.metrics_address: cannot listen on {address}: {source} (another address, or leave the key out)")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the admin address failed: {source}")]
    Failed { source: io::Error },
}

/// Binds the admin address, so that a port in use is known before the daemon is ready.
pub fn bind(address: SocketAddr) -> Result<StdListener, AdminError> {
    let failed = |source| AdminError::Bind { address, source };
    let listener = StdListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves for as long as it is polled. Needs a tokio runtime.
pub async fn serve(listener: StdListener, device: Arc<dyn Device>) -> Result<(), AdminError> {
    let failed = |source| AdminError::Failed { source };
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    axum::serve(listener, routes(device)).await.map_err(failed)
}

fn routes(device: Arc<dyn Device>) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(device)
}

async fn status_page(State(device): State<Arc<dyn Device>>) -> impl IntoResponse {
    ([PAGE_POLICY, NOT_STORED], Html(page::html(&device.status())))
}

async fn metrics_text(State(device): State<Arc<dyn Device>>) -> impl IntoResponse {
    let text = metrics::text(&device.status(), &device.totals(), device.guard().ok().as_ref());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

/// That this answers at all is the sign of life.
async fn healthy() -> &'static str {
    "ok\n"
}

async fn ready(State(device): State<Arc<dyn Device>>) -> impl IntoResponse {
    if device.status().draining { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ready\n") }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread;

    use super::*;
    use crate::control::FakeDevice;

    /// The head and content of one reply.
    fn get_path(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a reply");
        let (head, content) = text.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), content.to_owned())
    }

    fn with_admin(device: FakeDevice, talk: impl FnOnce(SocketAddr)) {
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let admin = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    ended = serve(listener, Arc::new(device)) => ended.expect("serves"),
                    _ = stopped => {}
                }
            });
        });
        talk(address);
        drop(stop);
        admin.join().expect("ends");
    }

    #[test]
    fn metrics_health_and_page_are_served() {
        with_admin(FakeDevice::default(), |address| {
            let (head, content) = get_path(address, "/metrics");
            assert!(head.starts_with("HTTP/1.1 200") && head.contains("version=0.0.4"), "{head}");
            assert!(content.contains("cmim_info{version=\"9.9.9\"} 1"), "{content}");
            assert_eq!(get_path(address, "/healthz").1, "ok\n");
            assert!(get_path(address, "/readyz").0.starts_with("HTTP/1.1 200"));
            let (head, content) = get_path(address, "/");
            assert!(head.contains("text/html"), "{head}");
            assert!(content.contains("<h1>cmim 9.9.9</h1>"), "{content}");
            assert!(get_path(address, "/elsewhere").0.starts_with("HTTP/1.1 404"));
        });
    }

    #[test]
    fn a_draining_device_is_healthy_but_not_ready() {
        with_admin(FakeDevice { draining: true }, |address| {
            assert!(get_path(address, "/readyz").0.starts_with("HTTP/1.1 503"));
            assert!(get_path(address, "/healthz").0.starts_with("HTTP/1.1 200"));
        });
    }

    #[test]
    fn a_port_in_use_names_the_key() {
        let taken = StdListener::bind("127.0.0.1:0").expect("binds");
        let error = bind(taken.local_addr().expect("its address")).expect_err("taken");
        assert!(error.to_string().starts_with("daemon.metrics_address: cannot listen on 127.0.0.1:"), "{error}");
    }
}
