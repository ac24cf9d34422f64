//! `bench guard`: packets from denied networks, dropped by the guard's deny list or by an nftables rule.
//!
//! The packets are made on this host, by the same CPUs that drop them. What making them costs is measured in the same
//! round with packets that go nowhere, and taken off.

use std::cell::Cell;
use std::fs;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType, connect, ipproto, sendmmsg, socket,
};

use super::Run;
use super::contender::Contender;
use super::device::Control;
use super::meter::Reading;
use super::network::{Network, Side};
use super::proxy::{Proxy, Settings};
use super::results::{Better, Metric, Results, Sample};
use super::rounds::{NotAvailable, in_turn};
use crate::command::which;

/// Networks in each list: 198.18.N.0/24, of those that RFC 2544 keeps for benchmarks.
const DENIED: u8 = 100;
const BATCH: u8 = 64;
const NANO: f64 = 1_000_000_000.0;
/// Behind a link that leads nowhere.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 1);
/// At least this share of what was sent must have been dropped by whom it was meant for.
const DROPPED: f64 = 0.95;
const CHAIN: &str = "table netdev cmim_bench {
    set deny { type ipv4_addr; flags interval; elements = { @networks@ } }
    chain guard {
        type filter hook ingress device @link@ priority -500; policy accept;
        ip saddr @deny counter drop
    }
}
";

/// Who drops, on a network of its own.
enum Filter {
    Nobody { network: Network },
    Device { network: Network, control: Control, _proxy: Proxy },
    Rule { network: Network, nft: PathBuf },
}

pub(crate) fn run(run: &Run) -> Result<Results> {
    let metrics = vec![
        Metric::new("drops by one core", "packets/s", Better::Higher),
        Metric::new("CPU for each drop", "ns", Better::Lower),
        Metric::new("CPU for each packet, with making it", "ns", Better::Lower),
        Metric::new("packets", "packets/s", Better::Neither),
    ];
    let about = format!(
        "TCP SYNs of 40 bytes from {DENIED} denied networks, made by one thread as fast as it can; dropped by cmim's guard, \
         or by an nftables rule with the same {DENIED} networks in a set, at the ingress hook. `direct` is the making alone, \
         over a link that leads nowhere; it is taken off the first two figures. Drops are counted by whoever drops."
    );
    let mut results = Results::new("guard", about, String::new(), metrics);
    let contenders = [Contender::Direct, Contender::Cmim, Contender::Nftables];
    let filters: Vec<_> = contenders.map(|contender| (contender, Filter::start(contender, run))).into();
    let mut shown =
        filters.iter().filter_map(|(_, filter)| filter.as_ref().ok()).map(|filter| filter.network().shown());
    results.network = shown.next_back().unwrap_or_default();
    let making = Cell::new(0.0);
    in_turn(run, run.rounds, &mut results, filters, |_, filter| measure(run, filter, &making))?;
    Ok(results)
}

fn measure(run: &Run, filter: &Filter, making: &Cell<f64>) -> Result<Sample> {
    let before = filter.dropped()?;
    let reading = Reading::take(&[], &[])?;
    let started = Instant::now();
    let sent = filter.network().within(Side::Client, || send(run, filter.target(), run.seconds))??;
    let elapsed = started.elapsed().as_secs_f64();
    let used = Reading::take(&[], &[])?.since(&reading);
    let dropped = filter.dropped()? - before;
    let each = used.ours() * NANO / sent;
    if matches!(filter, Filter::Nobody { .. }) {
        making.set(each);
        return Ok(vec![None, None, Some(each), Some(sent / elapsed)]);
    }
    if dropped < sent * DROPPED {
        bail!("only {dropped:.0} of {sent:.0} packets were dropped");
    }
    let drop = each - making.get();
    // Nothing to tell where the making was not measured, or where the two cannot be told apart.
    let drop = Some(drop).filter(|drop| making.get() > 0.0 && *drop > 0.0);
    Ok(vec![drop.map(|drop| NANO / drop), drop, Some(each), Some(sent / elapsed)])
}

impl Filter {
    fn start(contender: Contender, run: &Run) -> Result<Self> {
        let network = Network::make();
        if !network.is_apart() {
            bail!(NotAvailable(network.shown()));
        }
        match contender {
            Contender::Cmim => Self::device(network, run),
            Contender::Nftables => Self::rule(network, run),
            _ => {
                network.lead_nowhere(NOWHERE)?;
                Ok(Self::Nobody { network })
            }
        }
    }

