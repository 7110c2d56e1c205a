//! Clients whom other servers know: tokens that are introspected (RFC 7662), users whom an HTTP server
//! lets in, and the keys of tokens, which come from a URL.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use avocet_access::Identity;
use avocet_codec::ReasonCode;
use avocet_engine::{Accepted, Verdict};
use avocet_session::UnixTime;
use base64ct::{Base64, Encoding as _};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::access::{AccessError, Job, lock, read_secret, refuse};
use crate::clock::Clock;
use crate::config::Access;
use crate::http::{self, Answer, Body, Server};
use crate::inbox::{Inbox, Mail};
use crate::queue::Taker;
use crate::tokens::{Checked, Tokens, claims_into};

/// Questions that are asked at the same time.
const ASKING_MAX: usize = 64;

/// Answers that are kept.
const CACHE_MAX: usize = 10_000;

/// How often at most keys are fetched because a token names one that is not known, and how soon
/// after a failure, unless they are fetched more often anyway.
const FETCH_AGAIN: Duration = Duration::from_secs(30);

/// How often at most they are fetched.
const FETCH_MIN: Duration = Duration::from_secs(1);

/// What other servers are asked.
pub(crate) struct Remote {
    keys: Option<Keys>,
    source: Option<Mutex<Arc<Source>>>,
    timeout: Duration,
    cache: Cache,
    /// The last question was not answered, which the operator was told.
    failing: AtomicBool,
}

/// Who knows the clients that present what nobody here knows.
struct Source {
    kind: Kind,
    server: Server,
    url: Box<str>,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    /// The claim that is the User Name.
    user: Box<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Introspection,
    Callout,
}

/// The keys of tokens, from a URL.
struct Keys {
    server: Mutex<Arc<Server>>,
    url: Box<str>,
    access: Access,
    asked: Mutex<Asked>,
    /// They are wanted at once.
    wanted: Notify,
    /// Changes with each answer, or when none comes.
    answered: watch::Sender<()>,
    failing: AtomicBool,
}

struct Asked {
    /// When it began the last time.
    at: Option<Instant>,
    /// It goes on, or is about to begin.
    now: bool,
}

/// Keys that are in force, to be replaced.
type Current = Mutex<Arc<Tokens>>;

/// Whom a server has let in, or nobody.
type Known = Option<(Identity, Option<UnixTime>)>;

