//! Addresses, networks, paths and HTTP names as a configuration writes them.
//!
//! Owns their syntax and what is suggested instead of a wrong one. Host names of servers are resolved here, once, at load.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::error::{Unfit, nearest};
use super::listen_address::{ListenAddress, NotAnAddress};
use super::model::{HashOn, ServerAddress};

pub(super) const EXPECTED_LISTEN: &str = "an IP address and a port such as \"0.0.0.0:80\" or \"[::]:80\"";
/// Where the text seems to mean several addresses.
const EXPECTED_MANY: &str = "a network and ports such as \"203.0.113.0/24:80-89\" or \"[2001:db8::/64]:80\"";
pub(super) const EXPECTED_SERVER: &str =
    "an address such as \"10.0.0.11:8080\", \"[2001:db8::11]:8080\" or \"unix:/run/app.sock\"";
pub(super) const EXPECTED_NETWORK: &str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
pub(super) const EXPECTED_PATH: &str = "an absolute path";
pub(super) const EXPECTED_HOST: &str = "a host name without port, such as \"img.example.org\"";
pub(super) const EXPECTED_URL_PATH: &str = "a path that begins with \"/\", such as \"/static/\"";
pub(super) const EXPECTED_HASH_ON: &str = "\"client-address\", \"target\", \"header:NAME\" or \"cookie:NAME\"";
pub(super) const EXPECTED_INTERFACE: &str = "the name of a network interface, such as \"eth0\"";

/// Longest path of a Unix socket: `sun_path` of sockaddr_un has 108 bytes, the last one for its NUL.
const LONGEST_SOCKET_PATH: usize = 107;
/// The control socket's: an upgrade binds the new one beside it, with `.new` behind its name.
const LONGEST_CONTROL_SOCKET: usize = LONGEST_SOCKET_PATH - ".new".len();

/// Longest name of an interface: IFNAMSIZ is 16 with its NUL.
const LONGEST_INTERFACE: usize = 15;

const UNIX_PREFIX: &str = "unix:";

/// Where a listener listens; port 0 lets the kernel choose one.
pub(super) fn parse_listen(text: &str) -> Result<ListenAddress, Unfit> {
    text.parse().map_err(|refused: NotAnAddress| {
        let network = refused.network.map(|network| network.to_string());
        let expected = if text.contains(['/', '-']) { EXPECTED_MANY } else { EXPECTED_LISTEN };
        Unfit::new(expected).instead(network.or_else(|| probable_listen(text)))
    })
}

/// The one address of something that is no listener; port 0 lets the kernel choose one.
pub(super) fn parse_one_address(text: &str) -> Result<SocketAddr, Unfit> {
    text.parse().map_err(|_| Unfit::new(EXPECTED_LISTEN).instead(probable_listen(text)))
}

/// `IP:port`, `host:port` or `unix:/path`.
pub(super) fn parse_server(text: &str) -> Result<ServerAddress, Unfit> {
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        return parse_socket_path(path).map(ServerAddress::Unix).map_err(|unfit| {
            let instead = unfit.instead.map(|path| format!("{UNIX_PREFIX}{path}"));
            Unfit::new(format!("{UNIX_PREFIX} with {}", unfit.expected)).instead(instead)
        });
    }
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => resolve(text)?,
    };
    if address.port() == 0 {
        return Err(Unfit::new("a server's port from 1 to 65535"));
    }
    Ok(ServerAddress::Tcp(address))
}

/// An IP address alone is the network of that one address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, Unfit> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| Unfit::new(EXPECTED_NETWORK))?;
    if network.trunc() != network {
        // 10.0.0.5/8 may mean the host or the network; guessing wrong would trust too many.
        return Err(Unfit::new(EXPECTED_NETWORK).instead(Some(network.trunc().to_string())));
    }
    Ok(network)
}

pub(super) fn parse_absolute(text: &str) -> Result<PathBuf, Unfit> {
    if text.contains('\0') || !Path::new(text).is_absolute() {
        return Err(Unfit::new(EXPECTED_PATH));
    }
    Ok(PathBuf::from(text))
}

pub(super) fn parse_socket_path(text: &str) -> Result<PathBuf, Unfit> {
    if text.len() > LONGEST_SOCKET_PATH {
        return Err(Unfit::new(format!("a socket's path of at most {LONGEST_SOCKET_PATH} bytes")));
    }
    parse_absolute(text)
}

/// Where a daemon's own socket stands, so that it can be upgraded.
pub(super) fn parse_control_socket(text: &str) -> Result<PathBuf, Unfit> {
    if text.len() > LONGEST_CONTROL_SOCKET {
        let expected = format!("a socket's path of at most {LONGEST_CONTROL_SOCKET} bytes (an upgrade's has 4 more)");
        return Err(Unfit::new(expected));
    }
    parse_absolute(text)
}

