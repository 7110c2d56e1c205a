//! What clients may do, where an HTTP server is asked about what no rule is about.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use avocet_access::Effect;
use avocet_codec::{QoS, ReasonCode, TopicFilter};
use avocet_engine::{AuthorizationRequest, Client, Permission, QuestionId, ShardId};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::access::{AccessError, Origin, lock, origin, read_secret};
use crate::config::Access;
use crate::http::{Answer, Body, Server};
use crate::inbox::{Inbox, Mail};
use crate::queue::{Giver, Taker, fair};

/// Clients that wait for an answer. Beyond, what they want is refused.
const QUESTIONS_MAX: usize = 4_096;

/// Clients about whom is asked at the same time.
const ASKING_MAX: usize = 64;

/// What a client is told when nobody says whether he may do something.
const UNANSWERED: ReasonCode = ReasonCode::ImplementationSpecificError;

/// The server that is asked.
pub(crate) struct Judge {
    server: Mutex<Arc<Server>>,
    url: Box<str>,
    /// How long a client waits.
    timeout: Duration,
    /// How long an answer holds.
    kept: Duration,
    /// The last question was not answered, which the operator was told.
    failing: AtomicBool,
}

/// A question of an engine.
pub(crate) struct Question {
    pub(crate) shard: ShardId,
    pub(crate) id: QuestionId,
    pub(crate) client: Arc<Client>,
    pub(crate) request: AuthorizationRequest,
    /// What is said where the server says nothing.
    pub(crate) default: Effect,
    /// Since when its client waits.
    pub(crate) since: Instant,
}

/// What comes back.
pub(crate) struct Permitted {
    pub(crate) client: Arc<Client>,
    pub(crate) question: QuestionId,
    pub(crate) permission: Permission,
    /// For how long it holds.
    pub(crate) kept: Duration,
}

/// One thing that is asked of the server.
#[derive(Clone, Copy)]
struct Wish<'a> {
    action: &'static str,
    topic: &'a str,
    /// The Share Name of a subscription.
    share: Option<&'a str>,
    qos: QoS,
    /// The RETAIN flag of a message.
    retain: Option<bool>,
    will: bool,
}

impl Judge {
    /// Reads the files for it. None when no server is asked.
    pub(crate) fn open(access: &Access) -> Result<Option<Self>, AccessError> {
        let Some(url) = &access.authorize_url else {
            return Ok(None);
        };
        let path = access.authorize_secret_file.as_ref();
        let secret = path.map(|path| read_secret("access.authorize_secret_file", path));
        let secret = secret.transpose()?.map(|secret| format!("Bearer {secret}"));
        let server = Server::new(url, access.http_ca.as_deref(), secret.as_deref());
        let server = server.map_err(AccessError::Tls)?;
        let key = "access.authorize_url";
        let server = server.ok_or(AccessError::Unusable { key })?;
        Ok(Some(Self {
            server: Mutex::new(Arc::new(server)),
            url: url.clone(),
            timeout: access.http_timeout,
            kept: access.http_cache,
            failing: AtomicBool::new(false),
        }))
    }

    /// Asks as the files say that were read again.
    pub(crate) fn renew(&self, read: &Self) {
        *lock(&self.server) = Arc::clone(&lock(&read.server));
    }

    async fn permit(&self, question: Question) -> Permitted {
        let (permission, answered) = match &question.request {
            AuthorizationRequest::Publish {
                topic_name,
                qos,
                retain,
                will,
                ..
            } => {
                let wish = Wish {
                    action: "publish",
                    topic: topic_name.as_str(),
                    share: None,
                    qos: *qos,
                    retain: Some(*retain),
                    will: *will,
                };
                let answer = self.decide(&question, wish).await;
                let reason_code = answer.map_or_else(|it| it, |_| ReasonCode::Success);
                (Permission::Publish(reason_code), answer != Err(UNANSWERED))
            }
            AuthorizationRequest::Subscribe { filters } => {
                let mut all = Vec::with_capacity(filters.len());
                for (filter, qos) in filters {
                    let (share, topic) = parts(filter.as_filter());
                    let wish = Wish {
                        action: "subscribe",
                        topic,
                        share,
                        qos: *qos,
                        retain: None,
                        will: false,
                    };
                    all.push(self.decide(&question, wish).await);
                }
                let answered = all.iter().any(|it| *it != Err(UNANSWERED));
                (Permission::Subscribe(all), answered)
            }
            // What this does not know, nobody may do.
            _ => (Permission::Publish(UNANSWERED), false),
        };
        Permitted {
            client: question.client,
            question: question.id,
            permission,
            kept: if answered { self.kept } else { Duration::ZERO },
        }
    }

