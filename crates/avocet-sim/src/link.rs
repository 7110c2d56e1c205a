//! A byte stream between a client and the broker: latency, pieces of any size, bounded room, and
//! loss at any byte.

use std::collections::VecDeque;

use crate::plan::{LinkStyle, Micros};
use crate::rng::Rng;

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Pipe {
    style: LinkStyle,
    rng: Rng,
    /// When which bytes arrive.
    travelling: VecDeque<(Micros, Vec<u8>)>,
    travelling_bytes: usize,
    last_arrival: Micros,
    /// Arrived, not read.
    pub(crate) ready: Vec<u8>,
    /// Whether the sender closed it behind what it sent.
    pub(crate) ended: bool,
    /// Whether nothing arrives any more.
    pub(crate) dead: bool,
}

impl Pipe {
    pub(crate) fn new(style: LinkStyle, rng: Rng) -> Self {
        Self {
            style,
            rng,
            travelling: VecDeque::new(),
            travelling_bytes: 0,
            last_arrival: 0,
            ready: Vec::new(),
            ended: false,
            dead: false,
        }
    }

    /// How many bytes the sender may put in.
    pub(crate) fn room(&self) -> usize {
        let held = self.travelling_bytes + self.ready.len();
        self.style.capacity.saturating_sub(held)
    }

    /// Puts bytes in; the times at which pieces of them arrive.
    pub(crate) fn send(&mut self, mut bytes: &[u8], now: Micros) -> Vec<Micros> {
        let mut arrivals = Vec::new();
        if self.dead {
            // Lost, and the sender cannot tell, until it has filled what stands between.
            self.travelling_bytes += bytes.len();
            return arrivals;
        }
        let (low, high) = self.style.latency;
        let mut arrival = (now + self.rng.range(low, high)).max(self.last_arrival);
        while !bytes.is_empty() {
            let most = self.style.chunk.min(bytes.len());
            let len = 1 + self.rng.index(most);
            let (piece, rest) = bytes.split_at(len);
            self.travelling.push_back((arrival, piece.to_vec()));
            self.travelling_bytes += len;
            arrivals.push(arrival);
            bytes = rest;
            arrival += self.rng.below(20);
        }
        self.last_arrival = arrival;
        arrivals
    }

    /// Moves what has arrived; whether something has.
    pub(crate) fn arrive(&mut self, now: Micros) -> bool {
        let mut arrived = false;
        while let Some((_, piece)) = self.travelling.pop_front_if(|(at, _)| *at <= now) {
            self.travelling_bytes -= piece.len();
            self.ready.extend_from_slice(&piece);
            arrived = true;
        }
        arrived
    }

    /// The link breaks: this share of what is on its way still arrives. Whether that is the
    /// beginning of something.
    pub(crate) fn cut(&mut self, percent: u64) -> bool {
        let all = self.travelling_bytes;
        let mut left = self.travelling_bytes * percent as usize / 100;
        for (_, piece) in &mut self.travelling {
            piece.truncate(left);
            left -= piece.len();
        }
        self.travelling.retain(|(_, piece)| !piece.is_empty());
        self.travelling_bytes = self.travelling.iter().map(|(_, piece)| piece.len()).sum();
        self.dead = true;
        self.ended = false;
        (1..all).contains(&self.travelling_bytes)
    }

    /// From now on without faults.
    pub(crate) fn calm(&mut self) {
        self.style = LinkStyle::PERFECT;
    }

    /// Nobody reads any more: what is sent goes nowhere.
    pub(crate) fn abandon(&mut self) {
        self.dead = true;
        self.ended = false;
        self.travelling.clear();
        self.travelling_bytes = 0;
        self.ready.clear();
    }

    /// Whether the reader has seen everything and the end.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.travelling.is_empty() && self.ready.is_empty()
    }
}
