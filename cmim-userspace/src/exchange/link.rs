//! A client connection as its exchanges see it: where replies go, whose turn it is, and where contents come from.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::content::{Content, Piece};
use super::failure::{ContentFault, Failure};
use super::input::Owner;
use super::progress::Progress;
use super::site::Site;
use super::timer::Timer;
use super::trail::Trail;
use super::upstream::SharedUpstream;
use crate::buffer::ReadSize;
use crate::h1::RequestHead;
use crate::lane::turn;
use crate::net::Stream;
use crate::observe::roll::Record;
use crate::stack::Seq;
use crate::upstream::ServerId;

/// One request that is ready to go.
#[derive(Debug)]
pub struct Job {
    pub seq: Seq,
    pub head: RequestHead,
    pub upstream: Arc<SharedUpstream>,
    pub trail: Trail,
    pub progress: Progress,
}

/// A client connection before its first request.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    /// The address at which it came in, where the PROXY protocol's header says that; else the socket knows.
    pub local: Option<SocketAddr>,
    /// The client, as the PROXY protocol says it where that is accepted.
    pub peer: SocketAddr,
    /// Names the connection within this run of the daemon.
    pub id: u64,
    /// Its forwarding fields are believed.
    pub trusted: bool,
    /// What was read off the stream already.
    pub read: BytesMut,
}

/// What the exchanges of one client connection share. They and the connection's own loop run in one task, so that
/// cells do.
#[derive(Debug)]
pub struct Link {
    pub stream: Stream,
    pub peer: SocketAddr,
    local: Option<SocketAddr>,
    pub id: u64,
    pub trusted: bool,
    input: RefCell<Input>,
    /// Asked several times a request.
    owner: Cell<Owner>,
    due: Cell<Seq>,
    waiting: RefCell<Vec<(Seq, Waker)>>,
    /// Requests whose replies have become whole since the connection's loop last looked.
    whole: RefCell<SmallVec<[Seq; 2]>>,
    /// A byte of the due reply was sent, or a part of an interim one before it.
    begun: Cell<bool>,
    /// A reply's head says that the connection ends behind it.
    said_close: Cell<bool>,
    /// The request that was read last.
    last: Cell<Seq>,
    /// Requests that the operator wants stopped.
    stopped: RefCell<Vec<Seq>>,
    working: RefCell<Vec<ServerId>>,
    /// The connection's own, while no exchange has it.
    timer: RefCell<Timer>,
    /// A lane watches the stream alone.
    lent: Cell<bool>,
    /// An exchange let others go first: the task is polled again at once.
    stepped_back: Cell<bool>,
    pub record: Arc<Record>,
}

/// What the client sent and nobody has looked at yet.
#[derive(Debug, Default)]
struct Input {
    buffer: BytesMut,
    /// The client ended its side.
    ended: bool,
}

impl Link {
    pub fn new(accepted: Accepted, record: Arc<Record>) -> Self {
        let Accepted { stream, local, peer, id, trusted, read } = accepted;
        Self {
            stream,
            peer,
            local,
            id,
            trusted,
            input: RefCell::new(Input { buffer: read, ended: false }),
            owner: Cell::default(),
            due: Cell::new(Seq(0)),
            waiting: RefCell::default(),
            whole: RefCell::default(),
            begun: Cell::new(false),
            said_close: Cell::new(false),
            last: Cell::new(Seq(0)),
            stopped: RefCell::default(),
            working: RefCell::default(),
            timer: RefCell::default(),
            lent: Cell::new(false),
            stepped_back: Cell::new(false),
            record,
        }
    }