    /// The highest QoS that is granted, or why none is.
    async fn decide(&self, question: &Question, wish: Wish<'_>) -> Result<QoS, ReasonCode> {
        let waited = question.since.elapsed();
        let left = self.timeout.checked_sub(waited).filter(|it| !it.is_zero());
        let Some(left) = left else {
            return Err(UNANSWERED);
        };
        let server = Arc::clone(&lock(&self.server));
        let body = Body::Json(told(&question.client, wish).to_string());
        let answer = server.ask_within(&body, left, self.timeout).await;
        let answer = answer.map_err(|error| error.to_string());
        match answer.and_then(|answer| read(&answer, wish.qos)) {
            Ok(said) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("{} answers again", self.url);
                }
                match (said, question.default) {
                    (Said::Allow(qos), _) => Ok(qos),
                    (Said::Nothing, Effect::Allow) => Ok(wish.qos),
                    (Said::Deny, _) | (Said::Nothing, Effect::Deny) => {
                        Err(ReasonCode::NotAuthorized)
                    }
                }
            }
            Err(error) => {
                if self.failing.swap(true, Ordering::Relaxed) {
                    debug!("{} was asked in vain: {error}", self.url);
                } else {
                    warn!(
                        "{} was asked in vain: {error}; what no rule is about is refused until it answers",
                        self.url
                    );
                }
                Err(UNANSWERED)
            }
        }
    }
}

/// The Share Name of a filter, and the filter behind it.
fn parts(filter: TopicFilter<'_>) -> (Option<&str>, &str) {
    match filter.share() {
        Ok(Some(share)) => (Some(share.share_name.as_str()), share.topic_filter.as_str()),
        Ok(None) | Err(_) => (None, filter.as_str()),
    }
}

