//! What has happened in a run, by kind: a thing that never happens is not tested.

use std::collections::{BTreeMap, BTreeSet};

use avocet_codec::{AckType, QoS, ReasonCode, RetainHandling};
use avocet_engine::{Counters, DropReason};
use avocet_session::CloseReason;

use crate::history::{ConnId, Event, What};
use crate::invariants::shared::group_of;
use crate::model::{Model, SessionId};
use crate::plan::{MILLI, Micros, Role, SECOND, WITNESS};
use crate::wire::{Pkt, PublishPkt, Uid};

macro_rules! kinds {
    ($($kind:ident: $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        const NAMES: &[&str] = &[$($text,)*];
    };
}

kinds! {
    LinkBroke: "link: broke",
    PacketTorn: "link: broke in the middle of a packet",
    ClientHalfOpen: "link: the client is not told that it broke",
    ServerHalfOpen: "link: the broker is not told that it broke",
    ByteAtATime: "link: connections with one byte at a time",
    SlowReader: "link: the client takes less than the broker has",
    SlowServer: "link: the broker takes less than the client has",
    LinksReordered: "link: what was sent later arrives before what was sent on another one",
    InputPaused: "shard: reads of a connection paused",
    InboxWaited: "shard: a turn with values left in the inbox",
    ConnectionMoved: "shard: a connection moved to the shard of its session",
    ClockForward: "clock: jumps forward",
    ClockBack: "clock: jumps back",
    StoreStalled: "store: no commit for a while",
    DiskFull: "store: the disk is full",
    DiskFailed: "store: the disk fails to sync",
    DiskWorksAgain: "store: the disk works again",
    NotStored: "store: a publication is refused as nothing can be stored",
    Crashed: "crash: the process ends",
    PowerLost: "crash: the power is lost",
    CrashedAgain: "crash: once more before the broker is up",
    Fetched: "store: messages read back",
    Version3: "connect: MQTT 3.1",
    Version4: "connect: MQTT 3.1.1",
    Version5: "connect: MQTT 5.0",
    OfTenant: "connect: by a client of a tenant",
    CleanStart: "connect: Clean Start ends a session",
    SessionResumed: "connect: a session goes on",
    SessionExpired: "connect: a session has expired",
    TakenOver: "connect: takeover",
    ConnectWaited: "connect: a verdict comes late",
    ConnectRefused: "connect: refused",
    KeepAliveKilled: "connect: closed after Keep Alive",
    Pinged: "connect: PINGREQ",
    PublishJudged: "publish: waits for permission",
    PublishForbidden: "publish: not permitted",
    QuestionDropped: "publish: the connection ends while it waits for permission",
    UpAlias: "publish: by Topic Alias, to the broker",
    DownAlias: "publish: by Topic Alias, to a client",
    UpWindowFull: "publish: Receive Maximum of the broker reached",
    DownWindowFull: "publish: Receive Maximum of a client reached",
    UpTooLarge: "publish: larger than the broker takes",
    DownTooLarge: "publish: larger than the subscriber takes",
    UpDup: "publish: again, to the broker",
    DownDup: "publish: again, to a client",
    Expired: "publish: expired in the broker",
    DupAfterExpiry: "publish: sent again after its expiry",
    QueueFull: "publish: dropped by a full queue",
    TotalFull: "publish: dropped as all queues together are full",
    OfflineQoS0: "publish: QoS 0 for a client that is away",
    Up1Sent: "QoS 1 to the broker, cut: PUBLISH sent",
    Up1Read: "QoS 1 to the broker, cut: PUBLISH taken",
    Up1Acked: "QoS 1 to the broker, cut: PUBACK sent",
    Up2Sent: "QoS 2 to the broker, cut: PUBLISH sent",
    Up2Read: "QoS 2 to the broker, cut: PUBLISH taken",
    Up2Rec: "QoS 2 to the broker, cut: PUBREC sent",
    Up2RelSent: "QoS 2 to the broker, cut: PUBREL sent",
    Up2RelRead: "QoS 2 to the broker, cut: PUBREL taken",
    Up2Comp: "QoS 2 to the broker, cut: PUBCOMP sent",
    Down1Sent: "QoS 1 to a client, cut: PUBLISH sent",
    Down1Read: "QoS 1 to a client, cut: PUBLISH taken",
    Down1Acked: "QoS 1 to a client, cut: PUBACK sent",
    Down2Sent: "QoS 2 to a client, cut: PUBLISH sent",
    Down2Read: "QoS 2 to a client, cut: PUBLISH taken",
    Down2Rec: "QoS 2 to a client, cut: PUBREC sent",
    Down2RecRead: "QoS 2 to a client, cut: PUBREC taken",
    Down2RelSent: "QoS 2 to a client, cut: PUBREL sent",
    Down2Comp: "QoS 2 to a client, cut: PUBCOMP sent",
    PubrelAgain: "QoS 2: PUBREL sent again",
    Resubscribed: "subscribe: in place of another one",
    NoLocalSet: "subscribe: No Local, in place of a subscription without it",
    SubscribeForbidden: "subscribe: not permitted",
    QoSLowered: "subscribe: at a lower QoS than asked for",
    Unsubscribed: "unsubscribe: of a subscription in force",
    Overlapping: "deliver: one message for overlapping subscriptions",
    SubscriptionIds: "deliver: several Subscription Identifiers",
    NoLocal: "deliver: No Local keeps a message back",
    AsPublished: "deliver: Retain As Published",
    SomeAsPublished: "deliver: overlapping, and one of them Retain As Published",
    RetainedSent: "retained: sent to a new subscription",
    RetainedCleared: "retained: cleared",
    HandlingSend: "retained: Retain Handling 0, with a value there",
    HandlingNew: "retained: Retain Handling 1, new, with a value there",
    HandlingOld: "retained: Retain Handling 1, not new, with a value there",
    HandlingNever: "retained: Retain Handling 2, with a value there",
    WillAtOnce: "will: at the end of the connection",
    WillDelayed: "will: after its delay",
    WillEarly: "will: at the end of the session, before its delay",
    WillCancelled: "will: not published, as the client came back",
    WillRemoved: "will: removed by DISCONNECT",
    WillKept: "will: DISCONNECT with 0x04",
    WillAtTakeover: "will: published by a takeover",
    Given: "shared: given to a member",
    GivenAgain: "shared: given to another member",
    GroupOffline: "shared: held while no member is connected",
    MemberKeepsQoS2: "shared: QoS 2 in flight to a member that is lost",
    GroupFull: "shared: dropped by a full queue",
}

/// How often what happened.
#[derive(Clone, Debug)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            counts: vec![0; NAMES.len()],
        }
    }
}

