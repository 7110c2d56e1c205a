//! Who may connect, and who may do what: the files that say so, read at the start and again on
//! demand, and the threads that verify passwords.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use avocet_access::{Condition, Field, PasswordFile, PasswordVerdict, Rules};
use avocet_codec::{Packet, ReasonCode};
use avocet_engine::{Accepted, AuthenticationRequest, ConnectionId, ShardId, Verdict};
use tracing::{info, warn};

use crate::config::{Access, Config};
use crate::inbox::{Inbox, Mail};

/// Clients whose passwords wait to be verified. Beyond, they are told that the server is busy.
const JOBS_MAX: usize = 4_096;

/// A file of users or of rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The file could not be read.
    #[error("cannot read {key} {}: {source}", path.display())]
    Unreadable {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, and what is allowed.
        problem: String,
    },
}

/// What the files say.
pub(crate) struct Files {
    users: Option<Arc<Users>>,
    pub(crate) rules: Option<Arc<Rules>>,
}

impl Config {
    /// Checks the files of users and rules, which [`Config::check`] does not open.
    pub fn check_access(&self) -> Result<(), AccessError> {
        Files::load(&self.access).map(|_| ())
    }
}

impl Files {
    pub(crate) fn load(access: &Access) -> Result<Self, AccessError> {
        let users = access.password_file.as_ref().map(|path| {
            let text = read("access.password_file", path)?;
            let file = PasswordFile::parse(&text)
                .map_err(|error| wrong(path, error.line, error.problem))?;
            Ok(Arc::new(Users::new(file)))
        });
        let rules = access.rules.as_ref().map(|path| {
            let text = read("access.rules", path)?;
            let rules = Rules::from_toml(&text);
            let rules = rules.map_err(|error| wrong(path, error.line, error.problem))?;
            Ok(Arc::new(rules))
        });
        Ok(Self {
            users: users.transpose()?,
            rules: rules.transpose()?,
        })
    }

