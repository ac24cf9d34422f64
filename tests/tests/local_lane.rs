//! `kernel.local_bypass`: requests to servers on this host go from socket to socket, past TCP, and nothing else changes.

use cmim_tests::client::request;
use cmim_tests::deadline::{PATIENCE, until_true};
use cmim_tests::origin::Nginx;
use cmim_tests::{Client, Device, ScriptedServer, Setup, skip};

const EXTRA: &str = "client_max_body_size 0; location /put/ { dav_methods PUT; create_full_put_path on; } \
                     location /slowly/ { limit_rate 1k; }";

/// `None`: this host cannot run the test, which is said.
fn start(test: &str) -> Option<(Nginx, Device)> {
    if skip::without_root(test) || skip::without_tools(test, &["nginx"]) {
        return None;
    }
    let nginx = Nginx::start(EXTRA);
    let device = Setup::before(&[nginx.address()]).kernel("auto", "local_bypass = \"on\"").start();
    if !device.has_program("cmim_local_msg") {
        skip::skipped(test, &format!("no local lane here: {}", device.status()["kernel"]["missing"]));
        return None;
    }
    Some((nginx, device))
}

fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ seed ^ (at >> 8)).to_le_bytes()[0]).collect()
}

#[track_caller]
fn assert_gets(client: &mut Client, target: &str, expected: &[u8]) {
    let reply = client.get(target);
    assert_eq!(reply.status(), 200, "{target}");
    reply.assert_whole(expected);
}

fn handed_over(device: &Device) -> u64 {
    device.figure("/lanes/local/bytes_total")
}

#[test]
fn a_thousand_small_replies_take_the_lane_byte_for_byte() {
    let Some((nginx, device)) = start("a_thousand_small_replies_take_the_lane_byte_for_byte") else { return };
    let files: Vec<(String, Vec<u8>)> =
        (0..10).map(|seed| (format!("small{seed}.bin"), content(seed, 1 + seed * 900))).collect();
    for (name, bytes) in &files {
        nginx.put(name, bytes);
    }
    let before = handed_over(&device);
    let mut client = device.client();
    let mut sum = 0;
    for (name, bytes) in files.iter().cycle().take(1_000) {
        assert_gets(&mut client, &format!("/{name}"), bytes);
        sum += bytes.len() as u64;
    }
    assert!(handed_over(&device) - before > sum, "contents, heads and requests: {} of {sum}", handed_over(&device));
    assert_eq!(device.figure("/server_connections/opened_total"), 1);
    assert_eq!(device.figure("/lanes/local/active"), 1);
}

#[test]
fn uploads_and_replies_of_all_sizes_pass_side_by_side() {
    let Some((nginx, device)) = start("uploads_and_replies_of_all_sizes_pass_side_by_side") else { return };
    for (seed, length) in [1, 65_536, 70_000, 1_500_000].into_iter().enumerate() {
        nginx.put(&format!("{length}.bin"), &content(seed, length));
    }
    std::thread::scope(|scope| {
        for task in 0..4 {
            let device = &device;
            scope.spawn(move || {
                let mut client = device.client();
                for round in 0..12 {
                    for (seed, length) in [1, 65_536, 70_000, 1_500_000].into_iter().enumerate() {
                        assert_gets(&mut client, &format!("/{length}.bin"), &content(seed, length));
                    }
                    let upload = content(task * 100 + round, [10, 3_000, 100_000, 2_000_000][round % 4]);
                    let target = format!("/put/{task}/{round}.bin");
                    client.send(request("PUT", &target, "", &upload));
                    assert_eq!(client.reply_to("PUT").status(), 201, "{target}");
                    assert_gets(&mut client, &target, &upload);
                }
            });
        }
    });
    assert!(handed_over(&device) > 0);
}

#[test]
fn connections_lists_a_reply_that_comes_by_the_lane() {
    let Some((nginx, device)) = start("connections_lists_a_reply_that_comes_by_the_lane") else { return };
    std::fs::create_dir(nginx.root().join("slowly")).expect("a directory");
    nginx.put("slowly/reply.bin", &content(1, 20_000));
    let mut client = device.client();
    client.send(request("GET", "/slowly/reply.bin", "", b""));
    assert_eq!(client.head("GET").status, 200);
    until_true("it is listed", PATIENCE, || device.json(&["connections"])[0]["lane"] == "local");
    // A mere end would be noticed with the next bytes only.
    client.into_wire().reset();
    device.wait_until_at_rest(PATIENCE);
}

#[test]
fn a_connection_of_large_replies_leaves_the_lane() {
    let Some((nginx, device)) = start("a_connection_of_large_replies_leaves_the_lane") else { return };
    let (small, large) = (content(1, 500), content(2, 3_000_000));
    nginx.put("small.bin", &small);
    nginx.put("large.bin", &large);
    let mut client = device.client();
    assert_gets(&mut client, "/small.bin", &small);
    assert!(handed_over(&device) > 500);
    assert_gets(&mut client, "/large.bin", &large);
    let before = handed_over(&device);
    for _ in 0..20 {
        assert_gets(&mut client, "/small.bin", &small);
        assert_gets(&mut client, "/large.bin", &large);
    }
    assert_eq!(handed_over(&device), before, "all of it by TCP");
    assert_eq!(device.figure("/server_connections/opened_total"), 1, "on the same connection");
}

#[test]
fn a_connect_tunnel_is_not_on_the_lane() {
    let test = "a_connect_tunnel_is_not_on_the_lane";
    if skip::without_root(test) {
        return;
    }
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            side.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            if request.method == "CONNECT" {
                let _ = side.wire().to_end(&mut |_| {});
                return;
            }
        }
    });
    let device = Setup::before(&[server.address()])
        .listener("allow_connect = true")
        .kernel("auto", "local_bypass = \"on\"")
        .start();
    if !device.has_program("cmim_local_msg") {
        return skip::skipped(test, &format!("no local lane here: {}", device.status()["kernel"]["missing"]));
    }
    // The connection that this one leaves in the pool is on the lane.
    assert_gets(&mut device.client(), "/", b"");
    let before = handed_over(&device);
    let mut client = device.client();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
    assert_eq!(client.head("CONNECT").status, 200);
    client.send("through the tunnel");
    client.wire().finish_sending().expect("a half-close");
    client.wire().to_end(&mut |_| {}).expect("the tunnel's end");
    assert_eq!(handed_over(&device), before);
    assert_eq!(device.figure("/server_connections/opened_total"), 2, "one of its own");
}
