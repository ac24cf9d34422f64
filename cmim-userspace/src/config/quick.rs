//! A configuration without a file, from command line flags: one listener, one upstream.
//!
//! Owns the flags' way to the same document that a file becomes, so that both obey the same rules. Messages name the flag.

use std::path::{Path, PathBuf};

use super::document::{Node, Table, Value, read_fragment};
use super::error::{ConfigError, ConfigErrors, Place, Problem, SET_FLAG, Spot, Unfit, quoted};
use super::model::Config;
use super::validate::validate;

/// The flags of `cmim run` that stand for a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quick {
    /// `--listen`: addresses of the listener `web`.
    pub listen: Vec<String>,
    /// `--server`: servers of the upstream `app`.
    pub servers: Vec<String>,
    /// `--kernel`: `kernel.mode`.
    pub kernel: Option<String>,
    /// `--workers`: `daemon.workers`.
    pub workers: Option<String>,
    /// `--control`: `daemon.control_socket`; a relative path is meant from the current directory.
    pub control: Option<PathBuf>,
    /// `--pin-dir`: `kernel.pin_dir`; a relative path is meant from the current directory.
    pub pin_dir: Option<PathBuf>,
    /// `--interface`: `kernel.interfaces`.
    pub interfaces: Vec<String>,
    /// `--access-log`: `access_log.path`; stdout without it.
    pub access_log: Option<String>,
    /// `--set`: any key of the file, such as `upstream.length_rewrite="always"`, in TOML. A plain word needs no quotes.
    pub set: Vec<String>,
}

/// The configuration that the flags describe. What `--set` says goes before the other flags.
pub fn quick(options: &Quick) -> Result<Config, ConfigErrors> {
    let mut flags = Flags::default();
    let mut root = flags.tables(options);
    for text in &options.set {
        if let Some(table) = flags.setting(text) {
            root.overlay(table);
        }
    }
    flags.require_addresses(&root);
    let place = flags.place(SET_FLAG);
    let mut errors = flags.errors;
    match validate(&Node { place, value: Value::Table(root) }) {
        Ok(config) if errors.is_empty() => return Ok(config),
        Ok(_) => {}
        Err(others) => errors.extend(others.into_errors().into_iter().filter(|error| !is_named_by_flag(error))),
    }
    Err(ConfigErrors::new(errors))
}

/// Turns flags into nodes and counts them, so that errors come in their order.
#[derive(Debug, Default)]
struct Flags {
    count: usize,
    errors: Vec<ConfigError>,
}

impl Flags {
    fn tables(&mut self, options: &Quick) -> Table {
        let mut listener = Table::default();
        self.set_list(&mut listener, "address", "--listen", &options.listen);
        let mut upstream = Table::default();
        if !options.servers.is_empty() {
            let servers = options.servers.iter().map(|server| self.server(server)).collect();
            upstream.set("servers", self.node("--server", Value::List(servers)));
        }
        let mut kernel = Table::default();
        self.set_text(&mut kernel, "mode", "--kernel", options.kernel.as_deref());
        let mut daemon = Table::default();
        if let Some(workers) = &options.workers {
            let number = workers.parse().map(Value::Integer);
            let value = number.unwrap_or_else(|_| Value::Text(workers.clone()));
            daemon.set("workers", self.node("--workers", value));
        }
        self.set_path(&mut daemon, "control_socket", "--control", options.control.as_deref());
        self.set_path(&mut kernel, "pin_dir", "--pin-dir", options.pin_dir.as_deref());
        self.set_list(&mut kernel, "interfaces", "--interface", &options.interfaces);
        let mut access_log = Table::default();
        let path = options.access_log.as_deref().unwrap_or("stdout");
        self.set_text(&mut access_log, "path", "--access-log", Some(path));

        let mut root = Table::default();
        for (key, table) in [("daemon", daemon), ("kernel", kernel), ("access_log", access_log)] {
            root.set(key, self.node(SET_FLAG, Value::Table(table)));
        }
        for (key, table) in [("listener", listener), ("upstream", upstream)] {
            let item = self.node(SET_FLAG, Value::Table(table));
            root.set(key, self.node(SET_FLAG, Value::List(vec![item])));
        }
        root
    }

