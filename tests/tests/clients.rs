//! Real clients: curl, wrk and ab.

use std::process::{Command, Output};

use cmim_tests::origin::faulty::{replies, with_length};
use cmim_tests::{Device, Nginx, ScriptedServer, skip};

fn run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(skip::find(tool).expect("an installed tool")).args(arguments).output().expect("running a tool")
}

/// Runs curl and returns its stdout; panics where it fails.
#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let mut all = vec!["--silent", "--show-error", "--max-time", "20"];
    all.extend_from_slice(arguments);
    let output = run("curl", &all);
    assert!(output.status.success(), "curl {all:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Answers with method, version, target and the size of the content.
fn describing() -> (ScriptedServer, Device) {
    let server = ScriptedServer::start(replies(|request| {
        let text = format!("{} {} {}\n", request.method, request.target, request.content.len());
        let mut reply = with_length(text.as_bytes());
        if request.method == "HEAD" {
            reply.truncate(reply.len() - text.len());
        }
        reply
    }));
    let device = Device::before(&[server.address()]);
    (server, device)
}

#[test]
fn curl_keeps_its_connection() {
    if skip::without_tools("curl_keeps_its_connection", &["curl"]) {
        return;
    }
    let (_server, device) = describing();
    let at = device.address();
    let [a, b, c] = [1, 2, 3].map(|number| format!("http://{at}/{number}"));
    let out = curl(&["--write-out", "%{num_connects} ", &a, &b, &c]);
    assert_eq!(out, "GET /1 0\n1 GET /2 0\n0 GET /3 0\n0 ");
}

#[test]
fn curl_uploads() {
    if skip::without_tools("curl_uploads", &["curl"]) {
        return;
    }
    let (_server, device) = describing();
    let url = format!("http://{}/upload", device.address());
    let file = device.directory().join("upload.bin");
    std::fs::write(&file, vec![b'x'; 3_000_000]).expect("a file");
    let path = file.display().to_string();
    assert_eq!(curl(&["--upload-file", &path, &url]), "PUT /upload 3000000\n");
    let data = format!("@{path}");
    assert_eq!(curl(&["--data-binary", &data, &url]), "POST /upload 3000000\n");
    let chunked = curl(&["--header", "Transfer-Encoding: chunked", "--data-binary", &data, &url]);
    assert_eq!(chunked, "POST /upload 3000000\n");
}

#[test]
fn curl_asks_for_heads_and_in_http_1_0() {
    if skip::without_tools("curl_asks_for_heads_and_in_http_1_0", &["curl"]) {
        return;
    }
    let (_server, device) = describing();
    let url = format!("http://{}/x", device.address());
    let head = curl(&["--head", &url]);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.to_ascii_lowercase().contains("content-length: 10\r\n"),
        "{head}"
    );
    assert_eq!(curl(&["--http1.0", &url]), "GET /x 0\n");
    assert_eq!(curl(&["--http1.0", "--header", "Connection: keep-alive", &url, &url]), "GET /x 0\nGET /x 0\n");
    // Offers h2c, and is content with HTTP/1.1.
    assert_eq!(curl(&["--http2", &url]), "GET /x 0\n");
}

#[test]
fn wrk_sees_no_error() {
    if skip::without_tools("wrk_sees_no_error", &["wrk", "nginx"]) {
        return;
    }
    let nginx = Nginx::start("");
    nginx.put("small.txt", &[b'x'; 1000]);
    let device = Device::before(&[nginx.address()]);
    let url = format!("http://{}/small.txt", device.address());
    let output = run("wrk", &["--threads", "2", "--connections", "50", "--duration", "3s", &url]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let done: u64 = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or_else(|| panic!("no count: {text}"));
    assert!(done > 1000, "{text}");
    assert!(device.figure("/server_connections/opened_total") <= 50, "{}", device.status());
}

#[test]
fn ab_with_keep_alive_in_http_1_0_sees_no_failure() {
    if skip::without_tools("ab_with_keep_alive_in_http_1_0_sees_no_failure", &["ab"]) {
        return;
    }
    let server = ScriptedServer::start(replies(|request| {
        let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        reply.extend(cmim_tests::origin::faulty::chunk(request.target.as_bytes()));
        reply.extend_from_slice(b"0\r\n\r\n");
        reply
    }));
    let device = Device::before(&[server.address()]);
    let url = format!("http://{}/dynamic", device.address());
    let output = run("ab", &["-k", "-n", "2000", "-c", "10", "-s", "10", &url]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let figure = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.split_whitespace().rev().find_map(|word| word.parse::<u64>().ok()).expect("a number")
    };
    assert_eq!(figure("Complete requests:"), 2000, "{text}");
    assert_eq!(figure("Failed requests:"), 0, "{text}");
    assert_eq!(figure("Keep-Alive requests:"), 2000, "{text}");
}
