//! Messages of one publishing session, topic and QoS reach a session in the order of their publication,
//! with RETAIN mixed, from any shard to any other [MQTT5-4.6.0-5] [MQTT5-4.6.0-6].

use std::collections::{BTreeMap, BTreeSet};

use avocet_codec::QoS;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{Model, SessionId};
use crate::wire::{Pkt, Uid};

/// The last part tells retained messages: those of a new subscription come when their time is,
/// between messages that were never retained, but in the order of their own kind.
type Stream = (SessionId, Option<SessionId>, &'static str, QoS, QoS, bool);

#[derive(Default)]
pub(crate) struct Order {
    /// The messages that came for the first time, by stream, in the order of their publication.
    came: BTreeMap<Stream, BTreeMap<u64, Uid>>,
    /// Messages of QoS 2 that came again without PUBREC: the first may have been refused, as the
    /// store was full, and later ones taken.
    again: BTreeSet<Uid>,
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "order by publisher, topic and QoS"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        if let What::Crashed { .. } = event.what {
            // What was sent and is not acknowledged to its publisher may never have been published:
            // an earlier value of its topic is the one retained again.
            for came in self.came.values_mut() {
                came.retain(|_, uid| model.messages.get(uid).is_some_and(|it| it.kept));
            }
            return Ok(());
        }
        if let What::ServerRead {
            pkt: Pkt::Publish(publish),
            ..
        } = &event.what
        {
            let again = publish.dup && publish.qos == QoS::ExactlyOnce;
            self.again.extend(publish.uid.filter(|_| again));
            return Ok(());
        }
        let What::ServerSent {
            conn,
            pkt: Pkt::Publish(publish),
            ..
        } = &event.what
        else {
            return Ok(());
        };
        let (Some(session), Some(uid)) = (model.session_of(*conn), publish.uid) else {
            return Ok(());
        };
        let (Some(message), Some(copies)) =
            (model.messages.get(&uid), model.copies.get(&(session, uid)))
        else {
            return Ok(());
        };
        let shared = model
            .subs
            .iter()
            .any(|sub| sub.session == session && sub.shared);
        // What was published a second time, as its acknowledgement was lost, comes again.
        let again = message.reads > 1 || self.again.contains(&uid);
        // What may have been sent before a crash keeps its place among what was.
        let resent = publish.dup && model.crashes > 0;
        if copies.first != Some(event.seq) || message.will.is_some() || shared || again || resent {
            return Ok(());
        }
        let kept = message.retain && publish.retain;
        for retained in [true, false] {
            // One that may be of either kind is compared with both.
            if retained != kept && (publish.retain || !message.retain) {
                continue;
            }
            let stream = (
                session,
                message.read_from,
                message.topic,
                message.qos,
                publish.qos,
                retained,
            );
            let came = self.came.entry(stream).or_default();
            let later = came.last_key_value();
            if let Some((_, last)) = later.filter(|(order, _)| **order > message.order) {
                return Err(format!(
                    "[{conn}] m{uid} of {} comes after m{last}, which client {} published later",
                    message.topic, message.publisher
                ));
            }
            came.insert(message.order, uid);
        }
        Ok(())
    }
}