/// What the server is told.
fn told(client: &Client, wish: Wish<'_>) -> Value {
    let identity = &client.identity;
    let tenant = Some(client.session.tenant()).filter(|it| !it.is_empty());
    json!({
        "action": wish.action,
        "topic": wish.topic,
        "share": wish.share,
        "qos": wish.qos as u8,
        "retain": wish.retain,
        "will": wish.will,
        "client_id": client.session.client_id(),
        "user_name": identity.user,
        "tenant": tenant,
        "address": client.opened.peer.ip(),
        "listener": client.opened.listener,
        "cert_cn": identity.cert_cn,
        "cert_san": identity.cert_san,
        "claims": identity.claims,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Yes, with at most this QoS.
    Allow(QoS),
    Deny,
    Nothing,
}

/// What an answer says; an error when it is none.
fn read(answer: &Answer, wanted: QoS) -> Result<Said, String> {
    let status = answer.status;
    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
        return Ok(Said::Deny);
    }
    if status != StatusCode::OK {
        return Err(format!("its answer is {status}"));
    }
    let said: Map<String, Value> = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("its answer is no JSON object: {error}"))?;
    match (said.get("allow"), said.get("ignore")) {
        (Some(Value::Bool(false)), None) => return Ok(Said::Deny),
        (None, Some(Value::Bool(true))) => return Ok(Said::Nothing),
        (Some(Value::Bool(true)), None) => {}
        _ => return Err(r#"its answer has no "allow" that is true or false"#.to_owned()),
    }
    let Some(qos) = said.get("qos") else {
        return Ok(Said::Allow(wanted));
    };
    let qos = qos.as_u64().and_then(|qos| u8::try_from(qos).ok());
    let qos = qos.and_then(QoS::from_u8);
    let qos = qos.ok_or_else(|| r#"its answer has a "qos" that is none"#.to_owned())?;
    Ok(Said::Allow(qos.min(wanted)))
}

/// Where a shard asks what its clients may do.
#[derive(Clone)]
pub(crate) struct Authorizer {
    questions: Giver<Origin, Box<Question>>,
    inboxes: Arc<[Arc<Inbox>]>,
}

impl Authorizer {
    /// Asks; the inbox of the shard gets the answer. Where too much waits, it is a no.
    pub(crate) fn ask(&self, question: Box<Question>) {
        let origin = origin(question.client.opened.peer.ip());
        if let Err(question) = self.questions.put(origin, question) {
            answer(&self.inboxes, question.shard, unanswered(*question));
        }
    }
}

fn unanswered(question: Question) -> Permitted {
    let permission = match &question.request {
        AuthorizationRequest::Subscribe { filters } => {
            Permission::Subscribe(vec![Err(UNANSWERED); filters.len()])
        }
        AuthorizationRequest::Publish { .. } | _ => Permission::Publish(UNANSWERED),
    };
    Permitted {
        client: question.client,
        question: question.id,
        permission,
        kept: Duration::ZERO,
    }
}

fn answer(inboxes: &[Arc<Inbox>], shard: ShardId, permitted: Permitted) {
    if let Some(inbox) = inboxes.get(shard.index()) {
        inbox.send(Mail::Authorized(Box::new(permitted)));
    }
}

/// Starts a thread that asks, which ends when nobody is left who gives it something to ask.
pub(crate) fn start(judge: Arc<Judge>, inboxes: Arc<[Arc<Inbox>]>) -> io::Result<Authorizer> {
    let (questions, waiting) = fair(QUESTIONS_MAX);
    let answers = Arc::clone(&inboxes);
    ask_all("authorization", waiting, move |question: Box<Question>| {
        let (judge, inboxes) = (Arc::clone(&judge), Arc::clone(&answers));
        async move {
            let shard = question.shard;
            let permitted = judge.permit(*question).await;
            answer(&inboxes, shard, permitted);
        }
    })?;
    Ok(Authorizer { questions, inboxes })
}

/// Asks about all that waits, about so much at the same time, in a runtime of its own.
fn ask_all<K, T, F>(
    name: &'static str,
    waiting: Taker<K, T>,
    ask: impl Fn(T) -> F + Send + 'static,
) -> io::Result<()>
where
    K: Copy + Ord + std::hash::Hash + Send + 'static,
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_io()
        .enable_time()
        .build()?;
    let asking = Arc::new(Semaphore::new(ASKING_MAX));
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while let Some(item) = waiting.take() {
                let Ok(permit) = runtime.block_on(Arc::clone(&asking).acquire_owned()) else {
                    break;
                };
                let asked = ask(item);
                runtime.spawn(async move {
                    asked.await;
                    drop(permit);
                });
            }
            runtime.shutdown_background();
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn said(status: u16, body: &str) -> Result<Said, String> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.to_owned().into(),
        };
        read(&answer, QoS::AtLeastOnce)
    }

    #[test]
    fn what_is_no_answer_is_no_yes() {
        assert_eq!(
            said(200, r#"{"allow": true}"#),
            Ok(Said::Allow(QoS::AtLeastOnce))
        );
        assert_eq!(
            said(200, r#"{"allow": true, "qos": 2, "x": [1]}"#),
            Ok(Said::Allow(QoS::AtLeastOnce))
        );
        assert_eq!(
            said(200, r#"{"allow": true, "qos": 0}"#),
            Ok(Said::Allow(QoS::AtMostOnce))
        );
        assert_eq!(said(200, r#"{"allow": false, "qos": 9}"#), Ok(Said::Deny));
        assert_eq!(said(200, r#"{"ignore": true}"#), Ok(Said::Nothing));
        for status in [401, 403] {
            assert_eq!(said(status, r#"{"allow": true}"#), Ok(Said::Deny));
        }
        for (status, body) in [
            (200, ""),
            (200, "true"),
            (200, "[]"),
            (200, "{}"),
            (200, r#"{"allow": null}"#),
            (200, r#"{"allow": "true"}"#),
            (200, r#"{"allow": 1}"#),
            (200, r#"{"allow": true, "ignore": true}"#),
            (200, r#"{"ignore": false}"#),
            (200, r#"{"allow": true, "qos": 3}"#),
            (200, r#"{"allow": true, "qos": -1}"#),
            (200, r#"{"allow": true, "qos": "1"}"#),
            (200, r#"{"allow": true"#),
            (204, ""),
            (302, r#"{"allow": true}"#),
            (404, r#"{"allow": true}"#),
            (500, r#"{"allow": true}"#),
        ] {
            assert!(said(status, body).is_err(), "{status} {body}");
        }
    }
}
