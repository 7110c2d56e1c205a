//! What a shard asks hooks, and tells them.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use avocet_access::{Effect, Identity};
use avocet_codec::ReasonCode;
use avocet_engine::{
    AuthenticationRequest, AuthorizationRequest, ConnectionId, Event, PublishIn, QuestionId,
    SessionKey, ShardId, Verdict,
};
use avocet_session::{Instant, Message, Now};

use super::Shard;
use crate::access::{identity_of, refuse};
use crate::authorization;
use crate::hooks::{
    Asker, Authenticate, Authorize, Authorized, Client, HookSettings, Interests, Job, Missed,
    Publication, Reply, Told, Waiting, forget,
};

/// Questions that were answered and whose deadlines are kept all the same, at least.
const ANSWERED_MAX: usize = 64;

/// The questions of a shard, and whom they can be about.
pub(crate) struct Questions {
    shard: ShardId,
    asker: Asker,
    authenticate: Deadlines,
    authorize: Deadlines,
    publish_in: Deadlines,
    /// How long answers to what clients may do hold.
    kept: Duration,
    /// Whether rules say something of everything.
    has_rules: bool,
    /// How many there were.
    count: u64,
    waiting: HashMap<u64, (ConnectionId, Question, Option<Waiting>)>,
    /// Those who are connected.
    clients: HashMap<ConnectionId, Arc<Client>>,
}

/// What hooks were asked about a connection.
enum Question {
    /// With what is asked elsewhere if they pass.
    Authenticate(AuthenticationRequest),
    Authorize(Box<Open>),
    PublishIn,
}

/// A question of the engine that no rule is about.
pub(super) struct Open {
    pub(super) question: QuestionId,
    pub(super) client: Arc<avocet_engine::Client>,
    pub(super) request: AuthorizationRequest,
    /// What the rules say where nobody says anything.
    pub(super) default: Effect,
}

/// Questions of one kind, which all may take as long.
struct Deadlines {
    timeout: Duration,
    missed: Missed,
    /// In the order in which they were put; some may be answered.
    queue: VecDeque<(Instant, u64)>,
}

impl Deadlines {
    fn new(timeout: Duration, missed: Missed) -> Self {
        Self {
            timeout,
            missed,
            queue: VecDeque::new(),
        }
    }

    fn put(&mut self, number: u64, now: Now) -> Instant {
        let until = now.instant + self.timeout;
        self.queue.push_back((until, number));
        until
    }

    /// Lets go of those that were answered, behind one that was not.
    fn retain(&mut self, waits: impl Fn(u64) -> bool) {
        self.queue.retain(|(_, number)| waits(*number));
    }
}

impl Questions {
    pub(crate) fn new(
        shard: ShardId,
        asker: Asker,
        settings: &HookSettings,
        has_rules: bool,
    ) -> Self {
        Self {
            shard,
            asker,
            authenticate: Deadlines::new(
                settings.authenticate_timeout,
                settings.authenticate_missed,
            ),
            authorize: Deadlines::new(settings.authorize_timeout, settings.authorize_missed),
            publish_in: Deadlines::new(settings.publish_in_timeout, settings.publish_in_missed),
            kept: settings.authorize_cache,
            has_rules,
            count: 0,
            waiting: HashMap::new(),
            clients: HashMap::new(),
        }
    }

    fn wants(&self, interest: Interests) -> bool {
        self.asker.hooked.interests.contains(interest)
    }

    fn deadlines(&mut self, question: &Question) -> &mut Deadlines {
        match question {
            Question::Authenticate(_) => &mut self.authenticate,
            Question::Authorize(_) => &mut self.authorize,
            Question::PublishIn => &mut self.publish_in,
        }
    }

    /// A number for a question, and its deadline.
    fn register(
        &mut self,
        id: ConnectionId,
        question: Question,
        now: Now,
    ) -> (ShardId, u64, Instant) {
        self.count += 1;
        let number = self.count;
        let waiting = mem::take(&mut self.waiting);
        let deadlines = self.deadlines(&question);
        if deadlines.queue.len() > 2 * waiting.len() + ANSWERED_MAX {
            deadlines.retain(|number| waiting.contains_key(&number));
        }
        let until = deadlines.put(number, now);
        self.waiting = waiting;
        self.waiting.insert(number, (id, question, None));
        (self.shard, number, until)
    }

