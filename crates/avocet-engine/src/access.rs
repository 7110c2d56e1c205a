//! What clients may do: judged here by the rules that the driver gives, and where it is asked about what
//! no rule is about, by its answers.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use avocet_access::{Action, DecidedBy, Permissions, Request, Rules, Verdict};
use avocet_codec::{QoS, ReasonCode, SubscriptionOptions};
use avocet_session::{Details, Instant, Now};
use avocet_topic::{TopicFilter, TopicFilterBuf, TopicName};

use crate::authorization::{Answers, refused_by};
use crate::counters::DropReason;
use crate::queue::{Tag, state};
use crate::session_table::{SessionHandle, SessionKey};
use crate::{Accepted, Authorization, Client, Command, ConnectionId, Engine, Event, RefusedBy};

/// Refusals of one client that the operator is told of in a second, and those of a shard.
const TOLD_PER_CLIENT: u32 = 5;
const TOLD_MAX: u32 = 50;

/// Who the client of a session is, and what it may do.
pub(crate) struct Access {
    client: Arc<Client>,
    permissions: Permissions,
    /// Whether the driver is asked about what no rule is about.
    asks: bool,
    pub(crate) answers: Answers,
    told: Told,
    /// Some of what is queued was judged by other permissions, or by none.
    queue_is_older: bool,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// With this QoS and RETAIN flag.
    Publish(QoS, bool),
    Subscribe(QoS),
}

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It may be done, with at most this QoS.
    Allowed(QoS),
    Refused(ReasonCode, RefusedBy),
    /// The driver is to be asked, for this QoS.
    Open(QoS),
}

/// How often the operator is told of something within a second.
#[derive(Debug, Default)]
pub(crate) struct Told {
    since: Option<Instant>,
    count: u32,
    /// What he was not told since.
    omitted: u64,
}

impl Told {
    fn once_more(&mut self, max: u32, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|at| at + Duration::from_secs(1) <= now)
        {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= max
    }
}

impl Access {
    /// Who it is.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The User Name of its client.
    pub(crate) fn user(&self) -> Option<&str> {
        self.client.identity.user.as_deref()
    }

    /// The permissions by the rules in force. What others left behind is made anew, one session at
    /// a time, so that new rules cost no turn of the shard much.
    fn permissions(&mut self, rules: &Arc<Rules>) -> &Permissions {
        if !Arc::ptr_eq(self.permissions.rules(), rules) {
            self.permissions = Permissions::new(rules, &self.client.identity);
            self.queue_is_older = true;
        }
        &self.permissions
    }

    /// Whether something may be queued that is not to be sent any more.
    pub(crate) fn has_older_queue(&self, rules: &Arc<Rules>) -> bool {
        self.queue_is_older || !Arc::ptr_eq(self.permissions.rules(), rules)
    }

    /// What the rules say. Only the driver knows more of what is open.
    fn judge(&mut self, rules: &Arc<Rules>, request: &Request<'_>, qos: QoS) -> Judged {
        let verdict = self.permissions(rules).decide(request);
        match verdict.decided_by {
            _ if is_open(verdict, self.asks) => Judged::Open(qos),
            _ if verdict.is_allowed() => Judged::Allowed(qos),
            DecidedBy::Rule(rule) => {
                Judged::Refused(ReasonCode::NotAuthorized, RefusedBy::Rule(rule))
            }
            DecidedBy::Default => Judged::Refused(ReasonCode::NotAuthorized, RefusedBy::Default),
        }
    }