impl Remote {
    /// Reads the files for it. None when no other server is asked.
    pub(crate) fn open(access: &Access) -> Result<Option<Self>, AccessError> {
        let ca = access.http_ca.as_deref();
        let server = |key, url: &str, authorization: Option<String>| {
            let server = Server::new(url, ca, authorization.as_deref());
            server
                .map_err(AccessError::Tls)?
                .ok_or(AccessError::Unusable { key })
        };
        let keys = match &access.token_keys_url {
            Some(url) => Some(Keys {
                server: Mutex::new(Arc::new(server("access.token_keys_url", url, None)?)),
                url: url.clone(),
                access: access.clone(),
                asked: Mutex::new(Asked {
                    at: None,
                    now: true,
                }),
                wanted: Notify::new(),
                answered: watch::Sender::new(()),
                failing: AtomicBool::new(false),
            }),
            None => None,
        };
        let source = |kind, url: &str, server| Source {
            kind,
            server,
            url: url.into(),
            issuer: access.token_issuer.clone(),
            audience: access.token_audience.clone(),
            user: access.token_user.as_str().into(),
        };
        let source = if let Some(url) = &access.introspection_url {
            let path = access.introspection_secret_file.as_ref();
            let secret = path.map(|path| read_secret("access.introspection_secret_file", path));
            let secret = secret.transpose()?;
            let authorization = secret.map(|secret| match &access.introspection_client {
                Some(client) => {
                    let pair = format!("{}:{}", http::encode(client), http::encode(&secret));
                    format!("Basic {}", Base64::encode_string(pair.as_bytes()))
                }
                None => format!("Bearer {secret}"),
            });
            let server = server("access.introspection_url", url, authorization)?;
            Some(source(Kind::Introspection, url, server))
        } else if let Some(url) = &access.authenticate_url {
            let path = access.authenticate_secret_file.as_ref();
            let secret = path.map(|path| read_secret("access.authenticate_secret_file", path));
            let authorization = secret.transpose()?.map(|secret| format!("Bearer {secret}"));
            let server = server("access.authenticate_url", url, authorization)?;
            Some(source(Kind::Callout, url, server))
        } else {
            None
        };
        if keys.is_none() && source.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            keys,
            source: source.map(|source| Mutex::new(Arc::new(source))),
            timeout: access.http_timeout,
            cache: Cache::new(access.http_cache),
            failing: AtomicBool::new(false),
        }))
    }

    /// Whether those are asked about who are not known here.
    pub(crate) fn knows_clients(&self) -> bool {
        self.source.is_some()
    }

    /// Asks as the files say that were read again, and for the keys at once. What was answered before
    /// is forgotten.
    pub(crate) fn renew(&self, read: Self) {
        if let (Some(source), Some(read)) = (&self.source, read.source) {
            *lock(source) = Arc::clone(&lock(&read));
        }
        self.cache.clear();
        if let (Some(keys), Some(read)) = (&self.keys, read.keys) {
            *lock(&keys.server) = Arc::clone(&lock(&read.server));
            keys.wanted.notify_one();
        }
    }

    async fn answer(&self, job: &Job, tokens: Option<&Current>, clock: Clock) -> Verdict {
        let waited = job.since.elapsed();
        let Some(left) = self.timeout.checked_sub(waited).filter(|it| !it.is_zero()) else {
            return refuse(ReasonCode::ServerUnavailable);
        };
        let known = match (&self.keys, tokens) {
            (Some(keys), Some(current)) if job.is_token => {
                self.verify_again(keys, current, job, left).await
            }
            _ => self.ask(job, left, clock).await,
        };
        match known {
            Ok(Some((identity, until))) => {
                let mut accepted = Accepted::default();
                accepted.identity = identity;
                accepted.until = until;
                Verdict::Accept(accepted)
            }
            Ok(None) => refuse(ReasonCode::BadUserNameOrPassword),
            // Nobody is let in because nobody says that he may not.
            Err(()) => refuse(ReasonCode::ServerUnavailable),
        }
    }

    /// A token that names a key which is not known, or was not.
    async fn verify_again(
        &self,
        keys: &Keys,
        current: &Current,
        job: &Job,
        left: Duration,
    ) -> Result<Known, ()> {
        let asked = timeout(left, keys.ask_again()).await;
        let tokens = Arc::clone(&lock(current));
        match tokens.verify(&job.password, job.identity.clone()) {
            Checked::Holder(holder) => Ok(Some((holder.identity, Some(holder.until)))),
            Checked::UnknownKey if asked.is_err() || keys.failing.load(Ordering::Relaxed) => {
                Err(())
            }
            Checked::UnknownKey | Checked::Refused => Ok(None),
        }
    }

    async fn ask(&self, job: &Job, left: Duration, clock: Clock) -> Result<Known, ()> {
        let Some(source) = self.source.as_ref().map(|it| Arc::clone(&lock(it))) else {
            return Ok(None);
        };
        let mark = self.cache.mark(job);
        let generation = self.cache.generation();
        if let Some(known) = self.cache.get(mark, clock.now().unix) {
            return Ok(known);
        }
        let question = source.question(job);
        let asked = source
            .server
            .ask_within(&question, left, self.timeout)
            .await;
        let told = match asked {
            Ok(answer) => source.read(&answer, job, clock.now().unix),
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(known) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("{} answers again", source.url);
                }
                self.cache.put(mark, known.clone(), generation);
                Ok(known)
            }
            Err(error) => {
                if self.failing.swap(true, Ordering::Relaxed) {
                    debug!("{} was asked in vain: {error}", source.url);
                } else {
                    warn!(
                        "{} was asked in vain: {error}; clients are refused until it answers",
                        source.url
                    );
                }
                Err(())
            }
        }
    }
}

impl Source {
    fn question(&self, job: &Job) -> Body {
        match self.kind {
            Kind::Introspection => {
                let token = String::from_utf8_lossy(&job.password);
                let token = http::encode(&token);
                Body::Form(format!("token={token}&token_type_hint=access_token"))
            }
            Kind::Callout => {
                let text = std::str::from_utf8(&job.password);
                let base64 = text.is_err().then(|| Base64::encode_string(&job.password));
                let question = json!({
                    "client_id": job.client_id,
                    "user_name": job.user,
                    "password": text.ok(),
                    "password_base64": base64,
                    "address": job.address,
                    "listener": job.listener,
                    "tenant": Some(&job.identity.tenant).filter(|it| !it.is_empty()),
                    "cert_cn": job.identity.cert_cn,
                    "cert_san": job.identity.cert_san,
                });
                Body::Json(question.to_string())
            }
        }
    }