    /// Keeps what is on its way, to be forgotten with its question.
    fn keep(&mut self, number: u64, waiting: Waiting) {
        if let Some((_, _, kept)) = self.waiting.get_mut(&number) {
            *kept = Some(waiting);
        }
    }

    fn ask_authenticate(
        &mut self,
        id: ConnectionId,
        address: Option<IpAddr>,
        identity: Identity,
        request: AuthenticationRequest,
        now: Now,
    ) {
        let question = Question::Authenticate(request.clone());
        let place = self.register(id, question, now);
        let request = Authenticate::new(id, identity, request);
        let asker = &self.asker;
        let waiting = asker.ask(address, place, |answer| Job::Authenticate(request, answer));
        self.keep(place.1, waiting);
    }

    fn ask_authorize(&mut self, open: Open, now: Now) {
        let of = &open.client;
        let client = Client {
            id: of.id,
            peer: of.opened.peer.to_string().into(),
            listener: of.opened.listener,
            session: Arc::clone(&of.session),
            user: of.identity.user.clone(),
        };
        let address = of.opened.peer.ip();
        let request = Authorize {
            client: Arc::new(client),
            wanted: open.request.clone(),
        };
        let place = self.register(of.id, Question::Authorize(Box::new(open)), now);
        let asker = &self.asker;
        let waiting = asker.ask(address, place, |answer| Job::Authorize(request, answer));
        self.keep(place.1, waiting);
    }

    fn ask_publish_in(&mut self, client: Arc<Client>, message: Message, will: bool, now: Now) {
        let place = self.register(client.id, Question::PublishIn, now);
        let address = client.peer.parse::<SocketAddr>();
        let address = address.ok().map(|address| address.ip());
        let publication = Publication {
            client,
            message,
            will,
        };
        let asker = &self.asker;
        let waiting = asker.ask(address, place, |answer| Job::PublishIn(publication, answer));
        self.keep(place.1, waiting);
    }

    /// When the next deadline may be.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let queues = [&self.authenticate, &self.authorize, &self.publish_in];
        let queues = queues.map(|deadlines| &deadlines.queue);
        let fronts = queues.into_iter().filter_map(|queue| queue.front());
        fronts.map(|(until, _)| *until).min()
    }

    /// The next question whose deadline has passed.
    fn next_missed(&mut self, now: Instant) -> Option<(ConnectionId, Question)> {
        for deadlines in [
            &mut self.authenticate,
            &mut self.authorize,
            &mut self.publish_in,
        ] {
            while let Some((until, number)) = deadlines.queue.front().copied() {
                let waits = self.waiting.contains_key(&number);
                if waits && now < until {
                    break;
                }
                deadlines.queue.pop_front();
                if let Some((id, question, waiting)) = self.waiting.remove(&number) {
                    if let Some(waiting) = waiting {
                        forget(&waiting);
                    }
                    return Some((id, question));
                }
            }
        }
        None
    }
}

impl Shard {
    fn wants(&self, interest: Interests) -> bool {
        let questions = self.questions.as_ref();
        questions.is_some_and(|questions| questions.wants(interest))
    }

    /// Finds out who a client is.
    pub(super) fn authenticate(
        &mut self,
        id: ConnectionId,
        request: AuthenticationRequest,
        now: Now,
    ) {
        self.name_client(id, &request);
        if !self.wants(Interests::AUTHENTICATE) {
            self.ask_settings(id, &request, now);
            return;
        }
        let key = self.connections.key(id);
        let connection = key.and_then(|key| self.connections.get_mut(key));
        let names = connection.and_then(|it| it.stream.certificate());
        let identity = identity_of(names);
        let opened = self.engine.opened(id);
        let address = opened.and_then(|it| it.peer.ip());
        if let Some(questions) = &mut self.questions {
            questions.ask_authenticate(id, address, identity, request, now);
        }
    }

