//! The last message delivered with RETAIN is the one retained; a new subscription gets it if its
//! Retain Handling says so, and never after a newer one [MQTT5-3.3.1-5] [MQTT5-3.3.1-6]
//! [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT311-3.3.1-6].

use std::collections::BTreeMap;
use std::sync::Arc;

use avocet_codec::{QoS, RetainHandling};

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{Model, Seq, SessionId, Sub};
use crate::plan::{CHECKER, Micros, WITNESS};
use crate::survivors::Survivors;
use crate::wire::{Pkt, Uid};

#[derive(Default)]
pub(crate) struct Retained {
    /// What the witness saw, by topic: when, and which.
    seen: BTreeMap<&'static str, Vec<(Seq, Uid)>>,
    /// What each session was sent for the first time, by topic and whether at QoS 0, which
    /// waits for no window.
    came: BTreeMap<(SessionId, &'static str, bool), Vec<Uid>>,
    /// What the last client got.
    kept: BTreeMap<&'static str, Uid>,
    /// What the last restart found, and when.
    found: Option<(Micros, Arc<Survivors>)>,
}

/// Whether what is retained of a topic may have expired: even one that did before anybody was sent
/// it has replaced the last one.
fn may_expire(model: &Model, topic: &str) -> bool {
    let mut messages = model.messages.values();
    messages.any(|it| it.topic == topic && it.retain && it.read_expiry.is_some())
}

impl Retained {
    /// Whether a value may be there that the witness saw nothing of, or an earlier one of: what was not
    /// acknowledged when the broker crashed may be retained, delivered, both or neither.
    fn is_left(&self, model: &Model, topic: &str, last: Option<&Uid>, kept: Option<&Uid>) -> bool {
        let Some((at, found)) = &self.found else {
            return false;
        };
        let last = last.map(|last| &model.messages[last]);
        let before = last.is_none_or(|it| it.last_read_at < *at);
        before && found.retained.get(topic).copied().flatten().as_ref() == kept
    }

    fn settle_end(&self, model: &Model) -> Result<(), String> {
        for (topic, seen) in &self.seen {
            let Some((_, last)) = seen.last() else {
                continue;
            };
            let message = &model.messages[last];
            let kept = self.kept.get(topic);
            let gone = message.empty || may_expire(model, topic);
            match kept {
                None if gone => {}
                Some(kept) if kept == last && !message.empty => {}
                kept if self.is_left(model, topic, Some(last), kept) => {}
                _ => {
                    return Err(format!(
                        "{topic} has {kept:?}, and the last one delivered is m{last}"
                    ));
                }
            }
        }
        match self.kept.iter().find(|(topic, kept)| {
            let seen = self.seen.contains_key(*topic);
            !seen && !self.is_left(model, topic, None, Some(*kept))
        }) {
            Some((topic, uid)) => Err(format!("{topic} has m{uid}, which nobody was sent")),
            None => Ok(()),
        }
    }

    /// No value comes after a newer one.
    fn settle_order(&self) -> Result<(), String> {
        for ((_, topic, _), uids) in &self.came {
            let Some(seen) = self.seen.get(topic) else {
                continue;
            };
            let place = |uid: &Uid| seen.iter().position(|(_, seen)| seen == uid);
            let mut last = None;
            for uid in uids {
                let place = place(uid);
                if place.is_some() && place < last {
                    return Err(format!(
                        "{topic}: m{uid} comes after a newer one, of {uids:?}"
                    ));
                }
                last = last.max(place);
            }
        }
        Ok(())
    }

    /// What stood when a client subscribed, and stayed, has come.
    fn settle_new(&self, model: &Model, sub: &Sub) -> Result<(), String> {
        let wanted = match sub.options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => sub.new,
            RetainHandling::DoNotSend => false,
        };
        let session = &model.sessions[sub.session];
        let profile = &model.clients[session.client];
        // Pages that were not queued yet are lost in a crash, and the witness may be late after one.
        if model.crashes > 0
            || !wanted
            || sub.shared
            || sub.answered.is_none()
            || sub.ended.is_some()
        {
            return Ok(());
        }
        for (topic, seen) in self.seen.iter().filter(|(topic, _)| sub.matches(topic)) {
            let Some((seq, uid)) = seen.last().filter(|(seq, _)| *seq < sub.began) else {
                continue;
            };
            let message = &model.messages[uid];
            let qos = message.qos.min(sub.options.maximum_qos);
            let large = profile.maximum_packet_size < u32::MAX && message.len > 1_000;
            let own = sub.options.no_local && message.publisher == session.client;
            if message.empty
                || may_expire(model, topic)
                || large
                || own
                || qos == QoS::AtMostOnce && !model.stayed(sub.session, sub.began)
            {
                continue;
            }
            let copies = model.copies.get(&(sub.session, *uid));
            if copies.is_none_or(|copies| copies.delivered == 0) {
                return Err(format!(
                    "client {} subscribed to {} and never got m{uid} of {topic}, retained at {seq}",
                    session.client, sub.filter
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Retained {
    fn name(&self) -> &'static str {
        "the last message delivered is the one retained"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        if let What::Restarted { survivors, .. } = &event.what {
            self.found = Some((event.at, Arc::clone(survivors)));
        }
        let What::ServerSent {
            conn,
            pkt: pkt @ Pkt::Publish(publish),
            ..
        } = &event.what
        else {
            return Ok(());
        };
        let (Some(session), Some(message)) = (model.session_of(*conn), model.message(publish))
        else {
            return Ok(());
        };
        let Some(uid) = publish.uid else {
            return Ok(());
        };
        let first = model
            .copies
            .get(&(session, uid))
            .and_then(|copies| copies.first);
        // After a crash also what was never sent may have DUP.
        if publish.dup && first != Some(event.seq) {
            return Ok(());
        }
        if publish.retain && !message.retain {
            return Err(format!("[{conn}] {pkt} was not published with RETAIN"));
        }
        if !message.retain {
            return Ok(());
        }
        match model.sessions[session].client {
            WITNESS => {
                self.seen
                    .entry(message.topic)
                    .or_default()
                    .push((event.seq, uid));
            }
            CHECKER if publish.retain => {
                self.kept.insert(message.topic, uid);
            }
            _ => {}
        }
        let shared = model
            .subs
            .iter()
            .any(|sub| sub.session == session && sub.shared);
        if first == Some(event.seq) && message.reads == 1 && !shared {
            let came = self
                .came
                .entry((session, message.topic, publish.qos == QoS::AtMostOnce));
            came.or_default().push(uid);
        }
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        // The witness may have missed some.
        if model.system.is_tight() {
            return Ok(());
        }
        self.settle_end(model)?;
        // What is on its way to several shards may come to them in another order after a crash.
        if model.crashes == 0 {
            self.settle_order()?;
        }
        model
            .subs
            .iter()
            .try_for_each(|sub| self.settle_new(model, sub))
    }
}
