//! A channel between a daemon and the one that takes its place: words, and with them open sockets.
//!
//! Owns how both travel (one message of a SOCK_SEQPACKET socket each, descriptors as SCM_RIGHTS, unix(7)). What the words
//! are is [`crate::worker`]'s.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::config::model::ListenAddress;

/// Descriptors with one message; the kernel allows 253 (SCM_MAX_FD).
pub const MOST_SOCKETS: usize = 128;
/// A word is a line or a few.
const LONGEST_WORD: usize = 64 * 1024;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends, closed at exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// The other end, as a process was started with it.
    #[must_use]
    pub fn of(end: OwnedFd) -> Self {
        Self(end)
    }

    #[must_use]
    pub fn into_end(self) -> OwnedFd {
        self.0
    }

    /// Sends one word with at most [`MOST_SOCKETS`] descriptors.
    pub fn send(&self, word: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("too many sockets for one message"));
        }
        // An end that is gone is an error, not a signal.
        let sent = sendmsg(&self.0, &[IoSlice::new(word)], &mut control, SendFlags::NOSIGNAL)?;
        if sent == word.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next word; `Ok(None)`: the other end is closed. An error of kind `WouldBlock` after `patience`.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut word = vec![0; LONGEST_WORD];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let sockets: Vec<OwnedFd> = rights.flatten().collect();
        if got.bytes == 0 {
            return Ok(None);
        }
        word.truncate(got.bytes);
        Ok(Some((word, sockets)))
    }
}

/// Listening sockets that somebody else opened, each with the address that it was opened for.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(ListenAddress, TcpListener)>);

impl Inherited {
    pub fn add(&mut self, address: ListenAddress, socket: TcpListener) {
        self.0.push((address, socket));
    }

    /// Takes the sockets of an address out; none: it has to be bound.
    pub fn take(&mut self, address: ListenAddress) -> Vec<TcpListener> {
        self.0.extract_if(.., |(other, _)| *other == address).map(|(_, socket)| socket).collect()
    }

    /// The addresses that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = ListenAddress> {
        self.0.iter().map(|(address, _)| *address)
    }

    /// Sockets that the service manager listens on (sd_listen_fds(3)).
    pub fn of_service_manager() -> io::Result<Self> {
        let mut inherited = Self::default();
        for descriptor in sd_notify::listen_fds()? {
            let socket = TcpListener::from(adopt(descriptor)?);
            // A socket of another kind has no such address.
            let address = socket.local_addr()?;
            socket.set_nonblocking(true)?;
            inherited.add(address.into(), socket);
        }
        Ok(inherited)
    }
}

/// A descriptor of this process of its own for one that it was started with.
#[expect(unsafe_code, reason = "the service manager tells of descriptors by number")]
fn adopt(descriptor: std::os::fd::RawFd) -> io::Result<OwnedFd> {
    // SAFETY: LISTEN_PID names this process, which was started with this descriptor open and closes none of them.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_socket_arrives_with_its_word_and_still_listens() {
        let (ours, theirs) = Channel::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ours.send(b"one", &[listener.as_fd(), listener.as_fd()]).unwrap();
        ours.send(b"two", &[]).unwrap();
        drop((listener, ours));
        let (word, sockets) = theirs.receive(PATIENCE).unwrap().unwrap();
        assert_eq!((word.as_slice(), sockets.len()), (b"one".as_slice(), 2));
        std::net::TcpStream::connect(address).unwrap();
        assert_eq!(theirs.receive(PATIENCE).unwrap().unwrap().0, b"two");
        assert!(theirs.receive(PATIENCE).unwrap().is_none(), "the other end is closed");
    }

    #[test]
    fn silence_is_an_error_after_the_patience() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let error = ours.receive(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_end_that_is_gone_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert!(ours.send(b"word", &[]).is_err());
    }

    #[test]
    fn sockets_are_taken_by_their_address_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: ListenAddress = listener.local_addr().unwrap().into();
        let mut inherited = Inherited::default();
        inherited.add(address, listener);
        assert!(inherited.take("127.0.0.1:1".parse().unwrap()).is_empty());
        assert_eq!(inherited.left().collect::<Vec<_>>(), [address]);
        assert_eq!(inherited.take(address).len(), 1);
        assert!(inherited.take(address).is_empty());
    }
}
