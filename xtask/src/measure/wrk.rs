//! The load generator wrk: one run of it, and what its output says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Run;
use super::network::{Network, Side};
use super::process::Process;
use super::proxy::installed;

/// From the end that it was told to its real one.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for, and by how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) target: &'a str,
    pub(crate) connections: usize,
    pub(crate) header: Option<&'a str>,
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) requests: f64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Read in all, also of replies that were not whole at the end; `None` where that was not counted.
    pub(crate) megabytes: Option<f64>,
}

/// What wrk counts instead of stopping at it.
#[derive(Debug, Clone, PartialEq)]
struct Errors {
    /// `connect 0, read 3, write 0, timeout 1`
    sockets: Option<String>,
    /// Replies other than 2xx and 3xx.
    refused: f64,
}

/// Runs wrk on the client's side to its end. A single failed connection, timeout or refused reply is an error: what took
/// part in it would be in the figures.
pub(crate) fn load(run: &Run, network: &Network, load: &Load<'_>) -> Result<Outcome> {
    let mut command = network.command(Side::Client, &installed("wrk")?);
    // One thread saturates a small host's CPU; more would only take CPU from the proxies.
    command.args(["--latency", "--threads", "1", "--timeout", "10s", "--connections", &load.connections.to_string()]);
    command.arg("--duration").arg(format!("{}s", load.seconds));
    if let Some(header) = load.header {
        command.args(["--header", header]);
    }
    command.arg(format!("http://{}{}", load.address, load.target));
    let patience = Duration::from_secs(load.seconds) + PATIENCE;
    let text = Process::start(command, "wrk", &run.directory.join("wrk.log"))?.finish(patience, run)?;
    let (outcome, errors) =
        parse(&text).with_context(|| format!("wrk said something else than usual: {}", text.trim()))?;
    if errors.refused > 0.0 {
        bail!("{} of {} replies were neither 2xx nor 3xx", errors.refused, outcome.requests);
    }
    if let Some(sockets) = errors.sockets {
        bail!("wrk's connections failed beside {} replies: {sockets}", outcome.requests);
    }
    if outcome.requests < 1.0 {
        bail!("not one reply in {} s", load.seconds);
    }
    Ok(outcome)
}

fn parse(text: &str) -> Option<(Outcome, Errors)> {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let total = text.lines().find(|line| line.contains(" requests in "))?;
    let errors = Errors {
        sockets: after("Socket errors:").map(str::to_owned),
        refused: after("Non-2xx or 3xx responses:").map_or(Some(0.0), |count| count.parse().ok())?,
    };
    let outcome = Outcome {
        requests: total.split_whitespace().next()?.parse().ok()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
        megabytes: megabytes(total.split_whitespace().rev().nth(1)?),
    };
    Some((outcome, errors))
}

/// `107.59MB`; wrk counts in powers of 1024.
fn megabytes(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match text.strip_prefix(number)? {
        "B" => 1.0 / 1_048_576.0,
        "KB" => 1.0 / 1024.0,
        "MB" => 1.0,
        "GB" => 1024.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// `640.00us`, `1.05ms`, `2.10s`, `1.00m`.
fn milliseconds(text: &str) -> Option<f64> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://127.0.0.1:8080/small\n  1 threads and 64 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.05ms    1.40ms  25.06ms   92.42%\n    \
        Req/Sec    91.84k     4.70k  100.53k    70.00%\n  Latency Distribution\n     50%  640.00us\n     75%    1.05ms\n     \
        90%    2.20ms\n     99%    6.90ms\n  182640 requests in 2.00s, 215.28MB read\nRequests/sec:  91275.50\n\
        Transfer/sec:    107.59MB\n";

    #[test]
    fn the_usual_output_is_understood() {
        let expected =
            Outcome { requests: 182_640.0, rate: 91_275.5, p50_ms: 0.64, p99_ms: 6.9, megabytes: Some(215.28) };
        assert_eq!(parse(OUTPUT), Some((expected, Errors { sockets: None, refused: 0.0 })));
    }

    #[test]
    fn errors_are_noticed() {
        let text = format!(
            "{OUTPUT}  Socket errors: connect 1, read 20, write 0, timeout 3\n  Non-2xx or 3xx responses: 17\n"
        );
        let expected = Errors { sockets: Some("connect 1, read 20, write 0, timeout 3".to_owned()), refused: 17.0 };
        assert_eq!(parse(&text).map(|(_, errors)| errors), Some(expected));
    }

    #[test]
    fn every_unit_of_time_is_known() {
        let found = ["640.00us", "1.50ms", "2.10s", "1.00m", "0.00us", "3.00x", "ms"].map(milliseconds);
        assert_eq!(found, [Some(0.64), Some(1.5), Some(2100.0), Some(60_000.0), Some(0.0), None, None]);
    }

    #[test]
    fn every_unit_of_bytes_is_known() {
        let found = ["512.00KB", "3.00MB", "2.00GB", "1048576B", "1.00x"].map(megabytes);
        assert_eq!(found, [Some(0.5), Some(3.0), Some(2048.0), Some(1.0), None]);
    }

    #[test]
    fn an_error_of_wrk_is_no_outcome() {
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }
}