    /// Leaves it to the settings who may connect.
    fn ask_settings(&mut self, id: ConnectionId, request: &AuthenticationRequest, now: Now) {
        // It may have gone while it was asked about: nothing is begun that nobody ends.
        if self.engine.opened(id).is_none() {
            return;
        }
        let asked = self.authenticator.as_mut();
        let key = self.connections.key(id);
        let connection = key.and_then(|key| self.connections.get_mut(key));
        let names = connection.and_then(|it| it.stream.certificate());
        let verdict = asked.and_then(|it| it.ask(self.id, id, request, names));
        if let Some(verdict) = verdict {
            self.handle_authenticated(id, verdict, now);
        }
    }

    pub(super) fn handle_authenticated(&mut self, id: ConnectionId, verdict: Verdict, now: Now) {
        let verdict = self.judge(id, verdict);
        self.engine.handle_authenticated(id, verdict, now);
    }

    /// Finds out what a client may do that no rule is about.
    pub(super) fn authorize(&mut self, open: Open, now: Now) {
        if self.wants(Interests::AUTHORIZE)
            && let Some(questions) = &mut self.questions
        {
            questions.ask_authorize(open, now);
        } else {
            self.authorize_by_settings(open, now);
        }
    }

    /// Leaves it to the settings what a client may do.
    fn authorize_by_settings(&mut self, open: Open, now: Now) {
        if let Some(authorizer) = &self.authorizer {
            authorizer.ask(Box::new(authorization::Question {
                shard: self.id,
                id: open.question,
                client: open.client,
                request: open.request,
                default: open.default,
                since: tokio::time::Instant::now(),
            }));
            return;
        }
        let questions = self.questions.as_ref();
        let denied = questions.is_none_or(|it| it.has_rules) && open.default == Effect::Deny;
        let answer = if denied {
            Authorized::Refuse(ReasonCode::NotAuthorized)
        } else {
            Authorized::Allow
        };
        self.answer_authorize(&open, answer, now);
    }

    fn answer_authorize(&mut self, open: &Open, answer: Authorized, now: Now) {
        let questions = self.questions.as_ref();
        let kept = questions.map_or(Duration::ZERO, |it| it.kept);
        if let Some(permission) = answer.permission(&open.request) {
            let (id, question) = (open.client.id, open.question);
            self.engine
                .handle_authorized(id, question, permission, kept, now);
        }
    }

    /// Asks what becomes of a message.
    pub(super) fn publish_in(&mut self, id: ConnectionId, message: Message, now: Now) {
        let Some(questions) = &mut self.questions else {
            return;
        };
        match questions.clients.get(&id).cloned() {
            Some(client) => questions.ask_publish_in(client, message, false, now),
            None => {
                debug_assert!(false, "who publishes is connected");
                self.refuse(id, &Question::PublishIn, now);
            }
        }
    }

    /// Asks what becomes of the Will Message of a client that is about to be connected.
    pub(super) fn will_in(
        &mut self,
        id: ConnectionId,
        session: Arc<SessionKey>,
        user: Option<Box<str>>,
        message: Message,
        now: Now,
    ) {
        let opened = self.engine.opened(id);
        let (peer, listener) = opened.map_or_else(
            || (Box::default(), u16::MAX),
            |it| (it.peer.to_string().into(), it.listener),
        );
        let client = Arc::new(Client {
            id,
            peer,
            listener,
            session,
            user,
        });
        if let Some(questions) = &mut self.questions {
            questions.ask_publish_in(client, message, true, now);
        }
    }

    /// An answer came.
    pub(super) fn handle_reply(&mut self, number: u64, reply: Reply, now: Now) {
        let Some(questions) = &mut self.questions else {
            return;
        };
        let asked = questions.waiting.remove(&number);
        let counts = &questions.asker.hooked.counts;
        let Some((id, question, _)) = asked else {
            if !matches!(reply, Reply::Nothing | Reply::Panicked) {
                counts.count_late();
            }
            return;
        };
        match (question, reply) {
            (Question::Authenticate(request), Reply::Authenticated(answer)) => {
                match answer.verdict() {
                    Some(verdict) => self.handle_authenticated(id, verdict, now),
                    None => self.ask_settings(id, &request, now),
                }
            }
            (Question::Authorize(open), Reply::Authorized(Authorized::Pass)) => {
                self.authorize_by_settings(*open, now);
            }
            (Question::Authorize(open), Reply::Authorized(answer)) => {
                self.answer_authorize(&open, answer, now);
            }
            (Question::PublishIn, Reply::PublishIn(answer)) => {
                self.engine.handle_publish_in(id, answer, now);
            }
            (question, Reply::Panicked) => self.refuse(id, &question, now),
            (question, _) => {
                counts.count_unanswered();
                self.miss(id, question, now);
            }
        }
    }

