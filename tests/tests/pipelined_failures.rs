//! docs/http.md, "Pipelining towards servers": servers, connections and clients that fail or dawdle in the middle of a batch.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cmim_tests::client::request;
use cmim_tests::deadline::PATIENCE;
use cmim_tests::origin::faulty::{chunked, with_length};
use cmim_tests::pipelined::{
    Gate, PIPELINED, answer_batch, answers, assert_each_its_own, assert_its_own_from, batch, bytes, clients, device,
    gets, own, times_asked,
};
use cmim_tests::{Client, ScriptedServer, ServerSide, Setup};

/// How a server's connection ends in the middle of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Reset,
    /// Said in the last reply.
    Announced,
    InHead,
    InContent,
    NoHttp,
    SwitchesUnasked,
    UntilClose,
}

#[test]
fn a_connection_that_ends_anywhere_in_a_batch_costs_nobody_behind_its_reply() {
    const CLIENTS: usize = 4;
    let ends = [End::Orderly, End::Reset, End::Announced, End::InHead, End::InContent, End::NoHttp];
    for end in ends.into_iter().chain([End::SwitchesUnasked, End::UntilClose]) {
        for whole in 0..CLIENTS {
            let server = ScriptedServer::start(move |side| {
                let Some(requests) = batch(side, CLIENTS) else { return };
                let mut bytes: Vec<u8> = requests.iter().take(whole).flat_map(own).collect();
                let target = &requests[whole].target;
                match end {
                    End::Orderly | End::Reset => {}
                    End::Announced => bytes.extend(
                        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{target}").as_bytes(),
                    ),
                    End::InHead => bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Le"),
                    End::InContent => bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
                    End::NoHttp => bytes.extend(b"220 mail.example ESMTP\r\n\r\n"),
                    End::SwitchesUnasked => {
                        bytes.extend(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    }
                    End::UntilClose => bytes.extend(format!("HTTP/1.1 200 OK\r\n\r\n{target}").as_bytes()),
                }
                side.send(bytes);
                if end == End::Reset { side.reset() } else { side.close() }
            });
            let device = device(&server, "");
            let mut clients = clients(&device, CLIENTS);
            gets(&device, &mut clients);
            for (client, number) in clients.iter_mut().zip(0..) {
                let reply = client.try_reply("GET");
                // What its server breaks in the middle is a fault of this reply, as it is without any others.
                let alone_at_fault = matches!(end, End::InContent | End::SwitchesUnasked) && number == whole;
                match reply {
                    // A content that is cut with others behind it is asked for again.
                    Ok(reply) if !alone_at_fault || (end == End::InContent && reply.status() == 200) => {
                        reply.assert_whole(format!("/{number}").as_bytes())
                    }
                    Ok(reply) => assert_eq!(reply.status(), 502, "{end:?} behind {whole}"),
                    Err(error) => assert!(alone_at_fault, "{end:?} behind {whole}: client {number}: {error}"),
                }
            }
            let most = times_asked(&server).into_iter().filter(|(target, _)| target != "/before").map(|(_, n)| n).max();
            assert!(most <= Some(3), "{end:?} behind {whole}: one request was sent {most:?} times");
            device.wait_until_at_rest(PATIENCE);
        }
    }
}

#[test]
fn a_client_that_leaves_takes_nobody_elses_reply_with_it() {
    const CLIENTS: usize = 4;
    for leaves in 0..CLIENTS {
        let gate = Gate::default();
        let closed = gate.clone();
        let server = ScriptedServer::start(move |side| {
            if answer_batch(side, CLIENTS, &closed) {
                answers(side);
            }
        });
        let device = device(&server, "");
        let mut clients = clients(&device, CLIENTS);
        gets(&device, &mut clients);
        server.wait_for(2 * CLIENTS);
        let mut behind = clients.split_off(leaves + 1);
        clients.pop().expect("the one that leaves").into_wire().reset();
        assert_its_own_from(leaves + 1, &mut behind);
        gate.open();
        assert_each_its_own(&mut clients);
        device.wait_until_at_rest(PATIENCE);
    }
}

#[test]
fn a_slow_reply_holds_up_nobody_for_long_and_is_asked_for_once() {
    const CLIENTS: usize = 6;
    let gate = Gate::default();
    let closed = gate.clone();
    let server = ScriptedServer::start(move |side| {
        if answer_batch(side, CLIENTS, &closed) {
            side.wait_closed();
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    assert_its_own_from(1, &mut clients[1..]);
    gate.open();
    clients[0].reply().assert_whole(b"/0");
    let times = times_asked(&server);
    assert_eq!(times["/0"], 1);
    assert!(times.iter().all(|(target, times)| target == "/before" || *times <= 2), "{times:?}");
    // The replies that nobody waits for any more are not taken for others.
    clients[0].get("/behind").assert_whole(b"/behind");
}

#[test]
fn requests_stop_sharing_connections_to_a_slow_server() {
    const CLIENTS: usize = 4;
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            if request.target != "/before" {
                thread::sleep(Duration::from_millis(20));
            }
            side.send(own(&request));
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    let mut shared = Vec::new();
    for _ in 0..20 {
        let before = device.figure(PIPELINED);
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
        shared.push(device.figure(PIPELINED) - before);
    }
    assert_eq!(shared[0], CLIENTS as u64 - 1);
    // One finds out now and then.
    assert!(shared[10..].iter().sum::<u64>() <= 3, "{shared:?}");
}

#[test]
fn a_long_reply_to_a_client_that_does_not_read_holds_up_nobody() {
    const CLIENTS: usize = 4;
    const LENGTH: u64 = 8 << 20;
    let server = ScriptedServer::start(|side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        let long = bytes(LENGTH);
        if side.send(with_length(&long)) {
            side.send(requests.iter().skip(1).flat_map(own).collect::<Vec<u8>>());
        }
        side.wait_closed();
    });
    let device = device(&server, "hold_size = \"64KiB\"");
    let mut clients = clients(&device, CLIENTS);
    let mut reader = Client::connect_slow(device.address(), 4096);
    reader.get("/before").assert_whole(b"/before");
    std::mem::swap(&mut clients[0], &mut reader);
    gets(&device, &mut clients);
    assert_its_own_from(1, &mut clients[1..]);
    clients[0].reply().assert_whole(&bytes(LENGTH));
}

#[test]
fn requests_that_a_server_forgets_are_sent_again() {
    const CLIENTS: usize = 4;
    let server = ScriptedServer::start(|side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        side.send(own(&requests[0]));
        side.wait_closed();
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    assert_each_its_own(&mut clients);
}

#[test]
fn a_server_that_closes_behind_each_reply_is_found_out_and_gets_one_request_a_connection() {
    const CLIENTS: usize = 8;
    let server = ScriptedServer::start(|side| {
        if let Some(request) = side.request() {
            side.send(own(&request));
        }
    });
    let device = device(&server, "");
    let mut clients = clients(&device, CLIENTS);
    for _ in 0..3 {
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
    }
    let found_out = device.figure(PIPELINED);
    for _ in 0..5 {
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
    }
    assert_eq!(device.figure(PIPELINED), found_out);
    let told = device.output().lines().filter(|line| line.contains("ends connections on which requests wait")).count();
    assert_eq!(told, 1, "{}", device.output());
}

/// Takes requests off the socket one by one, so that those behind stay unread, answers one with `length` bytes, and closes:
/// its kernel sends a reset and drops what it has not sent.
fn closes_with_requests_unread(side: &mut ServerSide, length: u64) {
    let (mut socket, _) = side.into_parts();
    let mut one = || {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let target = String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned)?;
        let content = if target == "/before" { target.clone().into_bytes() } else { bytes(length) };
        socket.write_all(&with_length(&content)).ok().map(|()| target)
    };
    while one().is_some_and(|target| target == "/before") {}
}

#[test]
fn a_server_that_closes_with_anothers_request_unread_costs_no_response() {
    const CLIENTS: usize = 6;
    for length in [10, 100_000, 3_000_000] {
        let server = ScriptedServer::start(move |side| closes_with_requests_unread(side, length));
        let device = device(&server, "retries = 0");
        for _ in 0..5 {
            let mut clients = clients(&device, CLIENTS);
            gets(&device, &mut clients);
            for (number, client) in clients.iter_mut().enumerate() {
                let reply =
                    client.try_reply("GET").unwrap_or_else(|error| panic!("{length}: client {number}: {error}"));
                reply.assert_whole(&bytes(length));
            }
        }
        device.wait_until_at_rest(PATIENCE);
    }
}

#[test]
fn a_server_that_breaks_a_response_off_for_those_behind_it_gets_one_request_at_a_time_from_then_on() {
    // On a busy machine those behind may have been sent elsewhere before.
    let shown = (0..20).any(|_| is_found_to_break_off());
    assert!(shown, "responses were broken off with others behind them, and the device never said so");
}

/// False: nobody stood behind the response that was broken off.
fn is_found_to_break_off() -> bool {
    const CLIENTS: usize = 4;
    let first_answered = Gate::default();
    let gate = first_answered.clone();
    let server = ScriptedServer::start(move |side| {
        let Some(requests) = batch(side, CLIENTS) else { return };
        let mut cut = with_length(&bytes(3_000_000));
        cut.truncate(10_000);
        side.send([own(&requests[0]), cut].concat());
        gate.wait();
        side.reset();
    });
    let device = device(&server, "retries = 0");
    let mut clients = clients(&device, CLIENTS);
    gets(&device, &mut clients);
    clients[0].reply().assert_whole(b"/0");
    first_answered.open();
    assert_its_own_from(1, &mut clients[1..]);
    let told = || device.output().lines().filter(|line| line.contains("broke off a response")).count();
    if told() == 0 {
        return false;
    }
    let found_out = device.figure(PIPELINED);
    for _ in 0..5 {
        gets(&device, &mut clients);
        assert_each_its_own(&mut clients);
    }
    assert_eq!((device.figure(PIPELINED), told()), (found_out, 1), "{}", device.output());
    true
}

#[test]
fn a_server_that_ends_connections_at_random_points_answers_10_000_requests_of_64_clients_that_leave_now_and_then() {
    const CLIENTS: usize = 64;
    const EACH: usize = 10_000 / CLIENTS + 1;
    let server = ScriptedServer::start(|side| {
        while let Some(request) = side.request() {
            let length = request.target.len();
            let announced =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}", request.target);
            match fastrand::u32(..200) {
                0 => return,
                1 => return side.reset(),
                2 => {
                    side.send(announced);
                    return;
                }
                3 => {
                    side.send(own(&request));
                    return;
                }
                4 => {
                    side.send(own(&request));
                    return side.reset();
                }
                number => {
                    let reply = if number % 2 == 0 { own(&request) } else { chunked(&[request.target.as_bytes()]) };
                    if !side.send(reply) {
                        return;
                    }
                }
            }
        }
    });
    let device = Setup::before(&[server.address()]).upstream("server_pipeline = 8\nretries = 10").start();
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (device, wrong) = (&device, &wrong);
            scope.spawn(move || {
                let mut client = device.client();
                for turn in 0..EACH {
                    let target = format!("/{number}/{turn}");
                    if fastrand::u32(..100) == 0 {
                        client.send(request("GET", &format!("{target}/gone"), "", b""));
                        client = device.client();
                    }
                    let reply = client.get(&target);
                    if reply.status() != 200 || reply.text() != target {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let status = device.status();
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "{status}");
    assert!(device.figure(PIPELINED) > 100, "{status}");
    device.wait_until_at_rest(PATIENCE);
}
