//! What the driver is asked about what clients want: its answers, what waits for them, and those that
//! are kept.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use avocet_access::Action;
use avocet_codec::{Connect, Frame, Packet, PacketType, QoS, ReasonCode};
use avocet_session::{AckToken, Instant, Message, Now};

use crate::access::{Judged, What};
use crate::connect::Joining;
use crate::connection::Question;
use crate::counters::DropReason;
use crate::subscribe::{SubscribeRequest, told};
use crate::{
    AuthorizationRequest, Client, Command, ConnectionId, Engine, Permission, QuestionId, RefusedBy,
};

/// Longer topics are asked about each time: what is kept for a client is bounded.
const TOPIC_BYTES_MAX: usize = 256;

/// In a SUBSCRIBE with more filters, nobody is asked: what no rule is about is refused.
const FILTERS_MAX: usize = 256;

/// What is said where nobody knows.
const UNANSWERED: ReasonCode = ReasonCode::ImplementationSpecificError;

/// The highest QoS that is granted, or an error code.
pub(crate) type Answer = Result<QoS, ReasonCode>;

/// Something that waits for the driver's answer.
#[derive(Debug)]
pub(crate) struct Asked {
    id: QuestionId,
    /// When it is refused if there is no answer.
    pub(crate) until: Instant,
    /// Whom it is about. The answer is not kept if its client is somebody else by then.
    client: Arc<Client>,
    /// Nor is it if answers were forgotten meanwhile.
    generation: u64,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Publish(Box<Message>, Option<AckToken>),
    /// With what is known of each filter without the driver.
    Subscribe(SubscribeRequest, Vec<Judged>),
    /// To be let in with a Will.
    Will(Box<(Frame, Joining)>),
}

impl Asked {
    /// The QoS 2 message that it is about.
    pub(crate) fn exactly_once(&self) -> Option<AckToken> {
        match &self.wanted {
            Wanted::Publish(_, token) => token.filter(|it| it.qos() == QoS::ExactlyOnce),
            Wanted::Subscribe(..) | Wanted::Will(_) => None,
        }
    }

    fn takes(&self, permission: &Permission) -> bool {
        let subscribes = matches!(self.wanted, Wanted::Subscribe(..));
        subscribes == matches!(permission, Permission::Subscribe(_))
    }
}

/// The driver's answers for the client of a session, by topic or filter.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    generation: u64,
    topics: BTreeMap<Box<str>, Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    what: What,
    until: Instant,
    answer: Answer,
}

impl Answers {
    /// The answer that is kept.
    pub(crate) fn get(
        &mut self,
        what: What,
        topic: &str,
        generation: u64,
        now: Instant,
    ) -> Option<Answer> {
        self.set_generation(generation);
        let mut known = self.topics.get(topic)?.iter();
        let known = known.find(|it| it.what == what)?;
        (now < known.until).then_some(known.answer)
    }

    /// Forgets the answers of other generations.
    fn set_generation(&mut self, generation: u64) {
        if self.generation != generation {
            self.topics.clear();
            self.generation = generation;
        }
    }

    /// Keeps an answer; of `topics_max` topics, those whose answers end first give way.
    fn put(&mut self, topic: &str, known: Known, topics_max: usize, now: Instant) {
        if topic.len() > TOPIC_BYTES_MAX || topics_max == 0 {
            return;
        }
        if !self.topics.contains_key(topic) && self.topics.len() >= topics_max {
            self.topics.retain(|_, all| {
                all.retain(|it| now < it.until);
                !all.is_empty()
            });
            while self.topics.len() >= topics_max {
                let end = |all: &Vec<Known>| all.iter().map(|it| it.until).max();
                let first = self.topics.iter().min_by_key(|(_, all)| end(all));
                let Some(first) = first.map(|(topic, _)| topic.clone()) else {
                    break;
                };
                self.topics.remove(&first);
            }
        }
        let all = self.topics.entry(topic.into()).or_default();
        all.retain(|it| it.what != known.what);
        all.push(known);
    }

    pub(crate) fn clear(&mut self) {
        self.topics.clear();
    }
}

pub(crate) fn refused_by(reason_code: ReasonCode) -> RefusedBy {
    if reason_code == UNANSWERED {
        RefusedBy::Nobody
    } else {
        RefusedBy::Answer
    }
}

impl Engine {
    /// Forgets what the driver answered to [`Command::Authorize`]; what it was asked before is not
    /// kept either.
    pub fn forget_answers(&mut self) {
        self.generation += 1;
    }