    /// The address at which the client came in.
    ///
    /// # Errors
    ///
    /// When the socket does not know it any more.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.local.map_or_else(|| self.stream.local_address(), Ok)
    }

    pub fn client_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// What is left of a connection on which nothing happens. Its buffer is empty.
    pub fn into_accepted(self) -> Accepted {
        let Self { stream, local, peer, id, trusted, input, .. } = self;
        Accepted { stream, local, peer, id, trusted, read: input.into_inner().buffer }
    }

    /// Whether nothing of the client's was read and not looked at.
    pub fn has_no_input(&self) -> bool {
        self.input.borrow().buffer.is_empty()
    }

    /// Ready once the reply to `seq` is the one to be sent.
    pub fn poll_due(&self, cx: &mut Context<'_>, seq: Seq) -> Poll<()> {
        if self.due.get() == seq {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|(other, _)| *other == seq) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => waiting.push((seq, cx.waker().clone())),
        }
        Poll::Pending
    }

    pub fn is_due(&self, seq: Seq) -> bool {
        self.due.get() == seq
    }

    /// Says whose reply is due from now on.
    pub fn set_due(&self, seq: Seq) {
        self.due.set(seq);
        self.begun.set(false);
        let mut waiting = self.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|(other, _)| *other == seq) {
            waiting.swap_remove(at).1.wake();
        }
    }

    /// The due reply has begun to be sent: nothing else can take its place any more.
    pub fn begin_reply(&self) {
        self.begun.set(true);
    }

    pub fn reply_has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Whether nothing else can take the place of the reply to `seq` any more.
    pub fn has_begun_reply_to(&self, seq: Seq) -> bool {
        self.is_due(seq) && self.reply_has_begun()
    }

    /// Sends what is left of interim replies. As long as there is a rest of what was begun, nothing else can be sent.
    pub fn poll_interim(&self, cx: &mut Context<'_>, left: &mut impl Buf) -> Poll<io::Result<()>> {
        while left.has_remaining() {
            let count = ready!(self.poll_write(cx, &[IoSlice::new(left.chunk())]))?;
            left.advance(count);
            self.begun.set(left.has_remaining());
        }
        Poll::Ready(Ok(()))
    }

    /// A request was read.
    pub fn read(&self, seq: Seq) {
        self.last.set(seq);
    }

    /// Whether the connection stays open behind the reply to `job`, whose head is made now: a device that shuts down
    /// still answers what was read.
    pub fn persists(&self, site: &Site, job: &Job) -> bool {
        let persists = job.head.persistent && (!site.drain.has_begun() || job.seq < self.last.get());
        if !persists {
            self.said_close.set(true);
        }
        persists
    }

    pub fn has_said_close(&self) -> bool {
        self.said_close.get()
    }

    /// The operator wants a request stopped; its exchange finds that out when it is polled next.
    pub fn stop(&self, seq: Seq) {
        self.stopped.borrow_mut().push(seq);
    }

    pub fn is_stopped(&self, seq: Seq) -> bool {
        self.stopped.borrow().contains(&seq)
    }

    /// Ready once `deadline`, which is the connection's own, has passed.
    pub fn poll_timer(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.timer.borrow_mut().poll_until(cx, deadline)
    }

    /// A timer for one exchange: the connection's, which has no use for it meanwhile, where no other exchange has it.
    pub fn take_timer(&self) -> Timer {
        self.timer.take()
    }

    /// Takes an exchange's timer back, for the connection and the next exchange.
    pub fn keep_timer(&self, timer: Timer) {
        self.timer.replace(timer);
    }

    /// Lets everybody else have a turn who is ready now, so that what a busy worker sends goes out close together: a peer
    /// that is woken for several messages at once spends less on each.
    pub async fn step_back(&self) {
        self.stepped_back.set(true);
        turn().await;
    }

    /// Whether an exchange has stepped back since the last call; then there is nothing else to look at now.
    pub fn has_stepped_back(&self) -> bool {
        self.stepped_back.take()
    }

    /// Whether a reply has become whole since the last [`Self::take_whole`].
    pub fn has_whole(&self) -> bool {
        !self.whole.borrow().is_empty()
    }

    /// A reply is in the device to its last byte.
    pub fn reply_is_whole(&self, seq: Seq) {
        self.whole.borrow_mut().push(seq);
    }

    /// The requests whose replies have become whole since the last call.
    pub fn take_whole(&self) -> SmallVec<[Seq; 2]> {
        self.whole.take()
    }

    /// The servers that work for this connection now, one entry a request. Where none does, the plain case, an empty
    /// vector costs no allocation.
    pub fn working(&self) -> Vec<ServerId> {
        self.working.borrow().clone()
    }

    /// Notes that `server` works for this connection until the guard is dropped.
    pub fn works(&self, server: ServerId) -> Working<'_> {
        self.working.borrow_mut().push(server);
        Working { link: self, server }
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_write(cx, slices))?;
        self.record.wrote(count);
        Poll::Ready(Ok(count))
    }

    /// Reads more of what the client sends; false: it has ended its side.
    pub fn poll_fill(&self, cx: &mut Context<'_>, site: &Site) -> Poll<io::Result<bool>> {
        let mut input = self.input.borrow_mut();
        if input.ended {
            return Poll::Ready(Ok(false));
        }
        let size = if self.heads_are_next() { ReadSize::Head } else { ReadSize::Bulk };
        site.buffers.make_room(&mut input.buffer, size);
        let polled = self.stream.poll_read(cx, &mut input.buffer);
        let count = ready!(polled)?;
        input.ended = count == 0;
        self.record.read(count);
        Poll::Ready(Ok(count > 0))
    }

    /// Ready once the client is seen to have ended its side, while nobody reads what it sends. Bytes that nobody has read
    /// yet hide an end behind them.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.stream.poll_end(cx));
        self.input.borrow_mut().ended = true;
        Poll::Ready(())
    }

    /// To whom what comes next belongs.
    pub fn input_owner(&self) -> Owner {
        self.owner.get()
    }

    /// Leaves the stream to a lane, or takes it back. While it is lent, nobody else watches it.
    pub fn lend(&self, lent: bool) {
        self.lent.set(lent);
    }

    pub fn is_lent(&self) -> bool {
        self.lent.get()
    }

    /// Whether the client has ended its side.
    pub fn has_ended(&self) -> bool {
        self.input.borrow().ended
    }

    /// Whether what comes next is a head, and not a request's content or a tunnel's bytes.
    pub fn heads_are_next(&self) -> bool {
        matches!(self.owner.get(), Owner::Heads)
    }

    pub fn input_belongs_to(&self, seq: Seq) -> bool {
        self.owner.get().seq() == Some(seq)
    }

    pub fn give_input_to(&self, owner: Owner) {
        self.owner.set(owner);
    }

    /// The content that comes was read to its end.
    pub fn content_ended(&self) {
        self.give_input_to(self.input_owner().content_ended());
    }

    /// No tunnel comes of the request that has the input.
    pub fn stays_with_http(&self) {
        self.give_input_to(self.input_owner().stays_with_http());
    }

    /// Lets `look` take bytes off the front of what the client sent.
    pub fn with_input<T>(&self, look: impl FnOnce(&mut BytesMut) -> T) -> T {
        look(&mut self.input.borrow_mut().buffer)
    }

    /// Frees the input buffer's memory while the connection idles.
    pub fn rest(&self, site: &Site) {
        let mut input = self.input.borrow_mut();
        if input.buffer.is_empty() && input.buffer.capacity() > 0 {
            site.buffers.give_back(&mut input.buffer);
        }
    }

    /// The next piece of a request's content; `None`: it is whole.
    pub fn poll_content(
        &self,
        cx: &mut Context<'_>,
        content: &mut Content,
        site: &Site,
    ) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            let piece = self.with_input(|buffer| content.next(buffer)).map_err(ContentFault::Chunk);
            match piece.map_err(Failure::Content)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(data))),
                Piece::End { .. } => return Poll::Ready(Ok(None)),
                Piece::NeedMore => match ready!(self.poll_fill(cx, site)) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Ready(Err(ContentFault::Cut.into())),
                    Err(_) => return Poll::Ready(Err(Failure::ClientGone)),
                },
            }
        }
    }
}

/// A server at work for a client connection.
#[derive(Debug)]
pub struct Working<'a> {
    link: &'a Link,
    server: ServerId,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut working = self.link.working.borrow_mut();
        if let Some(at) = working.iter().position(|&server| server == self.server) {
            working.swap_remove(at);
        }
    }
}