    /// Whom an answer lets in; an error when it is none.
    fn read(&self, answer: &Answer, job: &Job, now: UnixTime) -> Result<Known, String> {
        let status = answer.status;
        let no = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        // To a question about a token they say that this broker may not ask.
        if self.kind == Kind::Callout && no.contains(&status) {
            return Ok(None);
        }
        if status != StatusCode::OK {
            return Err(format!("its answer is {status}"));
        }
        let said: Map<String, Value> = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("its answer is no JSON object: {error}"))?;
        let key = match self.kind {
            Kind::Introspection => "active",
            Kind::Callout => "allow",
        };
        match said.get(key) {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(None),
            _ => return Err(format!("its answer has no {key:?} that is true or false")),
        }
        Ok(self.known(&said, job, now))
    }

    fn known(&self, said: &Map<String, Value>, job: &Job, now: UnixTime) -> Known {
        let mut identity = job.identity.clone();
        let end = match self.kind {
            Kind::Introspection => said.get("exp"),
            Kind::Callout => said.get("expires"),
        };
        let until = match end {
            Some(end) => {
                let since = Duration::try_from_secs_f64(end.as_f64()?).ok()?;
                let until = UnixTime::from_millis(0) + since;
                (until > now).then_some(())?;
                Some(until)
            }
            None => None,
        };
        if self.kind == Kind::Introspection {
            let is = |name: &str, wanted: &Option<Box<str>>| {
                let Some(wanted) = wanted else { return true };
                match said.get(name) {
                    Some(Value::String(text)) => *text == **wanted,
                    Some(Value::Array(all)) => all.iter().any(|it| it == &**wanted),
                    _ => false,
                }
            };
            if !is("iss", &self.issuer) || !is("aud", &self.audience) {
                return None;
            }
            let user = said
                .get(&*self.user)?
                .as_str()
                .filter(|it| !it.is_empty())?;
            identity.user = Some(user.into());
            claims_into(said, &mut identity)?;
        } else {
            identity.user = match said.get("user") {
                Some(user) => Some(user.as_str().filter(|it| !it.is_empty())?.into()),
                None => job.user.clone(),
            };
            if let Some(claims) = said.get("claims") {
                claims_into(claims.as_object()?, &mut identity)?;
            }
        }
        Some((identity, until))
    }
}

impl Keys {
    fn every(&self) -> Duration {
        self.access.token_keys_refresh.max(FETCH_MIN)
    }

    fn again(&self) -> Duration {
        FETCH_AGAIN.min(self.every())
    }

    /// Has them asked for, unless that was done a little while ago, and waits for the answer.
    async fn ask_again(&self) {
        let mut answered = self.answered.subscribe();
        {
            let asked = lock(&self.asked);
            let recent = asked.at.is_some_and(|at| at.elapsed() < self.again());
            if recent && !asked.now {
                return;
            }
            if !asked.now {
                self.wanted.notify_one();
            }
        }
        // Fails when nobody asks any more.
        let _ = answered.changed().await;
    }

    /// Replaces the keys, or leaves them as they are. Whether it did.
    async fn fetch(&self, current: &Current, deadline: Duration) -> bool {
        let server = Arc::clone(&lock(&self.server));
        let fetched = match server.ask(&Body::None, deadline).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                let text = String::from_utf8_lossy(&answer.body);
                let tokens = Tokens::parse(&self.access, &text, &self.url);
                tokens.map_err(|(_, problem)| problem)
            }
            Ok(answer) => Err(format!("its answer is {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        match fetched {
            Ok(tokens) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("{} answers again", self.url);
                }
                debug!(keys = tokens.len(), "keys of tokens: {}", self.url);
                *lock(current) = Arc::new(tokens);
                true
            }
            Err(problem) => {
                if self.failing.swap(true, Ordering::Relaxed) {
                    debug!("no keys of tokens from {}: {problem}", self.url);
                } else {
                    let count = lock(current).len();
                    warn!(
                        keys = count,
                        "no keys of tokens from {}: {problem}; those that were there stay",
                        self.url
                    );
                }
                false
            }
        }
    }

    /// Fetches them now and then, for ever.
    async fn keep(&self, current: &Current, deadline: Duration) {
        loop {
            let at = Some(Instant::now());
            *lock(&self.asked) = Asked { at, now: true };
            let fetched = self.fetch(current, deadline).await;
            lock(&self.asked).now = false;
            self.answered.send_replace(());
            let next = if fetched { self.every() } else { self.again() };
            // Whether it is time or they are wanted.
            let _ = timeout(next, self.wanted.notified()).await;
        }
    }
}