impl Coverage {
    pub(crate) fn count(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }

    fn count_all(&mut self, kind: Kind, times: u64) {
        self.counts[kind as usize] += times;
    }

    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// All kinds, and how often each happened.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.iter().copied().zip(self.counts.iter().copied())
    }

    /// What a shard has counted.
    pub(crate) fn add_counters(&mut self, counters: &Counters) {
        let dropped = |reason| counters.dropped(reason);
        self.count_all(Kind::Expired, dropped(DropReason::Expired));
        self.count_all(Kind::DownTooLarge, dropped(DropReason::TooLargeForClient));
        self.count_all(Kind::QueueFull, dropped(DropReason::QueueFull));
        self.count_all(Kind::TotalFull, dropped(DropReason::TotalFull));
        self.count_all(Kind::OfflineQoS0, dropped(DropReason::OfflineQoS0));
        self.count_all(Kind::GroupFull, dropped(DropReason::GroupFull));
        self.count_all(Kind::SessionExpired, counters.sessions_expired);
    }
}

/// How far a message is: what was sent or taken last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Sent,
    Read,
    AckSent,
    AckRead,
    RelSent,
    RelRead,
    CompSent,
}

/// Whose message it is: a client's to the broker, or the broker's to a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up(usize),
    Down(SessionId),
}

/// Watches a history for what happens in it.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) coverage: Coverage,
    exchanges: BTreeMap<(Way, u16), (QoS, Step)>,
    cut: BTreeSet<ConnId>,
    given: BTreeMap<(&'static str, Uid), ConnId>,
    /// When the witness was sent a will.
    wills: BTreeMap<Uid, Micros>,
}

