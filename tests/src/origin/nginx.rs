//! nginx with a configuration of its own in a temporary directory.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::ports::Reserved;
use crate::process::Process;
use crate::skip;

#[derive(Debug)]
pub struct Nginx {
    port: Reserved,
    _process: Process,
    directory: TempDir,
}

impl Nginx {
    /// Serves [`Nginx::root`], with `extra` lines inside the `server` block.
    #[track_caller]
    pub fn start(extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().display();
        let port = Reserved::v4();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "daemon off; worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log; {user}\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log {at}/access.log; sendfile on; keepalive_requests 1000000; server_tokens on;\n\
             types {{ text/html html; text/plain txt; application/octet-stream bin; }}\n\
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen {}; root {at}/root;\n{extra}\n}} }}\n",
            port.address()
        );
        std::fs::create_dir(directory.path().join("root")).expect("a root");
        std::fs::write(directory.path().join("nginx.conf"), configuration).expect("a configuration");
        let mut command = Command::new(skip::find("nginx").expect("nginx"));
        command.arg("-p").arg(directory.path()).arg("-c").arg(directory.path().join("nginx.conf"));
        let mut process = Process::start("nginx", command.arg("-e").arg(directory.path().join("error.log")));
        process.wait_for(port.address());
        Self { port, _process: process, directory }
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("root")
    }

    pub fn put(&self, name: &str, content: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }
}
