//! What a restart has found in the store: what was acknowledged must be there, and what ended must not. What
//! was on its way may be there, and from here on is known to be or not.

use std::collections::BTreeMap;

use avocet_codec::SubscriptionOptions;
use avocet_engine::SessionKey;
use avocet_session::CloseReason;

use crate::history::{ConnId, Event};
use crate::model::{ConnInfo, Model, Seq, SessionId, Sub};
use crate::plan::{Micros, SECOND};
use crate::wire::Uid;

#[derive(Clone, Debug, Default)]
pub(crate) struct Survivors {
    /// By tenant and Client Identifier.
    pub(crate) sessions: BTreeMap<String, Survivor>,
    /// By tenant and topic; none of a message that does not say which one it is.
    pub(crate) retained: BTreeMap<(String, String), Option<Uid>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Survivor {
    /// Filter, options and Subscription Identifier.
    pub(crate) subs: Vec<(String, SubscriptionOptions, Option<u32>)>,
    /// Packet Identifiers of QoS 2 messages that are not released.
    pub(crate) received: Vec<u16>,
}

impl Survivors {
    pub(crate) fn session(&mut self, key: &SessionKey) -> &mut Survivor {
        self.sessions.entry(key.to_string()).or_default()
    }

    /// What is retained of a tenant's topic.
    pub(crate) fn of_topic(&self, tenant: &str, topic: &str) -> Option<Option<Uid>> {
        let key = (tenant.to_owned(), topic.to_owned());
        self.retained.get(&key).copied()
    }
}

impl Model {
    /// What was done and is not certain to be stored is uncertain from here on.
    pub(crate) fn crashed(&mut self, event: &Event) {
        self.crashes += 1;
        let again = self.down_since.is_some();
        self.down_since.get_or_insert(event.seq);
        // A turn has one time, and what it changed is one commit.
        let unsafe_since = self.pending.values().min().copied().unwrap_or(Micros::MAX);
        self.pending.clear();
        // Before it is back nothing else is done.
        if !again {
            self.unsafe_since = unsafe_since.min(event.at);
            for session in &mut self.sessions {
                // An earlier crash may have taken back that the connection has it.
                let conn = &self.conns[&session.conn];
                session.certain |= !conn.crashed && conn.accepted_at < self.unsafe_since;
            }
        }
        let ids: Vec<_> = self.conns.keys().copied().collect();
        for id in ids {
            self.lose(event, id, again);
        }
        for message in self.messages.values_mut() {
            if !message.kept {
                message.certain = None;
            }
        }
        for ((_, uid), copies) in &mut self.copies {
            let kept = self
                .messages
                .get(uid)
                .is_some_and(|message| message.kept && !message.retain && message.will.is_none());
            if copies.delivered == 0 && !kept {
                copies.qos = None;
            }
        }
    }

    fn lose(&mut self, event: &Event, id: ConnId, again: bool) {
        let info = &self.conns[&id];
        let uncertain = info.ended.is_some_and(|(_, at, _)| at >= self.unsafe_since)
            || info
                .superseded
                .is_some_and(|(_, at)| at >= self.unsafe_since)
            || info.ended.is_none() && info.session.is_some() && info.connack_seq.is_none();
        // Also one that has ended since: what it changed may not be stored.
        let unanswered = info.connack_seq.is_none()
            && info.session.is_some()
            && (info.ended.is_none() || info.accepted_at >= self.unsafe_since);
        let (client, accepted_seq) = (info.client, info.accepted_seq);
        if unanswered {
            // Whether the will of the connection before was cancelled, nobody knows.
            let before = self.conns.values_mut().filter(|it| {
                it.client == client && it.session.is_some() && it.accepted_seq < accepted_seq
            });
            if let Some(before) = before.max_by_key(|it| it.accepted_seq) {
                before.will_uncertain = true;
            }
        }
        let Some(info) = self.conns.get_mut(&id) else {
            return;
        };
        info.will_uncertain |= uncertain;
        info.drop_question();
        // From which of two restarts a delay counts, nobody knows.
        info.will_uncertain |= info.crashed && again;
        if info.ended.is_some() {
            return;
        }
        let reason = CloseReason::ConnectionLost;
        info.ended = Some((event.seq, event.at, reason));
        info.crashed = true;
        if let (Some(session), None) = (info.session, info.superseded)
            && self.sessions[session].expiry == 0
        {
            self.end_session(session, event.seq);
        }
    }