impl Watcher {
    fn count(&mut self, kind: Kind) {
        self.coverage.count(kind);
    }

    pub(crate) fn watch(&mut self, event: &Event, model: &Model) {
        match &event.what {
            What::ClientSent { conn, pkt, .. } => {
                let client = model.conns[conn].client;
                self.client_sent(model, *conn, Way::Up(client), pkt);
            }
            What::ServerSent { conn, pkt, .. } => self.server_sent(event, model, *conn, pkt),
            What::ServerRead { conn, pkt } => self.server_read(model, *conn, pkt),
            What::ClientRead { conn, pkt } => {
                let client = model.conns[conn].client;
                if let Some(session) = model.session_of(*conn) {
                    self.step(Way::Down(session), pkt, false);
                }
                self.step(Way::Up(client), pkt, false);
            }
            What::Accepted { conn, present } => self.accepted(model, *conn, *present),
            What::Cut { conn } => {
                self.count(Kind::LinkBroke);
                self.interrupted(model, *conn);
            }
            What::Left { conn, .. } => self.interrupted(model, *conn),
            What::Ended { conn, reason } => {
                self.interrupted(model, *conn);
                match reason {
                    CloseReason::KeepAliveTimeout => self.count(Kind::KeepAliveKilled),
                    CloseReason::Disconnected(ReasonCode::SessionTakenOver) => {
                        self.count(Kind::TakenOver);
                    }
                    CloseReason::PeerDisconnected(ReasonCode::DisconnectWithWillMessage) => {
                        self.count(Kind::WillKept);
                    }
                    _ => {}
                }
                if model.conns[conn].has_question() {
                    self.count(Kind::QuestionDropped);
                }
            }
            What::Jump { seconds } if *seconds < 0 => self.count(Kind::ClockBack),
            What::Jump { .. } => self.count(Kind::ClockForward),
            What::Stall => self.count(Kind::StoreStalled),
            What::Judged { conn } => self.judged(model, *conn),
            _ => {}
        }
    }

    fn accepted(&mut self, model: &Model, conn: ConnId, present: bool) {
        use avocet_codec::Version;
        let info = &model.conns[&conn];
        self.count(match info.version() {
            Version::V3_1 => Kind::Version3,
            Version::V3_1_1 => Kind::Version4,
            Version::V5 => Kind::Version5,
        });
        if present {
            self.count(Kind::SessionResumed);
        } else {
            let up = Way::Up(info.client);
            self.exchanges.retain(|(way, _), _| *way != up);
        }
        let clean = info.connect.as_ref().is_some_and(|it| it.clean_start);
        let before = model.sessions.iter().filter(|it| it.client == info.client);
        if clean && before.clone().any(|it| it.ended == Some(info.accepted_seq)) {
            self.count(Kind::CleanStart);
        }
    }

    /// A connection is over, or will be: how far its messages are.
    fn interrupted(&mut self, model: &Model, conn: ConnId) {
        if !self.cut.insert(conn) {
            return;
        }
        let info = &model.conns[&conn];
        let ways = [Some(Way::Up(info.client)), info.session.map(Way::Down)];
        for way in ways.into_iter().flatten() {
            let all = self.exchanges.range((way, 0)..=(way, u16::MAX));
            let found: Vec<(QoS, Step)> = all.map(|(_, state)| *state).collect();
            for (qos, step) in found {
                if let Some(kind) = cut_kind(way, qos, step) {
                    self.count(kind);
                }
                let member = model.clients[info.client].role == Role::Member;
                if member && qos == QoS::ExactlyOnce && matches!(way, Way::Down(_)) {
                    self.count(Kind::MemberKeepsQoS2);
                }
            }
        }
    }

