//! PHP's built-in server: one process, one request at a time, closes after each reply, gives dynamic pages no length.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::ports::Reserved;
use crate::process::Process;
use crate::skip;

/// `?bytes=N` bytes of a fixed pattern.
const PAGE: &str = r#"<?php
header('X-Page: dynamic');
$bytes = (int)($_GET['bytes'] ?? 0);
echo substr(str_repeat('0123456789abcdef', intdiv($bytes, 16) + 1), 0, $bytes);
"#;

/// `?parts=N` parts, each flushed on its own.
const FLUSHED: &str = r#"<?php
while (ob_get_level() > 0) { ob_end_flush(); }
for ($i = 0; $i < (int)($_GET['parts'] ?? 0); $i++) {
    echo "part $i\n";
    flush();
    usleep(1000);
}
"#;

/// What arrived: method, content, and the fields that a script sees.
const ECHO: &str = r#"<?php
header('Content-Type: application/json');
echo json_encode(['method' => $_SERVER['REQUEST_METHOD'], 'uri' => $_SERVER['REQUEST_URI'],
    'content' => base64_encode(file_get_contents('php://input')), 'host' => $_SERVER['HTTP_HOST'] ?? null,
    'post' => $_POST, 'forwarded_for' => $_SERVER['HTTP_X_FORWARDED_FOR'] ?? null]);
"#;

#[derive(Debug)]
pub struct Php {
    port: Reserved,
    process: Process,
    root: TempDir,
}

impl Php {
    #[track_caller]
    pub fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in [("page.php", PAGE), ("flushed.php", FLUSHED), ("echo.php", ECHO)] {
            std::fs::write(root.path().join(name), text).expect("a page");
        }
        let port = Reserved::v4();
        let mut command = Command::new(skip::find("php").expect("php"));
        command.arg("-S").arg(port.address().to_string()).arg("-t").arg(root.path());
        let mut process = Process::start("php -S", &mut command);
        process.wait_for(port.address());
        Self { port, process, root }
    }

    /// What `page.php?bytes=N` says.
    pub fn page(bytes: usize) -> Vec<u8> {
        b"0123456789abcdef".iter().copied().cycle().take(bytes).collect()
    }

    /// What `flushed.php?parts=N` says.
    pub fn flushed(parts: usize) -> Vec<u8> {
        (0..parts).flat_map(|i| format!("part {i}\n").into_bytes()).collect()
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}