    /// Asks whether a client may publish a message, which waits for the answer with all its input.
    pub(crate) fn ask_to_publish(
        &mut self,
        id: ConnectionId,
        message: Message,
        token: Option<AckToken>,
        now: Now,
    ) {
        let request = AuthorizationRequest::Publish {
            topic_name: message.topic_name().to_buf(),
            qos: message.qos(),
            retain: message.retain(),
            will: false,
        };
        let session = self.connections.get(&id).and_then(|entry| entry.session);
        let access = session.and_then(|session| self.sessions.get(session)?.access.as_ref());
        if let Some(client) = access.map(|access| Arc::clone(access.client())) {
            let wanted = Wanted::Publish(Box::new(message), token);
            self.ask(id, client, request, wanted, now);
        }
    }

    /// Subscribes to what may be subscribed to, once that is known of all filters.
    pub(crate) fn judge_subscribe(
        &mut self,
        id: ConnectionId,
        request: SubscribeRequest,
        now: Now,
    ) {
        let session = self.connections.get(&id).and_then(|entry| entry.session);
        let access = session.and_then(|session| self.sessions.get(session)?.access.as_ref());
        let Some(client) = access.map(|access| Arc::clone(access.client())) else {
            return;
        };
        let mut judged = self.judge_filters(session, &request.filters, now);
        let mut open = Vec::new();
        let too_many = request.filters.len() > FILTERS_MAX;
        for ((filter, _), judged) in request.filters.iter().zip(&mut judged) {
            if let Judged::Open(qos) = *judged {
                if too_many {
                    *judged = Judged::Refused(ReasonCode::QuotaExceeded, RefusedBy::Nobody);
                } else {
                    open.push((filter.clone(), qos));
                }
            }
        }
        if open.is_empty() {
            self.subscribe_as_judged(id, &client, &request, &judged, now);
        } else {
            let wanted = Wanted::Subscribe(request, judged);
            let request = AuthorizationRequest::Subscribe { filters: open };
            self.ask(id, client, request, wanted, now);
        }
    }

    fn subscribe_as_judged(
        &mut self,
        id: ConnectionId,
        client: &Arc<Client>,
        request: &SubscribeRequest,
        judged: &[Judged],
        now: Now,
    ) {
        let mut permissions = Vec::with_capacity(judged.len());
        for ((filter, _), judged) in request.filters.iter().zip(judged) {
            permissions.push(match judged {
                Judged::Allowed(qos) => Ok(*qos),
                Judged::Refused(reason_code, by) => {
                    self.count_refusal(client, Action::Subscribe, filter.as_str(), *by, now);
                    Err(*reason_code)
                }
                Judged::Open(_) => Err(ReasonCode::NotAuthorized),
            });
        }
        self.subscribe(id, request, Some(&permissions), now);
    }

    /// Asks whether a client may leave its Will.
    pub(crate) fn ask_to_join(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        joining: Joining,
        client: Arc<Client>,
        now: Now,
    ) {
        let Some(will) = &connect.will else {
            return;
        };
        let request = AuthorizationRequest::Publish {
            topic_name: will.topic_name.to_buf(),
            qos: will.qos,
            retain: will.retain,
            will: true,
        };
        if let Ok(frame) = Frame::encode(&Packet::Connect(*connect), connect.version) {
            let wanted = Wanted::Will(Box::new((frame, joining)));
            self.ask(id, client, request, wanted, now);
        }
    }

    fn ask(
        &mut self,
        id: ConnectionId,
        client: Arc<Client>,
        request: AuthorizationRequest,
        wanted: Wanted,
        now: Now,
    ) {
        let default = self.rules.default_effect();
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        self.questions += 1;
        let question = QuestionId(self.questions);
        if entry.session.is_some() {
            entry.server.pause();
        }
        entry.question = Some(Question::Authorize(Box::new(Asked {
            id: question,
            until: now.instant + self.config.authorization_timeout,
            client: Arc::clone(&client),
            generation: self.generation,
            wanted,
        })));
        self.counters.authorizations_asked += 1;
        self.command(Command::Authorize {
            id,
            question,
            client,
            request,
            default,
        });
        self.update_timer(id);
    }

    /// The answer to [`Command::Authorize`], which holds for the same client and topic for so long as
    /// it may be `kept`; nothing if the connection is gone, or the question is not open any more.
    pub fn handle_authorized(
        &mut self,
        id: ConnectionId,
        question: QuestionId,
        permission: Permission,
        kept: Duration,
        now: Now,
    ) {
        let now = self.clock.read(now);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        match entry.question.take() {
            Some(Question::Authorize(asked))
                if asked.id == question && asked.takes(&permission) =>
            {
                self.conclude(id, *asked, Some((permission, kept)), now);
            }
            other => entry.question = other,
        }
    }

