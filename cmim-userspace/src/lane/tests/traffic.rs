//! Peers that send and receive at random, and say what went by.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Numbers that a seed determines (xorshift64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// FNV-1a of everything that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    hash: u64,
    pub(super) bytes: u64,
}

impl Sum {
    pub(super) const NOTHING: Self = Self { hash: 0xcbf2_9ce4_8422_2325, bytes: 0 };

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.bytes += bytes.len() as u64;
    }
}

fn rest(dice: &mut Dice) {
    if dice.below(20) == 0 {
        thread::sleep(Duration::from_micros(dice.below(3_000)));
    }
}

/// Sends random bytes in random pieces with random pauses, then ends its side.
pub(super) fn send(socket: &TcpStream, seed: u64, total: u64) -> JoinHandle<Sum> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut sum = Sum::NOTHING;
        while sum.bytes < total {
            let most = if dice.below(3) == 0 { 100_000 } else { 2_000 };
            let length = (1 + dice.below(most)).min(total - sum.bytes);
            let bytes: Vec<u8> = (0..length).map(|_| (dice.below(256)) as u8).collect();
            socket.write_all(&bytes).expect("connected");
            sum.add(&bytes);
            rest(&mut dice);
        }
        socket.shutdown(Shutdown::Write).expect("connected");
        sum
    })
}

/// Reads to the end, with random pauses.
pub(super) fn receive(socket: &TcpStream, seed: u64) -> JoinHandle<Sum> {
    let mut socket = socket.try_clone().expect("a descriptor");
    thread::spawn(move || {
        let mut dice = Dice(seed);
        let mut sum = Sum::NOTHING;
        let mut buffer = vec![0; 100_000];
        loop {
            let most = 1 + dice.below(buffer.len() as u64) as usize;
            let count = socket.read(buffer.get_mut(..most).expect("within")).expect("connected");
            if count == 0 {
                return sum;
            }
            sum.add(buffer.get(..count).expect("within"));
            rest(&mut dice);
        }
    })
}
