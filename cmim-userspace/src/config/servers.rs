//! One server more or less: in a configuration, and in the text of its file.
//!
//! The text keeps its comments and its layout; only the servers of one upstream change.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Value};

use super::address::{EXPECTED_SERVER, parse_server};
use super::error::{ConfigErrors, Unfit, nearest, quoted};
use super::load::parse;
use super::model::{Config, Server, ServerAddress, Upstream};

/// A server as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    pub address: String,
    pub weight: u32,
    /// 0: no limit.
    pub max_requests: u64,
    pub backup: bool,
}

/// Why a server is not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("no upstream is named {}{}", quoted(.name), did_you_mean(.nearest.as_deref(), .known))]
    NoUpstream { name: String, nearest: Option<String>, known: Vec<String> },
    #[error("{} is no address of a server: expected {}{}", quoted(.text), .unfit.expected, instead(.unfit))]
    Address { text: String, unfit: Unfit },
    #[error("{address} is a server of {upstream} already (`cmim servers` lists them)")]
    There { upstream: String, address: String },
    #[error("{address} is no server of {upstream} (`cmim servers` lists them)")]
    NotThere { upstream: String, address: String },
    #[error(
        "{address} is the only server of {upstream}; an upstream needs one (`cmim servers drain` takes it out of work)"
    )]
    Last { upstream: String, address: String },
    #[error("{0}")]
    File(#[from] ConfigErrors),
    #[error("the servers of {upstream} are written in a way that cannot be edited; edit the file and `cmim reload`")]
    Form { upstream: String },
}

fn did_you_mean(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {}?", quoted(nearest)),
        None => format!("; known: {}", known.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
    }
}

fn instead(unfit: &Unfit) -> String {
    unfit.instead.as_deref().map_or_else(String::new, |instead| format!("; did you mean {}?", quoted(instead)))
}

/// `config` with one more server.
pub fn with_server(config: &Config, upstream: &str, server: &NewServer) -> Result<Config, ServerError> {
    let address = server_address(&server.address)?;
    let mut config = config.clone();
    let upstream = find(&mut config, upstream)?;
    if upstream.servers.iter().any(|other| other.address == address) {
        return Err(ServerError::There { upstream: upstream.name.clone(), address: address.to_string() });
    }
    let max_requests = usize::try_from(server.max_requests).ok().filter(|&most| most > 0);
    upstream.servers.push(Server { address, weight: server.weight.max(1), max_requests, backup: server.backup });
    Ok(config)
}

/// `config` without one of its servers.
pub fn without_server(config: &Config, upstream: &str, text: &str) -> Result<Config, ServerError> {
    let mut config = config.clone();
    let upstream = find(&mut config, upstream)?;
    let position = position(upstream, text)?;
    if upstream.servers.len() == 1 {
        return Err(ServerError::Last { upstream: upstream.name.clone(), address: text.to_owned() });
    }
    upstream.servers.remove(position);
    Ok(config)
}

/// The text of a file with one more server. `file`: for messages.
pub fn add_to_text(text: &str, file: &str, upstream: &str, server: &NewServer) -> Result<String, ServerError> {
    let config = parse(text, file)?;
    with_server(&config, upstream, server)?;
    edit(text, file, &config, upstream, |servers| match servers {
        Servers::Inline(array) => push(array, inline(server)),
        Servers::Tables(tables) => tables.push(inline(server).into_table()),
    })
}

/// The text of a file without one of its servers. `file`: for messages.
pub fn remove_from_text(text: &str, file: &str, upstream: &str, address: &str) -> Result<String, ServerError> {
    let mut config = parse(text, file)?;
    without_server(&config, upstream, address)?;
    let position = position(find(&mut config, upstream)?, address)?;
    edit(text, file, &config, upstream, |servers| match servers {
        Servers::Inline(array) => remove(array, position),
        Servers::Tables(tables) => drop(tables.remove(position)),
    })
}