    /// What the rules say of publishing a message.
    pub(crate) fn judge_publish(
        &mut self,
        rules: &Arc<Rules>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> Judged {
        let request = Request::Publish {
            topic_name,
            qos: of_codec(qos),
            retain,
        };
        self.judge(rules, &request, qos)
    }

    /// What is said of a subscription: the highest QoS that may be granted.
    fn judge_filter(
        &mut self,
        rules: &Arc<Rules>,
        topic_filter: TopicFilter<'_>,
        maximum_qos: QoS,
        generation: u64,
        now: Instant,
    ) -> Judged {
        let mut refused = None;
        let all = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
        for qos in all.into_iter().filter(|qos| *qos <= maximum_qos) {
            let request = Request::Subscribe {
                topic_filter,
                qos: of_codec(qos),
            };
            match self.judge(rules, &request, qos) {
                Judged::Allowed(qos) => return Judged::Allowed(qos),
                Judged::Open(qos) => {
                    let (what, filter) = (What::Subscribe(qos), topic_filter.as_str());
                    return match self.answers.get(what, filter, generation, now) {
                        Some(answer) => self.settle(rules, topic_filter, qos, answer),
                        None => Judged::Open(qos),
                    };
                }
                judged @ Judged::Refused(..) => refused = refused.or(Some(judged)),
            }
        }
        refused.unwrap_or(Judged::Refused(
            ReasonCode::NotAuthorized,
            RefusedBy::Default,
        ))
    }

    /// What comes of an answer about a filter: rules may deny the lower QoS that it grants, and
    /// allow one where it grants none.
    fn settle(
        &mut self,
        rules: &Arc<Rules>,
        topic_filter: TopicFilter<'_>,
        wanted: QoS,
        answer: Result<QoS, ReasonCode>,
    ) -> Judged {
        let judged = Judged::from_answer(answer, wanted);
        let mut judge = |qos| {
            let request = Request::Subscribe {
                topic_filter,
                qos: of_codec(qos),
            };
            self.judge(rules, &request, qos)
        };
        match judged {
            Judged::Allowed(qos) if qos < wanted => match judge(qos) {
                refused @ Judged::Refused(..) => refused,
                Judged::Allowed(_) | Judged::Open(_) => judged,
            },
            Judged::Allowed(_) | Judged::Open(_) => judged,
            Judged::Refused(..) => {
                let lower = [QoS::AtLeastOnce, QoS::AtMostOnce].into_iter();
                let mut lower = lower.filter(|qos| *qos < wanted).map(judge);
                let allowed = lower.find(|it| matches!(it, Judged::Allowed(_)));
                allowed.unwrap_or(judged)
            }
        }
    }

    /// Whether it is the same client as far as its connection proves it.
    fn is_of(&self, other: &Self) -> bool {
        let (own, other) = (&self.client.identity, &other.client.identity);
        own.user == other.user && own.cert_cn == other.cert_cn && own.cert_san == other.cert_san
    }

    /// Whether its client may be sent a message. What no rule is about was settled when it subscribed,
    /// where the driver was asked.
    pub(crate) fn may_receive(
        &mut self,
        rules: &Arc<Rules>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
    ) -> bool {
        if self.receives_all(rules) {
            return true;
        }
        let request = Request::Deliver {
            topic_name,
            qos: of_codec(qos),
            retain,
        };
        let verdict = self.permissions.decide(&request);
        verdict.is_allowed() || is_open(verdict, self.asks)
    }

    /// Whether it may be sent whatever it has subscribed to.
    fn receives_all(&mut self, rules: &Arc<Rules>) -> bool {
        let asks = self.asks;
        let always = self.permissions(rules).always(Action::Deliver);
        always.is_some_and(|verdict| verdict.is_allowed() || is_open(verdict, asks))
    }
}

impl Judged {
    pub(crate) fn from_answer(answer: Result<QoS, ReasonCode>, wanted: QoS) -> Self {
        match answer {
            Ok(qos) => Self::Allowed(qos.min(wanted)),
            Err(reason_code) => Self::Refused(reason_code, refused_by(reason_code)),
        }
    }
}

/// Whether rules leave something to whom the driver asks.
fn is_open(verdict: Verdict, asks: bool) -> bool {
    asks && verdict.decided_by == DecidedBy::Default
}

impl Engine {
    /// The rules that hold from here on, for [`Authorization::Rules`] and [`Authorization::Asked`].
    /// Sessions keep subscriptions that they would not get any more, and are sent only what the rules
    /// let them have.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.forget_answers();
    }

    /// Whether the driver was asked what another client than this one may subscribe to in a session.
    pub(crate) fn is_of_another(&self, handle: SessionHandle, access: Option<&Access>) -> bool {
        let before = self.sessions.get(handle).and_then(|it| it.access.as_ref());
        let both = before.zip(access);
        both.is_some_and(|(before, access)| access.asks && !access.is_of(before))
    }

