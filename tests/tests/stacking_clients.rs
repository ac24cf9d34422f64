//! Clients that no one here wrote and that stack their requests: h2load, and wrk with a script.

use std::process::Command;

use cmim_tests::deadline::PATIENCE;
use cmim_tests::{Crew, Nginx, Setup, skip};

#[track_caller]
fn run(tool: &str, arguments: &[&str]) -> String {
    let path = skip::find(tool).expect("an installed tool");
    let output = Command::new(path).args(arguments).output().expect("running a tool");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text
}

/// The number before `name` in a line such as `requests: 2000 total, 2000 started`.
fn before(text: &str, line: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|one| one.trim().strip_prefix(line)).unwrap_or_default();
    let part = found.split(',').find_map(|part| part.trim().strip_suffix(name));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {line} of {text}"))
}

#[test]
fn h2load_stacks_sixteen_deep_without_an_error() {
    const REQUESTS: u64 = 4000;
    if skip::without_tools("h2load_stacks_sixteen_deep_without_an_error", &["h2load"]) {
        return;
    }
    let crew = Crew::of(4);
    let device = crew.setup("max_requests = 4").start();
    for words in ["size=300", "as=chunked&size=300"] {
        let url = format!("http://{}/page?{words}", device.address());
        let text = run("h2load", &["--h1", "-n", &REQUESTS.to_string(), "-c", "4", "-m", "16", &url]);
        for (name, expected) in
            [(" total", REQUESTS), (" succeeded", REQUESTS), (" failed", 0), (" errored", 0), (" timeout", 0)]
        {
            assert_eq!(before(&text, "requests:", name), expected, "{name}: {text}");
        }
        assert_eq!(before(&text, "status codes:", " 2xx"), REQUESTS, "{text}");
        let rate = text.lines().find(|line| line.starts_with("finished in")).unwrap_or_default();
        skip::measured(&format!("h2load --h1 -c 4 -m 16, {words}"), rate);
    }
    let status = device.status();
    assert!(status["stacked"]["noticed_total"].as_u64() > Some(REQUESTS), "{status}");
    assert!(status["stacked"]["distributed_total"].as_u64() > Some(REQUESTS / 2), "{status}");
    assert_eq!(crew.faults(), [""; 0]);
    device.wait_until_at_rest(PATIENCE);
}

/// Sends sixteen requests at a time, and counts by itself what is not 200.
const SCRIPT: &str = r#"
local stack
function init(args)
    local all = {}
    for number = 1, 16 do
        all[number] = wrk.format("GET", "/page" .. (number % 3) .. ".txt")
    end
    stack = table.concat(all)
end
function request()
    return stack
end
function response(status, headers, body)
    if status ~= 200 or not (#body == 100 or #body == 5000 or #body == 60000) then
        print("WRONG: " .. status .. " with " .. #body)
    end
end
"#;

#[test]
fn wrk_with_a_stacking_script_sees_no_error() {
    let test = "wrk_with_a_stacking_script_sees_no_error";
    if skip::without_tools(test, &["wrk", "nginx"]) {
        return;
    }
    let servers = [Nginx::start(""), Nginx::start("")];
    for server in &servers {
        for (number, size) in [100, 5000, 60_000].into_iter().enumerate() {
            server.put(&format!("page{number}.txt"), &vec![b'x'; size]);
        }
    }
    let device = Setup::before(&servers.each_ref().map(Nginx::address)).start();
    let script = device.directory().join("stack.lua");
    std::fs::write(&script, SCRIPT).expect("a script");
    let (script, url) = (script.display().to_string(), format!("http://{}/", device.address()));
    let text = run("wrk", &["--threads", "2", "--connections", "8", "--duration", "2s", "--script", &script, &url]);
    for word in ["WRONG", "Non-2xx", "Socket errors"] {
        assert!(!text.contains(word), "{text}");
    }
    let rate = text.lines().find(|line| line.starts_with("Requests/sec")).unwrap_or_default();
    skip::measured("wrk with 8 connections, 16 stacked", rate);
    let status = device.status();
    assert!(status["stacked"]["noticed_total"].as_u64() > Some(1000), "{status}");
    // Beyond its own end wrk leaves a few in the device.
    device.wait_until_at_rest(PATIENCE);
}