/// How a file writes the servers of an upstream.
enum Servers<'a> {
    /// `servers = [{ … }]`
    Inline(&'a mut Array),
    /// `[[upstream.servers]]`
    Tables(&'a mut ArrayOfTables),
}

fn edit(
    text: &str,
    file: &str,
    config: &Config,
    upstream: &str,
    act: impl FnOnce(Servers<'_>),
) -> Result<String, ServerError> {
    let form = || ServerError::Form { upstream: upstream.to_owned() };
    let mut document: DocumentMut = text.parse().map_err(|_| form())?;
    // Names that the file leaves out were given by position.
    let position = config.upstreams.iter().position(|other| other.name == upstream).ok_or_else(form)?;
    let servers = servers(&mut document, position).ok_or_else(form)?;
    act(servers);
    let edited = document.to_string();
    parse(&edited, file)?;
    Ok(edited)
}

fn servers(document: &mut DocumentMut, upstream: usize) -> Option<Servers<'_>> {
    let servers = match document.get_mut("upstream")? {
        Item::ArrayOfTables(tables) => tables.get_mut(upstream)?.get_mut("servers")?,
        Item::Value(Value::Array(list)) => {
            let table = list.get_mut(upstream)?.as_inline_table_mut()?;
            return table.get_mut("servers")?.as_array_mut().map(Servers::Inline);
        }
        _ => return None,
    };
    match servers {
        Item::Value(Value::Array(array)) => Some(Servers::Inline(array)),
        Item::ArrayOfTables(tables) => Some(Servers::Tables(tables)),
        _ => None,
    }
}

fn inline(server: &NewServer) -> InlineTable {
    let mut table = InlineTable::new();
    table.insert("address", server.address.as_str().into());
    if server.weight > 1 {
        table.insert("weight", i64::from(server.weight).into());
    }
    if server.max_requests > 0 {
        table.insert("max_requests", i64::try_from(server.max_requests).unwrap_or(i64::MAX).into());
    }
    if server.backup {
        table.insert("backup", true.into());
    }
    table
}

/// Behind the last one, and looking like it.
fn push(array: &mut Array, table: InlineTable) {
    let mut value = Value::InlineTable(table);
    if let Some(last) = array.iter().last() {
        let prefix = last.decor().prefix().cloned().unwrap_or_default();
        let prefix = prefix.as_str().map_or_else(|| " ".to_owned(), |prefix| own_line(prefix).to_owned());
        value.decor_mut().set_prefix(if array.len() == 1 && prefix.is_empty() { " ".to_owned() } else { prefix });
    }
    // What stood between the last one and the bracket, such as the line's end, stays there.
    if !array.trailing_comma()
        && let Some(last) = array.iter_mut().last()
        && let Some(suffix) = last.decor().suffix().cloned()
    {
        last.decor_mut().set_suffix("");
        value.decor_mut().set_suffix(suffix);
    }
    array.push_formatted(value);
}

/// The last line of what stands before a value: comments above it are about that one alone.
fn own_line(prefix: &str) -> &str {
    prefix.rfind('\n').map_or(prefix, |end| &prefix[end..])
}

fn remove(array: &mut Array, position: usize) {
    let removed = array.remove(position);
    if position == 0
        && let Some(first) = array.get_mut(0)
        && let Some(prefix) = removed.decor().prefix().cloned()
    {
        first.decor_mut().set_prefix(prefix);
    }
}

fn find<'a>(config: &'a mut Config, name: &str) -> Result<&'a mut Upstream, ServerError> {
    let known: Vec<String> = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    config.upstreams.iter_mut().find(|upstream| upstream.name == name).ok_or_else(|| {
        let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        ServerError::NoUpstream { name: name.to_owned(), nearest, known }
    })
}

fn position(upstream: &Upstream, text: &str) -> Result<usize, ServerError> {
    let address = server_address(text)?;
    let not_there = || ServerError::NotThere { upstream: upstream.name.clone(), address: text.to_owned() };
    upstream.servers.iter().position(|server| server.address == address).ok_or_else(not_there)
}