    fn server(&mut self, address: &str) -> Node {
        let address = self.node("--server", Value::Text(address.to_owned()));
        let place = address.place.clone();
        let mut table = Table::default();
        table.set("address", address);
        Node { place, value: Value::Table(table) }
    }

    /// The table that `key=value` means.
    fn setting(&mut self, text: &str) -> Option<Table> {
        let place = self.place(SET_FLAG);
        let as_toml = read_fragment(text, &place).ok().filter(|table| !table.entries.is_empty());
        let table = as_toml.or_else(|| read_fragment(&bare_word(text)?, &place).ok());
        if table.is_some() {
            return table;
        }
        let unfit = Unfit::new("KEY=VALUE in TOML, such as limits.request_head=\"16KiB\"");
        self.refuse(place, Problem::Unfit { found: quoted(text), unfit });
        None
    }

    /// A device without an address or a server is the most common mistake; its message names the flag, not the key.
    fn require_addresses(&mut self, root: &Table) {
        for (section, key, flag, example) in [
            ("listener", "address", "--listen", "127.0.0.1:8080"),
            ("upstream", "servers", "--server", "127.0.0.1:9001"),
        ] {
            if !has_key(root, section, key) {
                let place = self.place(flag);
                let add = format!("name at least one, such as {flag} {example}");
                self.refuse(place, Problem::Missing { add });
            }
        }
    }

    fn set_text(&mut self, table: &mut Table, key: &str, flag: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            table.set(key, self.node(flag, Value::Text(text.to_owned())));
        }
    }

    fn set_list(&mut self, table: &mut Table, key: &str, flag: &'static str, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        let items = texts.iter().map(|text| self.node(flag, Value::Text(text.clone())));
        let items = items.collect();
        table.set(key, self.node(flag, Value::List(items)));
    }

    fn set_path(&mut self, table: &mut Table, key: &str, flag: &'static str, path: Option<&Path>) {
        let Some(path) = path else {
            return;
        };
        let absolute = std::path::absolute(path).ok();
        if let Some(text) = absolute.as_deref().and_then(Path::to_str) {
            self.set_text(table, key, flag, Some(text));
            return;
        }
        let place = self.place(flag);
        let unfit = Unfit::new("a path in UTF-8");
        let found = quoted(&path.to_string_lossy());
        self.refuse(place, Problem::Unfit { found, unfit });
    }

    fn node(&mut self, flag: &'static str, value: Value) -> Node {
        Node { place: self.place(flag), value }
    }

    fn place(&mut self, flag: &'static str) -> Place {
        self.count = self.count.saturating_add(1);
        Place::Flag { flag, order: self.count }
    }

    fn refuse(&mut self, place: Place, problem: Problem) {
        let key = String::new();
        self.errors.push(ConfigError { spot: Spot { key, place }, problem });
    }
}

/// What [`Flags::require_addresses`] has said in better words.
fn is_named_by_flag(error: &ConfigError) -> bool {
    let key = error.spot.key.as_str();
    matches!(error.problem, Problem::Missing { .. }) && matches!(key, "listener[0].address" | "upstream[0].servers")
}

/// `key=word` as `key="word"`: shells take quotes away, and a word cannot mean anything else.
fn bare_word(text: &str) -> Option<String> {
    let (key, value) = text.split_once('=')?;
    let value = value.trim();
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_control() || "\"'\\[]{},#".contains(c));
    plain.then(|| format!("{key}=\"{value}\""))
}

/// Whether every table of the list `section` has `key`. A section that is no list of tables is left to `validate`.
fn has_key(root: &Table, section: &str, key: &str) -> bool {
    let Some(Value::List(items)) = root.get(section).map(|entry| &entry.node.value) else {
        return true;
    };
    items.iter().all(|item| match &item.value {
        Value::Table(table) => table.get(key).is_some(),
        _ => true,
    })
}