    /// Compares with what must have survived, and learns what has.
    pub(crate) fn restarted(&mut self, event: &Event, survivors: &Survivors) {
        let crashed = self.down_since.take();
        for info in self.conns.values_mut() {
            // Whoever was connected is gone from here on.
            if let Some((seq, at, _)) = &mut info.ended
                && Some(*seq) == crashed
                && !info.will_uncertain
            {
                *at = event.at;
            }
        }
        let nothing = Survivor::default();
        for client in 0..self.clients.len() {
            let name = self.clients[client].session_name();
            let found = survivors.sessions.get(&name);
            if let Err(problem) = self.match_session(event, client, found) {
                self.lost.push(problem);
            }
            let Some(session) = self.current[client] else {
                continue;
            };
            let found = found.unwrap_or(&nothing);
            let checked = self
                .match_subs(event.seq, session, found)
                .and_then(|()| self.match_received(session, found));
            if let Err(problem) = checked {
                self.lost.push(problem);
            }
        }
    }

    /// Which session of a client it is that has survived, if one has.
    fn match_session(
        &mut self,
        event: &Event,
        client: usize,
        found: Option<&Survivor>,
    ) -> Result<(), String> {
        let Some(found) = found else {
            let Some(session) = self.current[client] else {
                return Ok(());
            };
            let must = self.must_survive(session, event.at);
            self.end_session(session, event.seq);
            return if must {
                Err(format!("the session of client {client} is lost"))
            } else {
                Ok(())
            };
        };
        // When the broker took up with one that it may have forgotten.
        let mut undone = Vec::new();
        let mut back = None;
        for (session, info) in self.sessions.iter().enumerate().rev() {
            if info.client != client {
                continue;
            }
            if info.ended.is_none() && (info.answered || self.may_have(session, found)) {
                // What is there may be the one that it took the place of without a word to the client.
                let mut sessions = self.sessions.iter().enumerate();
                let may_be_older = sessions.any(|(older, it)| {
                    it.client == client
                        && it.ended == Some(info.began)
                        && it.expiry > 0
                        && self.may_have(older, found)
                });
                self.sessions[session].certain |= info.answered || !may_be_older;
                return Ok(());
            }
            let forgotten = info.ended.is_some_and(|ended| undone.contains(&ended));
            if info.expiry > 0 && forgotten && self.may_have(session, found) {
                back = Some(session);
                break;
            }
            if info.answered {
                break;
            }
            undone.push(info.began);
        }
        let Some(session) = back else {
            return Err(format!(
                "a session of client {client} is back, which had ended"
            ));
        };
        if let Some(newer) = self.current[client] {
            self.end_session(newer, event.seq);
        }
        self.revive(session);
        Ok(())
    }

    fn may_have(&self, session: SessionId, found: &Survivor) -> bool {
        let has = |filter: &str| {
            let mut subs = self.subs.iter();
            subs.any(|sub| sub.session == session && sub.filter == filter)
        };
        let info = &self.sessions[session];
        let received = |id: &u16| info.received.contains_key(id) || info.releasing.contains_key(id);
        found.subs.iter().all(|(filter, ..)| has(filter)) && found.received.iter().all(received)
    }

    /// A session that the broker had ended without a word to its client is there again.
    fn revive(&mut self, session: SessionId) {
        let info = &mut self.sessions[session];
        let ended = info.ended.take();
        info.certain = true;
        self.current[info.client] = Some(session);
        for sub in self.subs.iter_mut().filter(|sub| sub.session == session) {
            if sub.ended == ended {
                sub.ended = None;
                sub.certain = None;
                sub.answered = None;
            }
        }
    }