    /// Moves a message on; `sent` by whoever the packet is from.
    fn step(&mut self, way: Way, pkt: &Pkt, sent: bool) {
        let (id, step) = match pkt {
            Pkt::Publish(publish) => {
                let Some(id) = publish.id else {
                    return;
                };
                let step = if sent { Step::Sent } else { Step::Read };
                let known = self.exchanges.get(&(way, id));
                if known.is_none() || publish.dup {
                    self.exchanges.insert((way, id), (publish.qos, step));
                }
                (id, step)
            }
            Pkt::Ack { kind, id, code } => {
                let over = matches!(kind, AckType::Puback | AckType::Pubcomp)
                    || *kind == AckType::Pubrec && code.is_error();
                if over && !sent {
                    self.exchanges.remove(&(way, *id));
                    return;
                }
                let step = match (kind, sent) {
                    (AckType::Puback | AckType::Pubrec, true) => Step::AckSent,
                    (AckType::Puback | AckType::Pubrec, false) => Step::AckRead,
                    (AckType::Pubrel, true) => Step::RelSent,
                    (AckType::Pubrel, false) => Step::RelRead,
                    (AckType::Pubcomp, _) => Step::CompSent,
                };
                (*id, step)
            }
            _ => return,
        };
        if let Some((_, at)) = self.exchanges.get_mut(&(way, id)) {
            *at = step;
        }
    }

    fn in_flight(&self, way: Way) -> usize {
        self.exchanges.range((way, 0)..=(way, u16::MAX)).count()
    }

    fn client_sent(&mut self, model: &Model, conn: ConnId, up: Way, pkt: &Pkt) {
        let info = &model.conns[&conn];
        match pkt {
            Pkt::Publish(publish) => {
                self.step(up, pkt, true);
                if publish.dup {
                    self.count(Kind::UpDup);
                }
                if publish.by_alias {
                    self.count(Kind::UpAlias);
                }
                let maximum = info.connack.as_ref().map_or(0, |it| it.receive_maximum);
                if publish.id.is_some() && self.in_flight(up) == usize::from(maximum) {
                    self.count(Kind::UpWindowFull);
                }
            }
            Pkt::Ack {
                kind: AckType::Pubrel,
                ..
            } => self.step(up, pkt, true),
            Pkt::Ack { .. } => {
                if let Some(session) = info.session {
                    self.step(Way::Down(session), pkt, true);
                }
            }
            Pkt::Pingreq => self.count(Kind::Pinged),
            _ => {}
        }
    }

    fn server_read(&mut self, model: &Model, conn: ConnId, pkt: &Pkt) {
        let info = &model.conns[&conn];
        let up = Way::Up(info.client);
        match pkt {
            Pkt::Publish(_)
            | Pkt::Ack {
                kind: AckType::Pubrel,
                ..
            } => self.step(up, pkt, false),
            Pkt::Ack { .. } => {
                if let Some(session) = info.session {
                    self.step(Way::Down(session), pkt, false);
                }
            }
            Pkt::Unsubscribe { filters, .. } => {
                let ended = |filter: &String| {
                    let mut subs = model.subs.iter().filter(|it| it.filter == *filter);
                    subs.any(|sub| Some(sub.session) == info.session && sub.ended.is_some())
                };
                if filters.iter().any(ended) {
                    self.count(Kind::Unsubscribed);
                }
            }
            _ => {}
        }
        if !model.access.asked {
            self.taken(model, conn, pkt);
        }
    }

    /// Permission has come for what a connection waits with.
    fn judged(&mut self, model: &Model, conn: ConnId) {
        let Some(pkt) = &model.last_judged else {
            return;
        };
        self.count(Kind::PublishJudged);
        self.taken(model, conn, pkt);
    }

