//! The addresses that the device listens on: from the configuration to each worker's sockets, at the start and later.

use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use super::event_loop::Sockets;
use crate::config::Config;
use crate::config::model::ListenAddress;
use crate::kernel::{Listening, OpenSockets};
use crate::net::{self, Bound, Inherited, ListenError};

/// Where the device listens.
#[derive(Debug, Default)]
pub(super) struct Doorways(Vec<Doorway>);

#[derive(Debug, Clone)]
struct Doorway {
    /// As the configuration has it.
    configured: ListenAddress,
    /// With its port also where the configuration left that to the kernel.
    bound: ListenAddress,
    /// What its sockets hear beside that.
    other_family: Option<ListenAddress>,
    /// The workers' sockets once more, to hand to a new process. They keep the door open: this has to go first.
    sockets: Arc<Vec<TcpListener>>,
}

/// Addresses that are new, bound and not listening yet.
#[derive(Debug, Default)]
pub(super) struct Fresh(Vec<(ListenAddress, String, Bound)>);

/// Sockets that listen, for no worker yet.
#[derive(Debug)]
pub(super) struct Listened(Vec<(Doorway, Vec<TcpListener>)>);

impl Doorways {
    /// Binds what `config` has beyond these, or takes it from what others have opened.
    pub(super) fn bind(&self, config: &Config, inherited: &mut Inherited) -> Result<Fresh, ListenError> {
        let own: Vec<ListenAddress> = self.0.iter().map(|door| door.bound).collect();
        let workers = config.daemon.workers;
        let mut fresh = Vec::new();
        for listener in &config.listeners {
            for &address in listener.address.iter().filter(|address| !self.has(**address)) {
                let sockets = inherited.take(address);
                let bound = if sockets.is_empty() {
                    net::bind(&listener.name, address, workers, &own)?
                } else {
                    net::inherited(&listener.name, address, workers, sockets)?
                };
                fresh.push((address, listener.name.clone(), bound));
            }
        }
        Ok(Fresh(fresh))
    }

    /// These as they are with `config` and what was opened for it.
    pub(super) fn with(&self, config: &Config, new: &Listened) -> Self {
        let all = self.0.iter().chain(new.0.iter().map(|(door, _)| door)).cloned();
        let is_wanted =
            |door: &Doorway| config.listeners.iter().any(|listener| listener.address.contains(&door.configured));
        Self(all.filter(is_wanted).collect())
    }

    /// The sockets of each address, as the configuration has it.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (ListenAddress, &[TcpListener])> {
        self.0.iter().map(|door| (door.configured, door.sockets.as_slice()))
    }

    /// As the kernel part steers and spreads to them.
    pub(super) fn open_sockets(&self) -> Vec<OpenSockets<'_>> {
        self.0.iter().map(Doorway::open_sockets).collect()
    }

    /// As the kernel part is told of them and of what is new.
    pub(super) fn listenings(&self, config: &Config, fresh: &Fresh) -> Vec<Listening> {
        let own = self.0.iter().map(|door| (door.configured, door.bound, door.other_family));
        let new = fresh.0.iter().map(|(configured, _, bound)| (*configured, bound.address(), bound.other_family()));
        let doors: Vec<_> = own.chain(new).collect();
        // A socket of that family's own hears first.
        let is_new = |other: &ListenAddress| !doors.iter().any(|(_, bound, _)| bound == other);
        let firsts = doors.iter().map(|(configured, bound, _)| (configured, *bound));
        let others = doors.iter().filter_map(|(configured, _, other)| Some((configured, other.filter(is_new)?)));
        let of = |(configured, address)| {
            let (id, listener) =
                (0..).zip(&config.listeners).find(|(_, listener)| listener.address.contains(configured))?;
            Some(Listening { id, name: listener.name.clone(), address })
        };
        firsts.chain(others).filter_map(of).collect()
    }

    fn has(&self, configured: ListenAddress) -> bool {
        self.0.iter().any(|door| door.configured == configured)
    }
}

impl Doorway {
    fn open_sockets(&self) -> OpenSockets<'_> {
        OpenSockets { address: self.bound, sockets: self.sockets.iter().map(|socket| socket.as_fd()).collect() }
    }
}

impl Fresh {
    /// Opens the doors.
    pub(super) fn listen(self) -> Result<Listened, ListenError> {
        let mut listened = Vec::new();
        for (configured, name, bound) in self.0 {
            let (address, other_family) = (bound.address(), bound.other_family());
            let failed = |source| ListenError::Other { listener: name.clone(), address, source };
            let sockets = bound.listen()?;
            let copies = sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>().map_err(failed)?;
            tracing::info!(listener = %name, "listening on {address}");
            listened.push((Doorway { configured, bound: address, other_family, sockets: Arc::new(copies) }, sockets));
        }
        Ok(Listened(listened))
    }
}

impl Listened {
    /// As the kernel part steers and spreads to them.
    pub(super) fn open_sockets(&self) -> Vec<OpenSockets<'_>> {
        self.0.iter().map(|(door, _)| door.open_sockets()).collect()
    }

    /// Those of `all` that these sockets are for.
    pub(super) fn listenings(&self, all: &[Listening]) -> Vec<Listening> {
        let is_here = |listening: &&Listening| self.0.iter().any(|(door, _)| door.bound == listening.address);
        all.iter().filter(is_here).cloned().collect()
    }

    /// Gives each worker its sockets.
    pub(super) fn by_worker(self, workers: usize) -> Vec<Sockets> {
        let mut by_worker: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
        for (door, sockets) in self.0 {
            for (worker, socket) in (0..workers).cycle().zip(sockets) {
                if let Some(own) = by_worker.get_mut(worker) {
                    own.push((door.configured, socket));
                }
            }
        }
        by_worker
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::{Doorways, Fresh};
    use crate::config;
    use crate::net::Inherited;

    /// As systemd makes them where it is not told otherwise.
    fn hears(only_v6: bool) -> Vec<String> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a host with IPv6");
        socket.set_only_v6(only_v6).expect("not bound yet");
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).expect("a free port");
        socket.listen(1).expect("bound");
        let address = socket.local_addr().expect("bound").as_socket().expect("of IP");
        let text = format!(
            "[[listener]]\naddress = \"{address}\"\n[[upstream]]\nservers = [{{ address = \"127.0.0.1:9001\" }}]\n"
        );
        let config = config::parse(&text, "test").expect("a configuration");
        let mut inherited = Inherited::default();
        inherited.add(address.into(), socket.into());
        let before = Doorways::default();
        let fresh = before.bind(&config, &mut inherited).expect("it is open already");
        let told = before.listenings(&config, &fresh);
        let doorways = before.with(&config, &fresh.listen().expect("it listens already"));
        assert_eq!(doorways.listenings(&config, &Fresh::default()), told, "the same at a reload");
        let port = format!(":{}", address.port());
        told.iter().map(|listening| listening.address.to_string().replace(&port, "")).collect()
    }

    #[test]
    fn a_socket_for_both_families_is_a_listener_of_both_to_the_kernel_part() {
        assert_eq!(hears(false), ["[::]", "0.0.0.0"]);
        assert_eq!(hears(true), ["[::]"]);
    }
}