/// Starts a thread that asks, which ends when nobody is left who gives it something to ask.
pub(crate) fn start<K>(
    remote: Arc<Remote>,
    tokens: Option<Arc<Current>>,
    clock: Clock,
    jobs: Taker<K, Box<Job>>,
    inboxes: Arc<[Arc<Inbox>]>,
) -> io::Result<()>
where
    K: Copy + Ord + std::hash::Hash + Send + 'static,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("callouts")
        .enable_io()
        .enable_time()
        .build()?;
    let (keeping, kept) = (Arc::clone(&remote), tokens.clone());
    runtime.spawn(async move {
        if let (Some(keys), Some(current)) = (&keeping.keys, kept) {
            keys.keep(&current, keeping.timeout).await;
        }
    });
    let asking = Arc::new(Semaphore::new(ASKING_MAX));
    thread::Builder::new()
        .name("callouts".to_owned())
        .spawn(move || {
            while let Some(job) = jobs.take() {
                let Ok(permit) = runtime.block_on(Arc::clone(&asking).acquire_owned()) else {
                    break;
                };
                let (remote, inboxes) = (Arc::clone(&remote), Arc::clone(&inboxes));
                let tokens = tokens.clone();
                runtime.spawn(async move {
                    let (shard, id) = (job.shard, job.id);
                    let verdict = remote.answer(&job, tokens.as_deref(), clock).await;
                    drop(permit);
                    if let Some(inbox) = inboxes.get(shard.index()) {
                        inbox.send(Mail::Authenticated(id, Box::new(verdict)));
                    }
                });
            }
            runtime.shutdown_background();
        })?;
    Ok(())
}

/// Answers that hold for a while, by marks of what was asked. The marks are made with keys of this
/// process.
struct Cache {
    lifetime: Duration,
    keys: [RandomState; 2],
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// How often all was forgotten. What was asked before is not kept.
    generation: u64,
    known: HashMap<u128, (Instant, Known)>,
    /// In the order in which they end.
    ends: VecDeque<(Instant, u128)>,
}

impl Cache {
    fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            keys: [RandomState::new(), RandomState::new()],
            kept: Mutex::default(),
        }
    }

    fn mark(&self, job: &Job) -> u128 {
        let asked = (
            (&job.user, &job.password, &job.client_id),
            (&job.address, job.listener),
            (&job.identity.cert_cn, &job.identity.cert_san),
        );
        let [first, second] = &self.keys;
        u128::from(first.hash_one(asked)) << 64 | u128::from(second.hash_one(asked))
    }

    fn get(&self, mark: u128, now: UnixTime) -> Option<Known> {
        let kept = lock(&self.kept);
        let (end, known) = kept.known.get(&mark)?;
        let until = known.as_ref().and_then(|it| it.1);
        let over = *end <= Instant::now() || until.is_some_and(|until| until <= now);
        (!over).then(|| known.clone())
    }

    fn clear(&self) {
        let mut kept = lock(&self.kept);
        let generation = kept.generation + 1;
        *kept = Kept {
            generation,
            ..Kept::default()
        };
    }

    fn generation(&self) -> u64 {
        lock(&self.kept).generation
    }

    /// Keeps the answer to what was asked in that generation.
    fn put(&self, mark: u128, known: Known, generation: u64) {
        if self.lifetime.is_zero() {
            return;
        }
        let (now, mut kept) = (Instant::now(), lock(&self.kept));
        if kept.generation != generation {
            return;
        }
        while let Some((end, old)) = kept.ends.front().copied()
            && (end <= now || kept.ends.len() >= CACHE_MAX)
        {
            kept.ends.pop_front();
            // It may have been put again.
            if kept.known.get(&old).is_some_and(|it| it.0 == end) {
                kept.known.remove(&old);
            }
        }
        let end = now + self.lifetime;
        kept.ends.push_back((end, mark));
        kept.known.insert(mark, (end, known));
    }
}
