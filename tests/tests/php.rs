//! PHP's built-in server behind the device: it closes after each reply and gives dynamic pages no length.

use cmim_tests::origin::Php;
use cmim_tests::{Client, Device, skip};

#[test]
fn pages_of_every_size_arrive_whole_with_a_length() {
    if skip::without_tools("pages_of_every_size_arrive_whole_with_a_length", &["php"]) {
        return;
    }
    let php = Php::start();
    let device = Device::before(&[php.address()]);
    let mut client = device.client();
    for size in [0, 1, 100_000, 5_000_000] {
        let reply = client.get(&format!("/page.php?bytes={size}"));
        reply.assert_whole(&Php::page(size));
        assert_eq!(reply.fields().joined("x-page"), "dynamic");
        assert!(reply.fields().joined("x-powered-by").starts_with("PHP/"), "{reply:?}");
    }
    for parts in [1, 2, 50] {
        client.get(&format!("/flushed.php?parts={parts}")).assert_whole(&Php::flushed(parts));
    }
}

#[test]
fn one_client_connection_lasts_over_500_requests() {
    if skip::without_tools("one_client_connection_lasts_over_500_requests", &["php"]) {
        return;
    }
    let php = Php::start();
    let device = Device::before(&[php.address()]);
    let before = device.figure("/client_connections/accepted_total");
    let mut client = device.client();
    for number in 0..500 {
        let size = number * 7 % 1000;
        client.get(&format!("/page.php?bytes={size}")).assert_whole(&Php::page(size));
    }
    assert_eq!(device.figure("/client_connections/accepted_total") - before, 1);
    assert!(device.figure("/server_connections/opened_total") >= 500);
}

#[test]
fn a_thousand_dynamic_and_static_requests_go_over_one_connection() {
    if skip::without_tools("a_thousand_dynamic_and_static_requests_go_over_one_connection", &["php"]) {
        return;
    }
    let php = Php::start();
    let text: Vec<u8> = (0..3000_u32).flat_map(|i| format!("{i} ").into_bytes()).collect();
    std::fs::write(php.root().join("static.txt"), &text).expect("a file");
    let direct = Client::connect(php.socket_address()).ask("GET", "/static.txt", "Connection: close\r\n", b"");
    assert!(direct.content == text);
    let device = Device::before(&[php.address()]);
    let before = device.figure("/client_connections/accepted_total");
    let mut client = device.client();
    for number in 0..500 {
        client.get(&format!("/page.php?bytes={}", number * 10)).assert_whole(&Php::page(number * 10));
        client.get("/static.txt").assert_whole(&text);
    }
    client.assert_quiet();
    assert_eq!(device.figure("/client_connections/accepted_total") - before, 1);
}

#[test]
fn several_processes_share_the_work() {
    if skip::without_tools("several_processes_share_the_work", &["php"]) {
        return;
    }
    let processes: Vec<Php> = (0..3).map(|_| Php::start()).collect();
    let addresses: Vec<String> = processes.iter().map(Php::address).collect();
    let device = Device::before(&addresses);
    let mut clients: Vec<Client> = (0..6).map(|_| device.client()).collect();
    for _ in 0..20 {
        for client in &mut clients {
            client.send(cmim_tests::client::request("GET", "/flushed.php?parts=3", "", b""));
        }
        for client in &mut clients {
            client.reply().assert_whole(&Php::flushed(3));
        }
    }
    for process in &processes {
        assert!(process.output().matches("flushed.php").count() > 10, "one process had little to do");
    }
}

#[test]
fn uploads_and_forms_reach_the_script() {
    if skip::without_tools("uploads_and_forms_reach_the_script", &["php"]) {
        return;
    }
    let php = Php::start();
    let device = Device::before(&[php.address()]);
    let mut client = device.client();
    let fields = "Content-Type: application/x-www-form-urlencoded\r\n";
    let reply = client.ask("POST", "/echo.php?q=1", fields, b"a=1&b=two+words");
    let echo: serde_json::Value = serde_json::from_slice(&reply.content).expect("JSON");
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["uri"], "/echo.php?q=1");
    assert_eq!(echo["post"]["b"], "two words");
    assert_eq!(echo["host"], "test.example");
    assert_eq!(echo["forwarded_for"], "127.0.0.1");
    // PHP's built-in server does not understand chunked uploads: the device gives the content a length.
    client.send("PUT /echo.php HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let reply = client.reply();
    let echo: serde_json::Value = serde_json::from_slice(&reply.content).expect("JSON");
    assert_eq!((echo["method"].as_str(), echo["content"].as_str()), (Some("PUT"), Some("aGVsbG8=")));
}