    fn must_survive(&self, session: SessionId, now: Micros) -> bool {
        let info = &self.sessions[session];
        if !info.certain || info.expiry == 0 {
            return false;
        }
        let expires = info.expiry < u32::MAX;
        let is_over = |conn: &ConnInfo| {
            conn.ended.is_some_and(|(_, at, _)| {
                at + u64::from(info.expiry) * SECOND <= now + SECOND / 100
            })
        };
        // A crash may take back that a connection without CONNACK had the session: it ends when it
        // would have without that.
        let mut over = false;
        let of_session = |conn: &&ConnInfo| conn.session == Some(session);
        for conn in self.conns.values().rev().filter(of_session) {
            over |= is_over(conn);
            if conn.connack.is_some() {
                break;
            }
        }
        !(expires && (over || self.jumped))
    }

    fn match_subs(&mut self, seq: Seq, session: SessionId, found: &Survivor) -> Result<(), String> {
        let client = self.sessions[session].client;
        let mut filters: Vec<String> = Vec::new();
        for sub in self.subs.iter().filter(|sub| sub.session == session) {
            if !filters.contains(&sub.filter) {
                filters.push(sub.filter.clone());
            }
        }
        let found_filter = |filter: &str| found.subs.iter().find(|(it, ..)| it == filter);
        for (filter, ..) in &found.subs {
            if !filters.contains(filter) {
                return Err(format!("client {client} never subscribed to {filter}"));
            }
        }
        for filter in filters {
            let mut subs = self.subs.iter().enumerate();
            let newest = subs.rfind(|(_, sub)| sub.session == session && sub.filter == filter);
            let Some((newest, sub)) = newest else {
                continue;
            };
            let survives = found_filter(&filter).map(|(_, options, id)| (*options, *id));
            let stands = sub.ended.is_none() && sub.answered.is_some();
            let over = sub.ended.is_some() && sub.end_answered;
            let same = |sub: &Sub| survives == Some((sub.options, sub.id));
            if stands {
                if !same(sub) {
                    return Err(format!(
                        "client {client} subscribed to {filter}, and {survives:?} is left"
                    ));
                }
                continue;
            }
            if over {
                if survives.is_some() {
                    return Err(format!(
                        "client {client} unsubscribed from {filter}, and it is back"
                    ));
                }
                continue;
            }
            // On its way: it is what was found.
            let mut of_filter = self.subs.iter();
            let source = of_filter
                .rfind(|sub| sub.session == session && sub.filter == filter && same(sub))
                .cloned();
            // What the ones before have asked for still comes.
            let next = survives.is_some().then_some(self.subs.len());
            for sub in &mut self.subs {
                if sub.session == session && sub.filter == filter && sub.ended.is_none() {
                    sub.ended = Some(seq);
                    sub.replaced_by = next;
                }
            }
            self.subs[newest].end_answered = true;
            if survives.is_some() {
                let Some(source) = source else {
                    return Err(format!(
                        "client {client} never subscribed to {filter} with {survives:?}"
                    ));
                };
                self.subs.push(Sub {
                    certain: Some(seq),
                    answered: Some(seq),
                    ended: None,
                    end_answered: false,
                    replaced_by: None,
                    ..source
                });
            }
        }
        Ok(())
    }

    /// QoS 2 messages of a client: those with PUBREC and without PUBREL are there, those with
    /// PUBCOMP are not.
    fn match_received(&mut self, session: SessionId, found: &Survivor) -> Result<(), String> {
        let info = &mut self.sessions[session];
        let client = info.client;
        // What a 3.x client may not publish has PUBREC and goes nowhere.
        let goes_on = |uid| self.messages.get(&uid).is_some_and(|it| !it.forbidden);
        let lost = info
            .received
            .iter()
            .find(|(id, it)| it.answered && goes_on(it.uid) && !found.received.contains(id));
        if let Some((id, received)) = lost {
            return Err(format!(
                "m{} of client {client} had PUBREC, and its Packet Identifier {id} is lost",
                received.uid
            ));
        }
        info.received.retain(|id, _| found.received.contains(id));
        let releasing = std::mem::take(&mut info.releasing);
        for id in &found.received {
            if info.received.contains_key(id) {
                continue;
            }
            let Some(received) = releasing.get(id) else {
                return Err(format!(
                    "Packet Identifier {id} of client {client} had PUBCOMP, and is back"
                ));
            };
            info.received.insert(*id, *received);
        }
        Ok(())
    }
}
