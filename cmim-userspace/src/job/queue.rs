//! A bounded queue that is fair between client connections: they take turns, whatever each of them has waiting.

use std::collections::{HashMap, VecDeque};

/// Names one waiting job for [`FairQueue::cancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    client: u64,
    number: u64,
}

/// Jobs `T` by client connection. Within one client the order is first in, first out; between clients it is in turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    waiting: HashMap<u64, VecDeque<(u64, T)>>,
    /// Clients with something waiting, each once, in the order of their turns.
    turns: VecDeque<u64>,
    len: usize,
    limit: usize,
    next_number: u64,
}

impl<T> FairQueue<T> {
    /// `limit`: jobs waiting at once.
    pub fn new(limit: usize) -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new(), len: 0, limit, next_number: 0 }
    }

    /// Those that wait already stay, also above the new limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All waiting jobs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.values().flatten().map(|(_, job)| job)
    }

    /// Queues a job of a client connection, or gives it back where the queue is full.
    pub fn push(&mut self, client: u64, job: T) -> Result<Ticket, T> {
        if self.len >= self.limit {
            return Err(job);
        }
        let number = self.next_number;
        self.next_number += 1;
        let queue = self.waiting.entry(client).or_default();
        if queue.is_empty() {
            self.turns.push_back(client);
        }
        queue.push_back((number, job));
        self.len += 1;
        self.check_invariants();
        Ok(Ticket { client, number })
    }

    /// Queues a job before all others, also where the queue is full: it had a place already and lost it.
    pub fn push_first(&mut self, client: u64, job: T) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.entry(client).or_default().push_front((number, job));
        self.turns.retain(|&other| other != client);
        self.turns.push_front(client);
        self.len += 1;
        self.check_invariants();
        Ticket { client, number }
    }

    /// The first job in turn that `may_go`. A client's jobs do not overtake one another.
    pub fn pop_first(&mut self, mut may_go: impl FnMut(&T) -> bool) -> Option<T> {
        let first = |client: &u64| self.waiting.get(client).and_then(VecDeque::front);
        let at = self.turns.iter().position(|client| first(client).is_some_and(|(_, job)| may_go(job)))?;
        let client = self.turns.remove(at)?;
        let queue = self.waiting.get_mut(&client)?;
        let (_, job) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.len -= 1;
        self.check_invariants();
        Some(job)
    }

    /// Takes a job out before its turn. `None`: its turn has come already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let queue = self.waiting.get_mut(&ticket.client)?;
        let position = queue.iter().position(|&(number, _)| number == ticket.number)?;
        let (_, job) = queue.remove(position)?;
        if queue.is_empty() {
            self.waiting.remove(&ticket.client);
            self.turns.retain(|&client| client != ticket.client);
        }
        self.len -= 1;
        self.check_invariants();
        Some(job)
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.turns.len(), self.waiting.len());
        debug_assert_eq!(self.len, self.waiting.values().map(VecDeque::len).sum::<usize>());
        debug_assert!(self.waiting.values().all(|queue| !queue.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_whatever_each_has_waiting() {
        let mut queue = FairQueue::new(100);
        for job in 0..4 {
            queue.push(1, (1, job)).unwrap();
        }
        queue.push(2, (2, 0)).unwrap();
        queue.push(3, (3, 0)).unwrap();
        let order: Vec<(u64, u32)> = std::iter::from_fn(|| queue.pop_first(|_| true)).collect();
        assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn one_that_may_not_go_lets_other_clients_pass_and_none_of_its_own() {
        let mut queue = FairQueue::new(100);
        queue.push(1, "stays").unwrap();
        queue.push(1, "goes, in its turn").unwrap();
        queue.push(2, "goes").unwrap();
        assert_eq!(queue.pop_first(|job| *job != "stays"), Some("goes"));
        assert_eq!(queue.pop_first(|job| *job != "stays"), None);
        assert_eq!(queue.pop_first(|_| true), Some("stays"));
        assert_eq!(queue.pop_first(|_| true), Some("goes, in its turn"));
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let mut queue = FairQueue::new(1);
        queue.push(1, "first").unwrap();
        assert_eq!(queue.push(1, "second"), Err("second"));
        assert_eq!(queue.pop_first(|_| true), Some("first"));
        assert!(queue.push(1, "third").is_ok());
    }

    #[test]
    fn one_that_comes_back_goes_first_also_where_the_queue_is_full() {
        let mut queue = FairQueue::new(2);
        queue.push(1, "first").unwrap();
        queue.push(2, "second").unwrap();
        queue.push_first(3, "back");
        let back = queue.push_first(2, "back too");
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.pop_first(|_| true), Some("back too"));
        assert_eq!(queue.cancel(back), None);
        assert_eq!(queue.push(4, "newcomer"), Err("newcomer"));
        let rest: Vec<&str> = std::iter::from_fn(|| queue.pop_first(|_| true)).collect();
        assert_eq!(rest, ["back", "first", "second"]);
    }

    #[test]
    fn a_cancelled_job_leaves_the_others_in_their_order() {
        let mut queue = FairQueue::new(10);
        queue.push(1, 'a').unwrap();
        let b = queue.push(1, 'b').unwrap();
        let c = queue.push(2, 'c').unwrap();
        assert_eq!(queue.cancel(b), Some('b'));
        assert_eq!(queue.cancel(b), None);
        assert_eq!(queue.cancel(c), Some('c'));
        assert_eq!(queue.pop_first(|_| true), Some('a'));
        assert_eq!(queue.pop_first(|_| true), None);
        assert!(queue.is_empty());
    }
}