    fn device(network: Network, run: &Run) -> Result<Self> {
        let servers = [SocketAddr::from((network.address(Side::Server), 9))];
        let interfaces = format!("\"{}\"", Side::Client.link_from_device());
        let mut setup = run.setup(&network, &servers);
        setup.settings = Settings { interfaces: &interfaces, ..setup.settings };
        let proxy = Proxy::start(Contender::Cmim, &setup)?;
        let control = proxy.control.clone().context("no control socket")?;
        for denied in networks() {
            control.ask(&["deny", "add", &denied])?;
        }
        Ok(Self::Device { network, control, _proxy: proxy })
    }

    fn rule(network: Network, run: &Run) -> Result<Self> {
        let nft = which("nft").ok_or_else(|| {
            anyhow!(NotAvailable("nft is not installed; on Debian: apt-get install nftables".to_owned()))
        })?;
        let file = run.directory.join("guard.nft");
        let list: Vec<String> = networks().collect();
        let rules = CHAIN.replace("@networks@", &list.join(", ")).replace("@link@", &Side::Client.link_from_device());
        fs::write(&file, rules)?;
        let mut command = network.command(Side::Device, &nft);
        said(command.arg("-f").arg(&file))?;
        Ok(Self::Rule { network, nft })
    }

    fn network(&self) -> &Network {
        match self {
            Self::Nobody { network } | Self::Device { network, .. } | Self::Rule { network, .. } => network,
        }
    }

    fn target(&self) -> Ipv4Addr {
        match self {
            Self::Nobody { .. } => NOWHERE,
            Self::Device { network, .. } | Self::Rule { network, .. } => network.address(Side::Device),
        }
    }

    /// How many it has dropped so far.
    fn dropped(&self) -> Result<f64> {
        match self {
            Self::Nobody { .. } => Ok(0.0),
            Self::Device { control, .. } => {
                let guard = control.ask_json(&["guard", "--json"])?;
                let counted = guard.get("counters").and_then(|counters| counters.get("dropped_denied")?.as_f64());
                counted.context("cmim guard --json tells nothing of drops")
            }
            Self::Rule { network, nft } => {
                let text =
                    said(network.command(Side::Device, nft).args(["list", "chain", "netdev", "cmim_bench", "guard"]))?;
                counted(&text).with_context(|| format!("nft lists no counter: {text}"))
            }
        }
    }
}

fn networks() -> impl Iterator<Item = String> {
    (0..DENIED).map(|number| format!("198.18.{number}.0/24"))
}

/// `… counter packets 12 bytes 480 drop`
fn counted(listed: &str) -> Option<f64> {
    listed.split("counter packets ").nth(1)?.split_whitespace().next()?.parse().ok()
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("nft did not start")?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends as fast as one thread can; how many packets the kernel took.
fn send(run: &Run, target: Ipv4Addr, seconds: u64) -> Result<f64> {
    // A raw socket of this protocol takes packets with their IP header.
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).context("no raw socket")?;
    connect(&raw, &SocketAddr::from((target, 0)))?;
    let packets: Vec<[u8; PACKET]> = (0..BATCH).map(|number| syn(number, target)).collect();
    let parts: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
    controls.resize_with(packets.len(), SendAncillaryBuffer::default);
    let mut messages: Vec<MMsgHdr<'_>> =
        parts.iter().zip(&mut controls).map(|(part, control)| MMsgHdr::new(part, control)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut sent = 0.0;
    while Instant::now() < end {
        run.check_interrupt()?;
        let count = match sendmmsg(&raw, &mut messages, SendFlags::empty()) {
            Ok(count) => count,
            // The queue is full: the packets of this batch are not sent, and not counted.
            Err(rustix::io::Errno::NOBUFS) => 0,
            Err(error) => return Err(error).context("sending packets"),
        };
        sent += f64::from(u32::try_from(count)?);
    }
    Ok(sent)
}

const PACKET: usize = 40;

/// A SYN from a denied network; the kernel adds length and checksum of the IP header.
fn syn(number: u8, target: Ipv4Addr) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = packet.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    // Version 4, five words; time to live 64, TCP.
    put(0, &[0x45]);
    put(8, &[64, 6]);
    put(12, &[198, 18, number % DENIED, 7]);
    put(16, &target.octets());
    // Ports, the header's five words, SYN.
    put(20, &[0x80, number, 0, 80]);
    put(32, &[0x50, 0x02, 0xff, 0xff]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_from_denied_networks() {
        let packet = syn(3, Ipv4Addr::new(10, 71, 1, 1));
        assert_eq!(packet.get(12..20), Some([198, 18, 3, 7, 10, 71, 1, 1].as_slice()));
        assert_eq!(networks().nth(3).as_deref(), Some("198.18.3.0/24"));
    }

    #[test]
    fn the_rules_counter_is_read() {
        let listed = "\t\tip saddr @deny counter packets 1234 bytes 49360 drop\n";
        assert_eq!(counted(listed), Some(1234.0));
        assert_eq!(counted("table netdev x {}"), None);
    }
}