    /// Ends the questions whose deadline has passed.
    pub(super) fn miss_deadlines(&mut self, now: Now) {
        while let Some(questions) = &mut self.questions
            && let Some((id, question)) = questions.next_missed(now.instant)
        {
            let what = match question {
                Question::Authenticate(_) => "authenticate",
                Question::Authorize(_) => "authorize",
                Question::PublishIn => "publish_in",
            };
            questions.asker.hooked.miss(what, now.instant);
            self.miss(id, question, now);
        }
    }

    /// Nobody answers: the settings say what that means.
    fn miss(&mut self, id: ConnectionId, question: Question, now: Now) {
        let Some(questions) = &mut self.questions else {
            return;
        };
        let missed = questions.deadlines(&question).missed;
        match (missed, question) {
            (Missed::Refuse, question) => self.refuse(id, &question, now),
            (Missed::Pass, Question::Authenticate(request)) => self.ask_settings(id, &request, now),
            (Missed::Pass, Question::Authorize(open)) => self.authorize_by_settings(*open, now),
            (Missed::Pass, Question::PublishIn) => {
                self.engine.handle_publish_in(id, PublishIn::Pass, now);
            }
        }
    }

    fn refuse(&mut self, id: ConnectionId, question: &Question, now: Now) {
        match question {
            Question::Authenticate(AuthenticationRequest::ReAuthenticate { .. }) => {
                // DISCONNECT has no other code for it [MQTT5-3.14.2.1].
                self.handle_authenticated(id, refuse(ReasonCode::NotAuthorized), now);
            }
            Question::Authenticate(_) => {
                self.handle_authenticated(id, refuse(ReasonCode::ServerUnavailable), now);
            }
            Question::Authorize(open) => {
                let (id, question) = (open.client.id, open.question);
                let refused = Authorized::Refuse(ReasonCode::NotAuthorized);
                if let Some(permission) = refused.permission(&open.request) {
                    let kept = Duration::ZERO;
                    self.engine
                        .handle_authorized(id, question, permission, kept, now);
                }
            }
            Question::PublishIn => {
                let verdict = PublishIn::Refuse(ReasonCode::UnspecifiedError);
                self.engine.handle_publish_in(id, verdict, now);
            }
        }
    }

    /// Tells hooks of what they want to know.
    pub(super) fn tell_hooks(&mut self, event: &Event) {
        let Some(questions) = &mut self.questions else {
            return;
        };
        let tells = questions.wants(Interests::EVENTS);
        let told = match event {
            Event::Connected {
                id,
                peer,
                listener,
                session,
                user,
                ..
            } => {
                let client = Arc::new(Client {
                    id: *id,
                    peer: peer.to_string().into(),
                    listener: *listener,
                    session: Arc::clone(session),
                    user: user.clone(),
                });
                questions.clients.insert(*id, Arc::clone(&client));
                Some(Told::Connected(client))
            }
            Event::Disconnected { id, reason, .. } => {
                let client = questions.clients.remove(id);
                client.map(|client| Told::Disconnected(client, *reason))
            }
            Event::Subscribed { id, filters } => {
                let client = questions.clients.get(id).cloned();
                client.map(|client| Told::Subscribed(client, filters.clone()))
            }
            Event::Unsubscribed { id, filters } => {
                let client = questions.clients.get(id).cloned();
                client.map(|client| Told::Unsubscribed(client, filters.clone()))
            }
            // What is for the operator alone.
            Event::Refused { .. }
            | Event::Unreadable { .. }
            | Event::Flapping { .. }
            | Event::ManySessions { .. }
            | Event::NotAuthorized { .. }
            | _ => None,
        };
        if let Some(told) = told.filter(|_| tells) {
            questions.asker.tell(told);
        }
    }
}