    /// Tells the operator what holds from here on, and what may not be as meant.
    fn tell(&self, access: &Access) {
        if let (Some(users), Some(path)) = (&self.users, &access.password_file) {
            let count = users.file.len();
            info!(users = count, "users: {}", path.display());
            let outdated = users.file.outdated().count();
            if outdated > 0 {
                info!(
                    "{outdated} users have password hashes that could be stronger: \
                     `avocet passwd --list {}` names them, setting a password makes it argon2id",
                    path.display()
                );
            }
            warn_if_world_readable(path);
        }
        if let (Some(rules), Some(path)) = (&self.rules, &access.rules) {
            let count = rules.as_slice().len();
            info!(rules = count, "rules: {}", path.display());
            let names_users = rules.as_slice().iter().any(|rule| {
                let conditions = &rule.conditions;
                conditions
                    .iter()
                    .any(|it| matches!(it, Condition::Is(Field::User, _)))
            });
            if names_users && self.users.is_none() {
                warn!("rules name users, but without `access.password_file` nobody is one");
            }
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<String, AccessError> {
    fs::read_to_string(path).map_err(|source| AccessError::Unreadable {
        key,
        path: path.to_owned(),
        source,
    })
}

fn wrong(path: &Path, line: usize, problem: impl Display) -> AccessError {
    AccessError::Line {
        path: path.to_owned(),
        line,
        problem: problem.to_string(),
    }
}

fn warn_if_world_readable(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_or(0, |it| it.permissions().mode());
        if mode & 0o004 != 0 {
            let path = path.display();
            warn!("everybody on this machine can read {path}: `chmod o= {path}` changes that");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// A password file, and which passwords were verified since it was read.
struct Users {
    file: PasswordFile,
    /// Marks of the passwords that were right, so that a client that comes back costs little. They
    /// are made with keys of this process.
    known: Mutex<HashMap<Box<str>, u128>>,
    keys: [RandomState; 2],
}

impl Users {
    fn new(file: PasswordFile) -> Self {
        Self {
            file,
            known: Mutex::default(),
            keys: [RandomState::new(), RandomState::new()],
        }
    }

    fn mark(&self, password: &[u8]) -> u128 {
        let [first, second] = &self.keys;
        u128::from(first.hash_one(password)) << 64 | u128::from(second.hash_one(password))
    }

    /// Whether this is known to be right, without verifying it.
    fn is_known(&self, user: &str, password: &[u8]) -> bool {
        lock(&self.known).get(user) == Some(&self.mark(password))
    }

    fn verify(&self, user: &str, password: &[u8]) -> bool {
        match self.file.verify(user, password) {
            PasswordVerdict::Accepted { .. } => {
                // There are no more of these than users in the file.
                lock(&self.known).insert(user.into(), self.mark(password));
                true
            }
            PasswordVerdict::Refused => false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks leaves a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A password to verify, and who waits for it.
struct Job {
    shard: ShardId,
    id: ConnectionId,
    user: Box<str>,
    password: Box<[u8]>,
}

/// Where a shard asks who its clients are.
#[derive(Clone)]
pub(crate) struct Authenticator {
    users: Arc<Mutex<Arc<Users>>>,
    anonymous: bool,
    jobs: SyncSender<Job>,
}

impl Authenticator {
    /// The verdict, or none if the inbox of the shard gets it later.
    pub(crate) fn ask(
        &self,
        shard: ShardId,
        id: ConnectionId,
        request: &AuthenticationRequest,
    ) -> Option<Verdict> {
        let AuthenticationRequest::Connect { connect, .. } = request else {
            return Some(refuse(ReasonCode::BadAuthenticationMethod));
        };
        let Packet::Connect(connect) = connect.packet() else {
            return Some(refuse(ReasonCode::UnspecifiedError));
        };
        if connect.properties.authentication_method.is_some() {
            return Some(refuse(ReasonCode::BadAuthenticationMethod));
        }
        let Some(user) = connect.user_name else {
            let anonymous = self.anonymous && connect.password.is_none();
            return Some(if anonymous {
                Verdict::Accept(Accepted::default())
            } else {
                refuse(ReasonCode::NotAuthorized)
            });
        };
        let password = connect.password.unwrap_or_default();
        let users = Arc::clone(&lock(&self.users));
        if users.is_known(user, password) {
            return Some(accept(user));
        }
        let job = Job {
            shard,
            id,
            user: user.into(),
            password: password.into(),
        };
        match self.jobs.try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => Some(refuse(ReasonCode::ServerBusy)),
            Err(TrySendError::Disconnected(_)) => Some(refuse(ReasonCode::ServerUnavailable)),
        }
    }
}

fn accept(user: &str) -> Verdict {
    let mut accepted = Accepted::default();
    accepted.identity.user = Some(user.into());
    Verdict::Accept(accepted)
}

fn refuse(reason: ReasonCode) -> Verdict {
    Verdict::Refuse {
        reason,
        reason_string: None,
        server_reference: None,
    }
}

/// Reads the files of users and rules again, from any thread.
#[derive(Clone)]
pub struct Reloader {
    access: Access,
    users: Option<Arc<Mutex<Arc<Users>>>>,
    inboxes: Arc<[Arc<Inbox>]>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reads both files; if both are fine, what they say holds from here on. Otherwise nothing
    /// changes. Nobody is disconnected: a client that lost a right keeps its subscriptions and is
    /// sent nothing through them; a user who was removed cannot connect again.
    pub fn reload(&self) -> Result<(), AccessError> {
        let files = Files::load(&self.access)?;
        files.tell(&self.access);
        if let (Some(current), Some(users)) = (&self.users, files.users) {
            *lock(current) = users;
        }
        if let Some(rules) = files.rules {
            for inbox in &*self.inboxes {
                inbox.send(Mail::Rules(Arc::clone(&rules)));
            }
        }
        Ok(())
    }
}

/// Starts the threads that verify passwords, if there is a password file. They end with the shards.
pub(crate) fn start(
    access: &Access,
    files: Files,
    inboxes: &Arc<[Arc<Inbox>]>,
) -> io::Result<(Option<Authenticator>, Reloader)> {
    files.tell(access);
    let users = files.users.map(|users| Arc::new(Mutex::new(users)));
    let reloader = Reloader {
        access: access.clone(),
        users: users.clone(),
        inboxes: Arc::clone(inboxes),
    };
    let Some(users) = users else {
        return Ok((None, reloader));
    };
    let (jobs, waiting) = sync_channel(JOBS_MAX);
    let waiting = Arc::new(Mutex::new(waiting));
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    for number in 0..(cores / 2).max(1) {
        let (users, waiting) = (Arc::clone(&users), Arc::clone(&waiting));
        let inboxes = Arc::clone(inboxes);
        thread::Builder::new()
            .name(format!("passwords-{number}"))
            .spawn(move || verify_all(&waiting, &users, &inboxes))?;
    }
    let authenticator = Authenticator {
        users,
        anonymous: access.anonymous,
        jobs,
    };
    Ok((Some(authenticator), reloader))
}

fn verify_all(waiting: &Mutex<Receiver<Job>>, users: &Mutex<Arc<Users>>, inboxes: &[Arc<Inbox>]) {
    loop {
        let Ok(job) = lock(waiting).recv() else {
            return;
        };
        let users = Arc::clone(&lock(users));
        let verdict = if users.verify(&job.user, &job.password) {
            accept(&job.user)
        } else {
            refuse(ReasonCode::BadUserNameOrPassword)
        };
        if let Some(inbox) = inboxes.get(job.shard.index()) {
            inbox.send(Mail::Authenticated(job.id, Box::new(verdict)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use avocet_codec::{Connect, Frame, Version};
    use avocet_engine::Opened;

    use super::*;

    fn request(user: Option<&str>, password: &str) -> AuthenticationRequest {
        let mut connect = Connect::new(Version::V5, "c");
        connect.user_name = user;
        connect.password = Some(password.as_bytes());
        AuthenticationRequest::Connect {
            opened: Opened::new("somewhere", 0),
            connect: Frame::encode(&Packet::Connect(connect), Version::V5).unwrap(),
        }
    }

    #[test]
    fn who_finds_the_queue_full_is_told_that_the_server_is_busy() {
        let line = "ann:$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==";
        let users = Arc::new(Users::new(PasswordFile::parse(line).unwrap()));
        let (jobs, waiting) = sync_channel(1);
        let authenticator = Authenticator {
            users: Arc::new(Mutex::new(Arc::clone(&users))),
            anonymous: false,
            jobs,
        };
        let shard = ShardId::new(0);
        let ask = |user, password| {
            let id = ConnectionId::new(shard, 1);
            authenticator.ask(shard, id, &request(user, password))
        };
        assert_eq!(ask(Some("ann"), "pencil ☃"), None);
        assert_eq!(
            ask(Some("ann"), "pencil ☃"),
            Some(refuse(ReasonCode::ServerBusy))
        );
        // What needs no verifying does not wait.
        assert_eq!(ask(None, "x"), Some(refuse(ReasonCode::NotAuthorized)));
        let job = waiting.recv().unwrap();
        assert!(users.verify(&job.user, &job.password));
        assert!(!users.verify("ann", b"pencil"));
        drop(waiting);
        assert_eq!(ask(Some("ann"), "pencil ☃"), Some(accept("ann")));
        let unavailable = Some(refuse(ReasonCode::ServerUnavailable));
        assert_eq!(ask(Some("ann"), "pencil"), unavailable);
        assert_eq!(ask(Some("eve"), "pencil ☃"), unavailable);
    }
}