/// The address that an operator's text means, read as a server's `address` in the file is.
pub fn server_address(text: &str) -> Result<ServerAddress, ServerError> {
    parse_server(text).map_err(|unfit| {
        let unfit = if unfit.expected.is_empty() { Unfit::new(EXPECTED_SERVER) } else { unfit };
        ServerError::Address { text: text.to_owned(), unfit }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# mine\n[[listener]]\naddress = \"127.0.0.1:80\" # the door\n\n";

    fn server(address: &str) -> NewServer {
        NewServer { address: address.to_owned(), weight: 1, max_requests: 0, backup: false }
    }

    fn check(before: &str, act: impl Fn(&str) -> Result<String, ServerError>, after: &str) {
        assert_eq!(act(&format!("{HEAD}{before}")).unwrap(), format!("{HEAD}{after}"));
    }

    #[test]
    fn a_server_is_added_behind_the_others_in_their_layout() {
        let add = |text: &str| add_to_text(text, "f", "app", &server("127.0.0.1:9002"));
        check(
            "[[upstream]]\nservers = [{ address = \"127.0.0.1:9001\" }] # one\n",
            add,
            "[[upstream]]\nservers = [{ address = \"127.0.0.1:9001\" }, { address = \"127.0.0.1:9002\" }] # one\n",
        );
        check(
            "[[upstream]]\nservers = [\n  # the first\n  { address = \"127.0.0.1:9001\" },\n]\n",
            add,
            "[[upstream]]\nservers = [\n  # the first\n  { address = \"127.0.0.1:9001\" },\n  { address = \"127.0.0.1:9002\" },\n]\n",
        );
        check(
            "[[upstream]]\nservers = [\n  { address = \"127.0.0.1:9001\" }\n]\n",
            add,
            "[[upstream]]\nservers = [\n  { address = \"127.0.0.1:9001\" },\n  { address = \"127.0.0.1:9002\" }\n]\n",
        );
        check(
            "[[upstream]]\n[[upstream.servers]]\naddress = \"127.0.0.1:9001\"\n",
            add,
            "[[upstream]]\n[[upstream.servers]]\naddress = \"127.0.0.1:9001\"\n\n[[upstream.servers]]\naddress = \"127.0.0.1:9002\"\n",
        );
    }

    #[test]
    fn what_is_not_the_default_is_written() {
        let new = NewServer { weight: 3, max_requests: 8, backup: true, ..server("unix:/run/a.sock") };
        let text = format!("{HEAD}[[upstream]]\nservers = [{{ address = \"127.0.0.1:9001\" }}]\n");
        let added = add_to_text(&text, "f", "app", &new).unwrap();
        assert!(
            added.contains("{ address = \"unix:/run/a.sock\", weight = 3, max_requests = 8, backup = true }"),
            "{added}"
        );
        let config = parse(&added, "f").unwrap();
        assert_eq!(config, with_server(&parse(&text, "f").unwrap(), "app", &new).unwrap());
    }

    #[test]
    fn a_server_is_removed_and_the_others_stay_as_they_are() {
        let remove = |text: &str| remove_from_text(text, "f", "app", "127.0.0.1:9001");
        check(
            "[[upstream]]\nservers = [{ address = \"127.0.0.1:9001\" }, { address = \"127.0.0.1:9002\" }]\n",
            remove,
            "[[upstream]]\nservers = [{ address = \"127.0.0.1:9002\" }]\n",
        );
        check(
            "[[upstream]]\nservers = [\n  { address = \"127.0.0.1:9002\" }, # two\n  { address = \"localhost:9001\" },\n]\n",
            remove,
            "[[upstream]]\nservers = [\n  { address = \"127.0.0.1:9002\" },\n]\n",
        );
    }

    #[test]
    fn upstreams_without_a_name_are_found_by_their_place() {
        let listener = "[[listener]]\naddress = \"127.0.0.1:80\"\nupstream = \"app\"\n";
        let text = format!(
            "{listener}[[upstream]]\nservers = [{{ address = \"127.0.0.1:1\" }}]\n[[upstream]]\nservers = [{{ address = \"127.0.0.1:2\" }}]\n"
        );
        let added = add_to_text(&text, "f", "app-2", &server("127.0.0.1:3")).unwrap();
        assert!(
            added.ends_with("servers = [{ address = \"127.0.0.1:2\" }, { address = \"127.0.0.1:3\" }]\n"),
            "{added}"
        );
    }

    #[test]
    fn what_cannot_be_says_why() {
        let text = format!("{HEAD}[[upstream]]\nservers = [{{ address = \"127.0.0.1:9001\" }}]\n");
        let config = parse(&text, "f").unwrap();
        let refused = |result: Result<Config, ServerError>| result.unwrap_err().to_string();
        assert_eq!(
            refused(with_server(&config, "ap", &server("127.0.0.1:1"))),
            "no upstream is named \"ap\"; did you mean \"app\"?"
        );
        assert!(refused(with_server(&config, "app", &server("127.0.0.1"))).contains("expected"));
        assert_eq!(
            refused(with_server(&config, "app", &server("127.0.0.1:9001"))),
            "127.0.0.1:9001 is a server of app already (`cmim servers` lists them)"
        );
        assert!(refused(without_server(&config, "app", "127.0.0.1:1")).contains("is no server of app"));
        assert!(refused(without_server(&config, "app", "127.0.0.1:9001")).contains("the only server"));
    }
}