    /// A PUBLISH or SUBSCRIBE takes effect.
    fn taken(&mut self, model: &Model, conn: ConnId, pkt: &Pkt) {
        match pkt {
            Pkt::Publish(publish) => self.published(model, publish),
            Pkt::Subscribe { filters, .. } => {
                let subs = model.subs.iter().enumerate();
                let subs: Vec<_> = subs.filter(|(_, it)| it.conn == conn).collect();
                let first = subs.len().saturating_sub(filters.len());
                for (index, sub) in &subs[first..] {
                    if !sub.new {
                        self.count(Kind::Resubscribed);
                    }
                    let mut before = model.subs.iter();
                    let before = before.find(|it| it.replaced_by == Some(*index));
                    if sub.options.no_local && before.is_some_and(|it| !it.options.no_local) {
                        self.count(Kind::NoLocalSet);
                    }
                    let kept = model
                        .messages
                        .values()
                        .any(|it| it.retain && it.read.is_some() && model.takes(sub, it));
                    if kept && !sub.shared {
                        self.count(match (sub.options.retain_handling, sub.new) {
                            (RetainHandling::SendAtSubscribe, _) => Kind::HandlingSend,
                            (RetainHandling::SendIfNew, true) => Kind::HandlingNew,
                            (RetainHandling::SendIfNew, false) => Kind::HandlingOld,
                            (RetainHandling::DoNotSend, _) => Kind::HandlingNever,
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn published(&mut self, model: &Model, publish: &PublishPkt) {
        let Some(message) = model.message(publish) else {
            return;
        };
        if message.forbidden {
            self.count(Kind::PublishForbidden);
            return;
        }
        if message.retain && message.empty {
            self.count(Kind::RetainedCleared);
        }
        let mut subs: Vec<_> = model.subs.iter().collect();
        subs.retain(|sub| sub.ended.is_none() && model.takes(sub, message));
        let own = |session: SessionId| model.sessions[session].client == message.publisher;
        if subs.iter().any(|it| it.options.no_local && own(it.session)) {
            self.count(Kind::NoLocal);
        }
        let away = |session: SessionId| !model.conns[&model.sessions[session].conn].is_live();
        let shared: Vec<_> = subs.iter().filter(|sub| sub.shared).collect();
        if !shared.is_empty() && shared.iter().all(|sub| away(sub.session)) {
            self.count(Kind::GroupOffline);
        }
    }

    fn server_sent(&mut self, event: &Event, model: &Model, conn: ConnId, pkt: &Pkt) {
        let info = &model.conns[&conn];
        let down = info.session.map(Way::Down);
        match pkt {
            Pkt::Publish(publish) => {
                if let Some(down) = down {
                    self.step(down, pkt, true);
                    let connect = info.connect.as_ref();
                    let maximum = connect.map_or(0, |it| it.receive_maximum);
                    if publish.id.is_some() && self.in_flight(down) == usize::from(maximum) {
                        self.count(Kind::DownWindowFull);
                    }
                }
                self.delivered(event, model, conn, publish);
            }
            Pkt::Ack {
                kind: AckType::Pubrel,
                id,
                ..
            } => {
                if let Some(down) = down {
                    let state = self.exchanges.get(&(down, *id)).map(|(_, step)| *step);
                    if matches!(state, Some(Step::RelSent | Step::RelRead | Step::CompSent)) {
                        self.count(Kind::PubrelAgain);
                    }
                    self.step(down, pkt, true);
                }
            }
            Pkt::Ack { code, .. } => {
                let told = [
                    ReasonCode::QuotaExceeded,
                    ReasonCode::ImplementationSpecificError,
                ];
                if told.contains(code) {
                    self.count(Kind::NotStored);
                }
                self.step(Way::Up(info.client), pkt, true);
            }
            Pkt::Suback { codes, .. } if codes.iter().any(|code| code.is_error()) => {
                self.count(Kind::SubscribeForbidden);
            }
            Pkt::Connack(connack) if connack.code.is_error() => self.count(Kind::ConnectRefused),
            _ => {}
        }
    }

    fn delivered(&mut self, event: &Event, model: &Model, conn: ConnId, publish: &PublishPkt) {
        let (Some(session), Some(message), Some(uid)) =
            (model.session_of(conn), model.message(publish), publish.uid)
        else {
            return;
        };
        if publish.by_alias {
            self.count(Kind::DownAlias);
        }
        if publish.dup {
            self.count(Kind::DownDup);
            let age = event.at - message.last_read_at;
            if message
                .read_expiry
                .is_some_and(|it| u64::from(it) * SECOND < age)
            {
                self.count(Kind::DupAfterExpiry);
            }
            return;
        }
        if model.sessions[session].client == WITNESS && message.will.is_some() {
            self.wills.insert(uid, event.at);
        }
        if publish.subscription_ids.len() > 1 {
            self.count(Kind::SubscriptionIds);
        }
        if let Some(group) = group_of(model, conn, publish) {
            match self.given.insert((group, uid), conn) {
                None => self.count(Kind::Given),
                Some(_) => self.count(Kind::GivenAgain),
            }
            return;
        }
        let live = |sub: &&crate::model::Sub| sub.ended.is_none() && !sub.shared;
        let matching: Vec<_> = model.matching(session, message).filter(live).collect();
        if matching.len() > 1 {
            self.count(Kind::Overlapping);
        }
        let as_published = |sub: &&&crate::model::Sub| sub.options.retain_as_published;
        let kept = matching.iter().filter(as_published).count();
        if message.retain && (1..matching.len()).contains(&kept) {
            self.count(Kind::SomeAsPublished);
        }
        if publish.retain {
            let kept = kept > 0;
            self.count(if kept {
                Kind::AsPublished
            } else {
                Kind::RetainedSent
            });
        }
    }

    /// What became of the wills.
    pub(crate) fn settle(&mut self, model: &Model) {
        for info in model.conns.values() {
            let will = info.connect.as_ref().and_then(|connect| connect.will);
            let (Some(uid), Some(_)) = (will, info.session) else {
                continue;
            };
            let delay = u64::from(model.messages[&uid].will.unwrap_or_default()) * SECOND;
            let published = self.wills.get(&uid).copied();
            let kind = match (info.superseded, info.ended, published) {
                (Some(_), _, Some(_)) => Kind::WillAtTakeover,
                (Some(_), _, None) => Kind::WillCancelled,
                (None, Some((_, ended, _)), Some(_)) if delay == 0 || ended == 0 => {
                    Kind::WillAtOnce
                }
                (None, Some((_, ended, _)), Some(at)) if at + MILLI < ended + delay => {
                    Kind::WillEarly
                }
                (None, Some(_), Some(_)) => Kind::WillDelayed,
                (None, Some((_, _, CloseReason::PeerDisconnected(ReasonCode::Success))), None) => {
                    Kind::WillRemoved
                }
                (None, Some(_), None) => Kind::WillCancelled,
                (None, None, _) => continue,
            };
            self.count(kind);
        }
    }
}

fn cut_kind(way: Way, qos: QoS, step: Step) -> Option<Kind> {
    let up = matches!(way, Way::Up(_));
    Some(match (up, qos, step) {
        (true, QoS::AtLeastOnce, Step::Sent) => Kind::Up1Sent,
        (true, QoS::AtLeastOnce, Step::Read) => Kind::Up1Read,
        (true, QoS::AtLeastOnce, Step::AckSent) => Kind::Up1Acked,
        (true, QoS::ExactlyOnce, Step::Sent) => Kind::Up2Sent,
        (true, QoS::ExactlyOnce, Step::Read) => Kind::Up2Read,
        (true, QoS::ExactlyOnce, Step::AckSent) => Kind::Up2Rec,
        (true, QoS::ExactlyOnce, Step::RelSent) => Kind::Up2RelSent,
        (true, QoS::ExactlyOnce, Step::RelRead) => Kind::Up2RelRead,
        (true, QoS::ExactlyOnce, Step::CompSent) => Kind::Up2Comp,
        (false, QoS::AtLeastOnce, Step::Sent) => Kind::Down1Sent,
        (false, QoS::AtLeastOnce, Step::Read) => Kind::Down1Read,
        (false, QoS::AtLeastOnce, Step::AckSent) => Kind::Down1Acked,
        (false, QoS::ExactlyOnce, Step::Sent) => Kind::Down2Sent,
        (false, QoS::ExactlyOnce, Step::Read) => Kind::Down2Read,
        (false, QoS::ExactlyOnce, Step::AckSent) => Kind::Down2Rec,
        (false, QoS::ExactlyOnce, Step::AckRead) => Kind::Down2RecRead,
        (false, QoS::ExactlyOnce, Step::RelSent) => Kind::Down2RelSent,
        (false, QoS::ExactlyOnce, Step::CompSent) => Kind::Down2Comp,
        // A client answers PUBREL at once.
        _ => return None,
    })
}