/// A host name in lower case, or an IP literal as Host writes it.
pub(super) fn parse_host(text: &str) -> Result<String, Unfit> {
    let host = text.to_ascii_lowercase();
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if literal.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok()) {
        return Ok(host);
    }
    let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !host.is_empty() && host.bytes().all(name_byte) {
        return Ok(host);
    }
    let without_scheme = host.split_once("://").map_or(host.as_str(), |(_, rest)| rest);
    let end = without_scheme.find([':', '/']).unwrap_or(without_scheme.len());
    let bare = without_scheme.get(..end).unwrap_or("");
    let probable = !bare.is_empty() && bare.bytes().all(name_byte);
    Err(Unfit::new(EXPECTED_HOST).instead(probable.then(|| bare.to_owned())))
}

/// The path of a request's target, without query.
pub(super) fn parse_url_path(text: &str) -> Result<String, Unfit> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if visible && text.starts_with('/') {
        return Ok(text.to_owned());
    }
    let instead = (visible && !text.is_empty()).then(|| format!("/{text}"));
    Err(Unfit::new(EXPECTED_URL_PATH).instead(instead))
}

pub(super) fn parse_hash_on(text: &str) -> Result<HashOn, Unfit> {
    let unfit = || Unfit::new(EXPECTED_HASH_ON);
    if let Some((kind, name)) = text.split_once(':') {
        // Field and cookie names are tokens, RFC 9110 5.6.2.
        let token = !name.is_empty() && name.bytes().all(is_token_byte);
        return match kind {
            "header" if token => Ok(HashOn::Header(name.to_ascii_lowercase())),
            "cookie" if token => Ok(HashOn::Cookie(name.to_owned())),
            _ => Err(unfit()),
        };
    }
    match text {
        "client-address" => Ok(HashOn::ClientAddress),
        "target" => Ok(HashOn::Target),
        _ => {
            let probable = nearest(text, ["client-address", "target"]);
            Err(unfit().instead(probable.map(str::to_owned)))
        }
    }
}

