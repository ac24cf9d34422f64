//! lighttpd with mod_cgi: shell scripts whose replies come chunked.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::ports::Reserved;
use crate::process::Process;
use crate::skip;

/// `?N` lines, in two bursts.
const LINES: &str = "#!/bin/sh\n\
printf 'Content-Type: text/plain\\r\\nX-Cgi: yes\\r\\n\\r\\n'\n\
seq 1 $((QUERY_STRING / 2))\nsleep 0.05\nseq $((QUERY_STRING / 2 + 1)) $QUERY_STRING\n";

/// The content that came, back.
const ECHO: &str = "#!/bin/sh\nprintf 'Content-Type: application/octet-stream\\r\\n\\r\\n'\ncat\n";

/// A status of its own and two cookies.
const STATUS: &str = "#!/bin/sh\n\
printf 'Status: 404 Not here\\r\\nSet-Cookie: a=1\\r\\nSet-Cookie: b=2\\r\\nContent-Type: text/plain\\r\\n\\r\\nnot here\\n'\n";

#[derive(Debug)]
pub struct Lighttpd {
    port: Reserved,
    _process: Process,
    directory: TempDir,
}

impl Lighttpd {
    #[track_caller]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        std::fs::create_dir(&root).expect("a root");
        for (name, text) in [("lines.cgi", LINES), ("echo.cgi", ECHO), ("status.cgi", STATUS)] {
            let path = root.join(name);
            std::fs::write(&path, text).expect("a script");
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("an executable");
        }
        let port = Reserved::v4();
        let configuration = format!(
            "server.modules = (\"mod_cgi\")\nserver.document-root = \"{root}\"\nserver.bind = \"127.0.0.1\"\n\
             server.port = {port}\nserver.errorlog = \"{at}/error.log\"\nserver.upload-dirs = (\"{at}\")\n\
             server.stream-response-body = 1\ncgi.assign = (\".cgi\" => \"\")\n\
             mimetype.assign = (\".txt\" => \"text/plain\")\n",
            root = root.display(),
            port = port.address().port(),
            at = directory.path().display(),
        );
        let file = directory.path().join("lighttpd.conf");
        std::fs::write(&file, configuration).expect("a configuration");
        let mut command = Command::new(skip::find("lighttpd").expect("lighttpd"));
        let mut process = Process::start("lighttpd", command.arg("-D").arg("-f").arg(file));
        process.wait_for(port.address());
        Self { port, _process: process, directory }
    }

    /// What `lines.cgi?N` says.
    pub fn lines(count: usize) -> Vec<u8> {
        (1..=count).flat_map(|i| format!("{i}\n").into_bytes()).collect()
    }

    pub fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.directory.path().join("root").join(name), content).expect("a file");
    }

    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.port.address()
    }
}
