//! What happens in a run, in order.

use std::fmt;
use std::sync::Arc;

use avocet_session::CloseReason;

use crate::plan::Micros;
use crate::survivors::Survivors;
use crate::wire::{Pkt, PublishPkt, Uid};

/// Names a connection of the run.
pub(crate) type ConnId = u64;

#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its place: what came before has a lower one.
    pub(crate) seq: u64,
    pub(crate) at: Micros,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A client opened a connection.
    Opened {
        conn: ConnId,
        client: usize,
    },
    ClientSent {
        conn: ConnId,
        pkt: Pkt,
        len: usize,
    },
    /// The engine has taken a packet.
    ServerRead {
        conn: ConnId,
        pkt: Pkt,
    },
    ServerSent {
        conn: ConnId,
        pkt: Pkt,
        len: usize,
    },
    ClientRead {
        conn: ConnId,
        pkt: Pkt,
    },
    /// The engine gave a connection its session.
    Accepted {
        conn: ConnId,
        present: bool,
    },
    /// The engine is done with a connection.
    Ended {
        conn: ConnId,
        reason: CloseReason,
    },
    /// A client is done with a connection.
    Left {
        conn: ConnId,
        reason: CloseReason,
    },
    /// An application handed a message to its client.
    Published {
        client: usize,
        uid: Uid,
    },
    /// An application received a message.
    Delivered {
        conn: ConnId,
        publish: PublishPkt,
    },
    /// An application learned that its message is done, or that it is lost.
    Finished {
        client: usize,
        uid: Uid,
        sent: bool,
    },
    /// What a shard wants stored: messages, that they are queued, for whom, and PUBRECs by client
    /// and Packet Identifier.
    Commit {
        shard: usize,
        commit: u64,
        stored: Vec<Uid>,
        enqueued: Vec<Uid>,
        queued: Vec<(String, Uid)>,
        pubrecs: Vec<(String, u16)>,
    },
    Committed {
        shard: usize,
        commit: u64,
    },
    Cut {
        conn: ConnId,
    },
    /// The broker learns whether a connection may do what it waits for.
    Judged {
        conn: ConnId,
    },
    Jump {
        seconds: i64,
    },
    /// Nothing is stored for a while.
    Stall,
    /// The broker is gone, by itself or with the power.
    Crashed {
        power: bool,
    },
    /// It is there again, with what it has found.
    Restarted {
        shards: u16,
        survivors: Arc<Survivors>,
    },
    /// The faults end.
    Calm,
    /// Something that is no MQTT packet, or that must never be.
    Broken {
        conn: ConnId,
        problem: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at / 1_000_000, self.at % 1_000_000);
        write!(f, "{:>6} {seconds:>5}.{micros:06} ", self.seq)?;
        match &self.what {
            What::Opened { conn, client } => write!(f, "[{conn}] opened by client {client}"),
            What::ClientSent { conn, pkt, len } => write!(f, "[{conn}] client --> {pkt} ({len})"),
            What::ServerRead { conn, pkt } => write!(f, "[{conn}]    --> server {pkt}"),
            What::ServerSent { conn, pkt, len } => {
                write!(f, "[{conn}]    <-- server {pkt} ({len})")
            }
            What::ClientRead { conn, pkt } => write!(f, "[{conn}] client <-- {pkt}"),
            What::Accepted { conn, present } => {
                write!(f, "[{conn}] has its session, present {present}")
            }
            What::Ended { conn, reason } => write!(f, "[{conn}] server is done: {reason}"),
            What::Left { conn, reason } => write!(f, "[{conn}] client is done: {reason}"),
            What::Published { client, uid } => write!(f, "client {client} publishes m{uid}"),
            What::Delivered { conn, publish } => {
                write!(f, "[{conn}] delivered {}", Pkt::Publish(publish.clone()))
            }
            What::Finished { client, uid, sent } => {
                let outcome = if *sent { "done" } else { "not published" };
                write!(f, "client {client} learns that m{uid} is {outcome}")
            }
            What::Commit {
                shard,
                commit,
                stored,
                enqueued,
                pubrecs,
                ..
            } => write!(
                f,
                "shard {shard} commits {commit}: {stored:?} {enqueued:?} {pubrecs:?}"
            ),
            What::Committed { shard, commit } => write!(f, "shard {shard} has committed {commit}"),
            What::Cut { conn } => write!(f, "[{conn}] breaks"),
            What::Jump { seconds } => write!(f, "the wall clock jumps by {seconds} s"),
            What::Judged { conn } => write!(f, "[{conn}] permission or refusal comes"),
            What::Stall => write!(f, "the store stalls"),
            What::Crashed { power: false } => write!(f, "the broker crashes"),
            What::Crashed { power: true } => write!(f, "the power is lost"),
            What::Restarted { shards, survivors } => {
                write!(
                    f,
                    "the broker is back on {shards} shards with {survivors:?}"
                )
            }
            What::Calm => write!(f, "the faults end"),
            What::Broken { conn, problem } => write!(f, "[{conn}] {problem}"),
        }
    }
}

/// FNV-1a over the history as it is printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}