    /// What comes of the driver's answer about a filter.
    pub(crate) fn settle_filter(
        &mut self,
        session: Option<SessionHandle>,
        filter: TopicFilter<'_>,
        wanted: QoS,
        answer: Result<QoS, ReasonCode>,
    ) -> Judged {
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        match slot.and_then(|slot| slot.access.as_mut()) {
            Some(access) => access.settle(&self.rules, filter, wanted, answer),
            None => Judged::from_answer(answer, wanted),
        }
    }

    /// Disconnects the clients that are subscribed to what the rules in force do not let them subscribe
    /// to, in 5.0 with 0x98 (administrative action). It looks at all sessions of the shard.
    pub fn disconnect_unauthorized(&mut self, now: Now) {
        let now = self.clock.read(now);
        let mut ids = Vec::new();
        for slot in self.sessions.iter() {
            let (Some(id), Some(access)) = (slot.connection, &slot.access) else {
                continue;
            };
            let permissions = Permissions::new(&self.rules, &access.client.identity);
            let mut filters = slot.subscriptions.filters(self.spaces.routes(slot.space));
            let lost = filters.any(|filter| {
                let verdict = permissions.decide(&Request::Subscribe {
                    topic_filter: filter.as_filter(),
                    qos: avocet_access::QoS::AtMostOnce,
                });
                !verdict.is_allowed() && !is_open(verdict, access.asks)
            });
            if lost {
                ids.push(id);
            }
        }
        for id in ids {
            self.counters.disconnected_by_driver += 1;
            let details = Details {
                reason_string: Some("a subscription is not allowed any more"),
                server_reference: None,
            };
            self.end_connection(id, ReasonCode::AdministrativeAction, details, now);
            self.settle(now);
        }
    }

    /// What the client of a session may do; none if everybody may do everything.
    pub(crate) fn access_of(
        &self,
        id: ConnectionId,
        key: &Arc<SessionKey>,
        accepted: &Accepted,
    ) -> Option<Box<Access>> {
        if self.config.authorization == Authorization::None {
            return None;
        }
        let mut identity = accepted.identity.clone();
        identity.client_id = key.client_id().into();
        identity.tenant = key.tenant().into();
        let permissions = Permissions::new(&self.rules, &identity);
        let opened = self.connections.get(&id).map(|entry| entry.opened.clone());
        let client = Client {
            id,
            session: Arc::clone(key),
            identity,
            opened: opened.unwrap_or_default(),
        };
        Some(Box::new(Access {
            client: Arc::new(client),
            permissions,
            asks: self.config.authorization == Authorization::Asked,
            answers: Answers::default(),
            told: Told::default(),
            queue_is_older: true,
        }))
    }

    /// What is known of a client once it has authenticated again; false if it is another one.
    pub(crate) fn renew_access(&mut self, id: ConnectionId, accepted: &Accepted) -> bool {
        let session = self.connections.get(&id).and_then(|entry| entry.session);
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        let Some(access) = slot.and_then(|slot| slot.access.as_mut()) else {
            return true;
        };
        if access.client.identity.user != accepted.identity.user {
            return false;
        }
        let mut client = Client::clone(&access.client);
        let client_id = mem::take(&mut client.identity.client_id);
        let tenant = mem::take(&mut client.identity.tenant);
        client.identity = accepted.identity.clone();
        client.identity.client_id = client_id;
        client.identity.tenant = tenant;
        access.permissions = Permissions::new(&self.rules, &client.identity);
        access.client = Arc::new(client);
        access.answers.clear();
        access.queue_is_older = true;
        true
    }