    /// No answer came in time: what waits for it is refused.
    pub(crate) fn expire_question(&mut self, id: ConnectionId, now: Now) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        match entry.question.take() {
            Some(Question::Authorize(asked)) if asked.until <= now.instant => {
                self.conclude(id, *asked, None, now);
            }
            other => entry.question = other,
        }
    }

    fn conclude(
        &mut self,
        id: ConnectionId,
        asked: Asked,
        answer: Option<(Permission, Duration)>,
        now: Now,
    ) {
        let unanswered = match &answer {
            Some((Permission::Publish(reason_code), _)) => *reason_code == UNANSWERED,
            Some((Permission::Subscribe(answers), _)) => answers.contains(&Err(UNANSWERED)),
            None => true,
        };
        self.counters.authorizations_unanswered += u64::from(unanswered);
        let missing = match answer {
            Some(_) => ReasonCode::NotAuthorized,
            None => UNANSWERED,
        };
        let (permission, kept) = answer.unzip();
        let until = kept.filter(|kept| !kept.is_zero() && asked.generation == self.generation);
        let until = until.map(|kept| now.instant + kept);
        let answers = match permission {
            Some(Permission::Publish(reason_code)) if reason_code.is_error() => {
                vec![Err(reason_code)]
            }
            Some(Permission::Publish(_)) => vec![Ok(QoS::ExactlyOnce)],
            Some(Permission::Subscribe(answers)) => answers,
            None => Vec::new(),
        };
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Err(missing));
        let client = &asked.client;
        let session = self.connections.get(&id).and_then(|entry| entry.session);
        // Rules that came meanwhile refuse what they are about.
        let is_older = asked.generation != self.generation;
        match asked.wanted {
            Wanted::Publish(message, token) => {
                let answer = next();
                let topic = message.topic_name().as_str();
                let what = What::Publish(message.qos(), message.retain());
                self.keep(client, topic, (what, answer), until, now);
                let mut refused = answer.err().map(|it| (it, refused_by(it)));
                if is_older {
                    let (name, qos) = (message.topic_name(), message.qos());
                    let judged = self.judge_publish(session, name, qos, message.retain(), now);
                    if let Judged::Refused(reason_code, by) = judged {
                        refused = Some((reason_code, by));
                    }
                }
                match refused {
                    None => self.publish_permitted(id, *message, token, now),
                    Some((reason_code, by)) => {
                        self.count_refusal(client, Action::Publish, topic, by, now);
                        let reason_code = told(reason_code, PacketType::Puback);
                        let refusal = (reason_code, DropReason::NotAuthorized);
                        self.refuse_publish(id, token, refusal);
                    }
                }
            }
            Wanted::Subscribe(request, mut judged) => {
                for ((filter, _), judged) in request.filters.iter().zip(&mut judged) {
                    let Judged::Open(qos) = *judged else {
                        continue;
                    };
                    let (what, answer) = (What::Subscribe(qos), next());
                    self.keep(client, filter.as_str(), (what, answer), until, now);
                    *judged = self.settle_filter(session, filter.as_filter(), qos, answer);
                }
                if is_older {
                    let again = self.judge_filters(session, &request.filters, now);
                    for (judged, again) in judged.iter_mut().zip(again) {
                        if matches!(again, Judged::Refused(..)) {
                            *judged = again;
                        }
                    }
                }
                self.subscribe_as_judged(id, client, &request, &judged, now);
            }
            Wanted::Will(joins) => {
                let (connect, joining) = *joins;
                let answer = next().map(drop);
                let judged = answer.map_err(|it| (it, refused_by(it)));
                self.answer_will(id, &connect, joining, client, judged, now);
                return;
            }
        }
        self.settle(now);
        self.unpause(id, now);
        self.update_timer(id);
    }

    /// Keeps an answer for the same client.
    fn keep(
        &mut self,
        client: &Arc<Client>,
        topic: &str,
        (what, answer): (What, Answer),
        until: Option<Instant>,
        now: Now,
    ) {
        let entry = self.connections.get(&client.id);
        let slot = entry.and_then(|entry| self.sessions.get_mut(entry.session?));
        let access = slot.and_then(|slot| slot.access.as_mut());
        if let (Some(access), Some(until)) = (access, until)
            && answer != Err(UNANSWERED)
            && Arc::ptr_eq(access.client(), client)
        {
            let known = Known {
                what,
                until,
                answer,
            };
            let topics_max = self.config.limits.answers_per_session_max;
            let answers = &mut access.answers;
            answers.set_generation(self.generation);
            answers.put(topic, known, topics_max, now.instant);
        }
    }
}