pub(super) fn parse_interface(text: &str) -> Result<String, Unfit> {
    let fits = !text.is_empty()
        && text.len() <= LONGEST_INTERFACE
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if fits { Ok(text.to_owned()) } else { Err(Unfit::new(EXPECTED_INTERFACE)) }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Resolves `host:port`. Of a name with several addresses an IPv4 one is taken: "localhost" means ::1 and 127.0.0.1,
/// and a server that listens on one of them only is nearly always on the latter.
fn resolve(text: &str) -> Result<SocketAddr, Unfit> {
    let unfit = || Unfit::new(EXPECTED_SERVER).instead(probable_server(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(unfit)?;
    let port: u16 = port.parse().map_err(|_| unfit())?;
    let name = parse_host(host).map_err(|_| unfit())?;
    if name.eq_ignore_ascii_case("localhost") {
        // Never a question for a name server (RFC 6761 section 6.3), and IPv4 like every name that has both.
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let no_address = |reason: &str| {
        Unfit::new(format!(
            "an address, or a host name that this host can resolve ({reason}), such as \"10.0.0.11:{port}\""
        ))
    };
    let addresses: Vec<SocketAddr> =
        (name.as_str(), port).to_socket_addrs().map_err(|error| no_address(&error.to_string()))?.collect();
    let first_v4 = addresses.iter().find(|address| address.is_ipv4());
    first_v4.or_else(|| addresses.first()).copied().ok_or_else(|| no_address("it has no address"))
}

fn probable_listen(text: &str) -> Option<String> {
    if let Ok(port) = text.trim_start_matches(['*', ':']).parse::<u16>() {
        return Some(format!("0.0.0.0:{port}"));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Some(format!("127.0.0.1:{port}"));
    }
    with_port(text, 80)
}

fn probable_server(text: &str) -> Option<String> {
    if Path::new(text).is_absolute() {
        return Some(format!("{UNIX_PREFIX}{text}"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split('/').next().unwrap_or(rest);
        let address = authority.parse::<SocketAddr>().ok().map(|address| address.to_string());
        return address.or_else(|| with_port(authority, 80));
    }
    with_port(text, 8080)
}

fn with_port(text: &str, port: u16) -> Option<String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = bare.parse().ok()?;
    Some(SocketAddr::new(address, port).to_string())
}

#[cfg(test)]
mod tests {
    use super::{
        parse_absolute, parse_control_socket, parse_hash_on, parse_host, parse_interface, parse_listen, parse_network,
        parse_server, parse_socket_path, parse_url_path,
    };
    use crate::config::model::{HashOn, ServerAddress};

    #[test]
    fn servers_are_ip_addresses_host_names_or_unix_sockets() {
        for (text, address) in [
            ("10.0.0.11:8080", "10.0.0.11:8080"),
            ("[2001:DB8::11]:8080", "[2001:db8::11]:8080"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("localhost:8080", "127.0.0.1:8080"),
        ] {
            let read = parse_server(text).map(|address: ServerAddress| address.to_string());
            assert_eq!(read.as_deref(), Ok(address), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_names_the_probable_one() {
        for (text, instead) in [
            ("10.0.0.11", Some("10.0.0.11:8080")),
            ("2001:db8::11", Some("[2001:db8::11]:8080")),
            ("http://10.0.0.11:9000/app", Some("10.0.0.11:9000")),
            ("/run/app.sock", Some("unix:/run/app.sock")),
            ("10.0.0.11:0", None),
            ("10.0.0.11:70000", None),
            ("unix:app.sock", None),
            ("", None),
        ] {
            assert_eq!(parse_server(text).unwrap_err().instead.as_deref(), instead, "{text}");
        }
        for (text, instead) in [
            (":80", Some("0.0.0.0:80")),
            ("*:80", Some("0.0.0.0:80")),
            ("8080", Some("0.0.0.0:8080")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("10.0.0.1", Some("10.0.0.1:80")),
            ("web", None),
        ] {
            assert_eq!(parse_listen(text).unwrap_err().instead.as_deref(), instead, "{text}");
        }
    }

    #[test]
    fn what_seems_to_mean_several_addresses_to_listen_on_is_told_how_they_are_written() {
        for (text, instead) in [
            ("203.0.113.7/24:80-89", Some("203.0.113.0/24:80-89")),
            ("203.0.113.0/24", None),
            ("203.0.113.7:89-80", None),
            ("2001:db8::/64:80", None),
        ] {
            let unfit = parse_listen(text).unwrap_err();
            assert!(unfit.expected.contains("203.0.113.0/24:80-89"), "{text}: {}", unfit.expected);
            assert_eq!(unfit.instead.as_deref(), instead, "{text}");
        }
    }

    #[test]
    fn a_network_with_host_bits_is_refused_and_its_network_named() {
        assert_eq!(parse_network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
        let unfit = parse_network("10.1.2.3/8").unwrap_err();
        assert_eq!(unfit.instead.as_deref(), Some("10.0.0.0/8"));
        assert!(parse_network("10.0.0.0/33").is_err());
    }

    #[test]
    fn hosts_are_lower_case_and_without_port() {
        assert_eq!(parse_host("IMG.Example.ORG").as_deref(), Ok("img.example.org"));
        assert_eq!(parse_host("[::1]").as_deref(), Ok("[::1]"));
        for (text, instead) in [
            ("img.example.org:80", Some("img.example.org")),
            ("http://img.example.org/x", Some("img.example.org")),
            ("*.example.org", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(parse_host(text).unwrap_err().instead.as_deref(), instead, "{text}");
        }
    }

    #[test]
    fn paths_of_targets_begin_with_a_slash_and_have_no_query() {
        assert_eq!(parse_url_path("/static/").as_deref(), Ok("/static/"));
        assert_eq!(parse_url_path("static/").unwrap_err().instead.as_deref(), Some("/static/"));
        for text in ["", "/a b", "/a?b", "/a#b", "/ä"] {
            assert!(parse_url_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hashing_takes_header_and_cookie_names_that_are_tokens() {
        assert_eq!(parse_hash_on("header:X-User"), Ok(HashOn::Header("x-user".to_owned())));
        assert_eq!(parse_hash_on("cookie:SID"), Ok(HashOn::Cookie("SID".to_owned())));
        assert_eq!(parse_hash_on("client_address").unwrap_err().instead.as_deref(), Some("client-address"));
        for text in ["header:", "header:a b", "query:x", ""] {
            assert!(parse_hash_on(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_absolute_and_sockets_fit_their_kernel_field() {
        assert!(parse_absolute("/var/log/x").is_ok());
        assert!(parse_absolute("var/log/x").is_err());
        assert!(parse_absolute("/a\0b").is_err());
        assert!(parse_socket_path(&format!("/{}", "a".repeat(106))).is_ok());
        assert!(parse_socket_path(&format!("/{}", "a".repeat(107))).is_err());
        assert!(parse_control_socket(&format!("/{}", "a".repeat(102))).is_ok());
        assert!(parse_control_socket(&format!("/{}", "a".repeat(103))).is_err());
    }

    #[test]
    fn interface_names_fit_their_kernel_field() {
        assert!(parse_interface("eth0.100").is_ok());
        for text in ["", "eth 0", "a/b", "sixteen-bytes-xx"] {
            assert!(parse_interface(text).is_err(), "{text}");
        }
    }
}