    /// Drops what waits for the client of a session and may not be sent to it any more: new rules
    /// came, or it was queued while nobody knew who the client is.
    pub(crate) fn drop_forbidden(&mut self, handle: SessionHandle) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let Some(mut access) = slot.access.take() else {
            return;
        };
        let mut taken = Vec::new();
        let mut counted = None;
        if !access.receives_all(&self.rules)
            && let Some(session) = state(slot, &mut self.connections)
        {
            taken = session.take_unsent(|outgoing| {
                let topic_name = outgoing.message.topic_name();
                !access.may_receive(&self.rules, topic_name, outgoing.qos, outgoing.retain)
            });
            counted = Some((session.queued(), session.queued_bytes()));
        }
        access.queue_is_older = false;
        slot.access = Some(access);
        if let Some(counted) = counted {
            self.count_queue(handle, counted);
        }
        for (sequence, outgoing) in taken {
            self.counters.deliveries_not_authorized += 1;
            self.count_dropped(DropReason::NotAuthorized);
            self.on_finished(handle, sequence, Tag::from_u64(outgoing.tag));
        }
    }

    /// What is said of a message that the client of a session publishes.
    pub(crate) fn judge_publish(
        &mut self,
        session: Option<SessionHandle>,
        topic_name: TopicName<'_>,
        qos: QoS,
        retain: bool,
        now: Now,
    ) -> Judged {
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        // A session without its client since a restart leaves what was allowed when it came.
        let Some(access) = slot.and_then(|slot| slot.access.as_mut()) else {
            return Judged::Allowed(qos);
        };
        let judged = access.judge_publish(&self.rules, topic_name, qos, retain);
        if !matches!(judged, Judged::Open(_)) {
            return judged;
        }
        let (what, generation) = (What::Publish(qos, retain), self.generation);
        let answers = &mut access.answers;
        match answers.get(what, topic_name.as_str(), generation, now.instant) {
            Some(answer) => {
                self.counters.authorizations_known += 1;
                Judged::from_answer(answer, qos)
            }
            None => judged,
        }
    }

    /// What is said of each filter of a SUBSCRIBE.
    pub(crate) fn judge_filters(
        &mut self,
        session: Option<SessionHandle>,
        filters: &[(TopicFilterBuf, SubscriptionOptions)],
        now: Now,
    ) -> Vec<Judged> {
        let slot = session.and_then(|session| self.sessions.get_mut(session));
        let Some(access) = slot.and_then(|slot| slot.access.as_mut()) else {
            return Vec::new();
        };
        let (rules, generation) = (&self.rules, self.generation);
        let judge = |(filter, options): &(TopicFilterBuf, SubscriptionOptions)| {
            let (filter, qos) = (filter.as_filter(), options.maximum_qos);
            access.judge_filter(rules, filter, qos, generation, now.instant)
        };
        filters.iter().map(judge).collect()
    }

    /// Counts what the client of a session was refused, and tells the operator.
    pub(crate) fn count_refusal_of(
        &mut self,
        session: Option<SessionHandle>,
        action: Action,
        topic: &str,
        by: RefusedBy,
        now: Now,
    ) {
        let access = session.and_then(|session| self.sessions.get(session)?.access.as_ref());
        if let Some(client) = access.map(|access| Arc::clone(access.client())) {
            self.count_refusal(&client, action, topic, by, now);
        }
    }

    /// Counts a refusal, and tells the operator unless there are too many.
    pub(crate) fn count_refusal(
        &mut self,
        client: &Arc<Client>,
        action: Action,
        topic: &str,
        by: RefusedBy,
        now: Now,
    ) {
        // Subscriptions are counted by what their SUBACK says.
        self.counters.publishes_not_authorized += u64::from(action == Action::Publish);
        let entry = self.connections.get(&client.id);
        let slot = entry.and_then(|entry| self.sessions.get_mut(entry.session?));
        let access = slot.and_then(|slot| slot.access.as_mut());
        let of_client =
            access.is_none_or(|access| access.told.once_more(TOLD_PER_CLIENT, now.instant));
        if !of_client || !self.told.once_more(TOLD_MAX, now.instant) {
            self.told.omitted += 1;
            return;
        }
        let rule = match by {
            RefusedBy::Rule(index) => Some(DecidedBy::Rule(index)),
            RefusedBy::Default => Some(DecidedBy::Default),
            RefusedBy::Answer | RefusedBy::Nobody => None,
        };
        let rule = rule.map(|decided_by| self.rules.describe(decided_by).to_string());
        let omitted = mem::take(&mut self.told.omitted);
        self.command(Command::Log(Event::NotAuthorized {
            client: Arc::clone(client),
            action,
            topic: topic.into(),
            by,
            rule,
            omitted,
        }));
    }
}

const fn of_codec(qos: QoS) -> avocet_access::QoS {
    match qos {
        QoS::AtMostOnce => avocet_access::QoS::AtMostOnce,
        QoS::AtLeastOnce => avocet_access::QoS::AtLeastOnce,
        QoS::ExactlyOnce => avocet_access::QoS::ExactlyOnce,
    }
}
