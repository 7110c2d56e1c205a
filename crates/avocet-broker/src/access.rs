//! Who may connect, and who may do what: the files that say so, read at the start and again on
//! demand, and the threads that verify passwords.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use avocet_access::{
    Condition, Field, Identity, PasswordFile, PasswordVerdict, Rules, SCRAM_SHA_256,
};
use avocet_codec::{Packet, ReasonCode};
use avocet_engine::{Accepted, AuthenticationRequest, ConnectionId, ShardId, Tenants, Verdict};
use avocet_transport::{CertificateNames, ClientCertificates, TlsError};
use tokio::time::Instant;
use toml::Spanned;
use toml::de::DeTable;
use tracing::{info, warn};

use crate::admission::Admission;
use crate::authorization::{self, Authorizer, Judge};
use crate::bans::BanList;
use crate::broker::StartError;
use crate::callouts::{self, Remote};
use crate::certificates;
use crate::clock::Clock;
use crate::config::{Access, CertificateUser, Config, Listener};
use crate::doors::{self, Doors};
use crate::exchanges::Exchanges;
use crate::inbox::{Inbox, Mail};
use crate::queue::{Giver, Taker, fair};
use crate::tenants;
use crate::tokens::{Checked, Tokens, is_token};

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
    /// A secret holds what no HTTP header can, or a URL is none that may be asked.
    #[error("{key}, or the secret for it, cannot be used")]
    Unusable {
        /// The setting.
        key: &'static str,
    },
    /// TLS with a server that is asked cannot be set up.
    #[error(transparent)]
    Tls(TlsError),
}

/// Why files were not read again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Users and rules stay as they were.
    #[error("users and rules stay as they were: {0}")]
    Access(#[from] AccessError),
    /// The certificates of a listener stay as they were.
    #[error("certificates stay as they were: {0}")]
    Tls(#[from] TlsError),
}

/// What the files say.
pub(crate) struct Files {
    users: Option<Arc<Users>>,
    tokens: Option<Arc<Tokens>>,
    remote: Option<Remote>,
    pub(crate) judge: Option<Judge>,
    pub(crate) rules: Option<Arc<Rules>>,
    pub(crate) bans: Option<BanList>,
    pub(crate) tenants: Option<Arc<Tenants>>,
}

impl Config {
    /// Checks the files of users, rules, certificates and keys, which [`Config::check`] does not open.
    pub fn check_files(&self) -> Result<(), StartError> {
        Files::load(&self.access)?;
        doors::open(&self.listen)?;
        Ok(())
    }

    /// Whether clients are asked who they are.
    pub(crate) fn asks_clients(&self) -> bool {
        let by_certificate = |listener: &Listener| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.files.client_certificates != ClientCertificates::None)
        };
        self.knows_clients() || self.listen.iter().any(by_certificate)
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
        let tokens = access.token_keys.as_ref();
        let tokens = tokens.map(|path| Tokens::load(access, path)).transpose()?;
        let none = || access.token_keys_url.as_ref().map(|_| Tokens::none(access));
        Ok(Self {
            users: users.transpose()?,
            tokens: tokens.or_else(none).map(Arc::new),
            remote: Remote::open(access)?,
            judge: Judge::open(access)?,
            rules: rules.transpose()?,
            bans: access.bans.as_deref().map(BanList::load).transpose()?,
            tenants: tenants::load(access)?.map(Arc::new),
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
        if let (Some(tokens), Some(path)) = (&self.tokens, &access.token_keys) {
            tokens.tell(path);
        }
        if let (Some(bans), Some(path)) = (&self.bans, &access.bans) {
            let count = bans.len();
            info!(bans = count, "bans: {}", path.display());
        }
        if let (Some(tenants), Some(path)) = (&self.tenants, &access.tenants) {
            let (tenants, users) = (tenants.quotas.len(), tenants.users.len());
            info!(tenants, users, "tenants: {}", path.display());
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
            if names_users && !access.knows_clients() {
                warn!(
                    "rules name users, but without `access.password_file`, keys of tokens, a server that is asked, or a \
                     listener whose `tls` says what in certificates is the `user`, nobody is one"
                );
            }
        }
    }
}

pub(crate) fn read(key: &'static str, path: &Path) -> Result<String, AccessError> {
    fs::read_to_string(path).map_err(|source| AccessError::Unreadable {
        key,
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn wrong(path: &Path, line: usize, problem: impl Display) -> AccessError {
    AccessError::Line {
        path: path.to_owned(),
        line,
        problem: problem.to_string(),
    }
}

/// What is wrong in a file, with its line from 1.
pub(crate) type Problem = (usize, String);

/// The table that a file of TOML is.
pub(crate) fn table(text: &str) -> Result<Spanned<DeTable<'_>>, Problem> {
    DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let problem = error.message().lines().next().unwrap_or_default();
        (line_at(text, at), problem.to_owned())
    })
}

/// The line of a byte, from 1.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// A secret, which stands alone in its file.
pub(crate) fn read_secret(key: &'static str, path: &Path) -> Result<String, AccessError> {
    warn_if_world_readable(path);
    Ok(read(key, path)?.trim_end().to_owned())
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

    /// Whether this is known to be right, without verifying it. Marks are made with keys that nobody else has, so
    /// what comparing them takes says nothing of a password.
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks leaves a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client presents, to be looked at elsewhere than in its shard.
pub(crate) struct Job {
    pub(crate) shard: ShardId,
    pub(crate) id: ConnectionId,
    /// The password is one whose signature is verified here.
    pub(crate) is_token: bool,
    pub(crate) user: Option<Box<str>>,
    pub(crate) password: Box<[u8]>,
    pub(crate) client_id: Box<str>,
    pub(crate) listener: u16,
    /// Where the client is.
    pub(crate) address: Option<IpAddr>,
    /// Since when it waits.
    pub(crate) since: Instant,
    /// What else is known of the client.
    pub(crate) identity: Identity,
}

/// Those who wait share a queue by where they come from: an address, or a network of IPv6, of which a
/// client may have as many addresses as it likes; or this machine.
pub(crate) type Origin = Option<IpAddr>;

pub(crate) fn origin(address: Option<IpAddr>) -> Origin {
    match address {
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            Some(Ipv6Addr::from_bits(network).into())
        }
        other => other,
    }
}

/// How the clients of a listener are known.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// What in a certificate is the User Name.
    user: Option<CertificateUser>,
    /// Without a password file: whether those are let in who are not known by a certificate.
    open: bool,
}

impl Known {
    fn at(listener: &Listener, access: &Access) -> Self {
        let tls = listener.tls.as_ref();
        let guarded = listener.is_public() && !listener.requires_certificate();
        Self {
            user: tls.and_then(|tls| tls.user),
            open: access.anonymous || !guarded,
        }
    }
}

/// The User Name that a certificate gives.
fn user_of(kind: CertificateUser, names: &CertificateNames) -> Option<&str> {
    let name = match kind {
        CertificateUser::CommonName => names.common_name.as_deref(),
        CertificateUser::AlternativeName => names.alternative_names.first().map(String::as_str),
        CertificateUser::DistinguishedName => Some(&*names.distinguished_name),
    };
    name.filter(|name| !name.is_empty())
}

/// What the certificate of a client says of it.
pub(crate) fn identity_of(names: Option<CertificateNames>) -> Identity {
    let mut identity = Identity::default();
    if let Some(names) = names {
        identity.cert_cn = names.common_name.map(String::into_boxed_str);
        let san = names.alternative_names.into_iter();
        identity.cert_san = san.map(String::into_boxed_str).collect();
    }
    identity
}

/// Where a shard asks who its clients are.
#[derive(Clone)]
pub(crate) struct Authenticator {
    /// None when there is no password file.
    users: Option<Arc<Mutex<Arc<Users>>>>,
    tokens: bool,
    /// Whether other servers are asked about those who are not known here.
    elsewhere: bool,
    anonymous: bool,
    /// In the order of the listeners.
    listeners: Arc<[Known]>,
    jobs: Giver<Origin, Box<Job>>,
    /// For other servers.
    questions: Giver<Origin, Box<Job>>,
    inboxes: Arc<[Arc<Inbox>]>,
    exchanges: Exchanges,
}

impl Authenticator {
    /// The verdict, or none if the inbox of the shard gets it later. `names` are those of the client's
    /// certificate.
    pub(crate) fn ask(
        &mut self,
        shard: ShardId,
        id: ConnectionId,
        request: &AuthenticationRequest,
        names: Option<CertificateNames>,
    ) -> Option<Verdict> {
        let (opened, connect) = match request {
            AuthenticationRequest::Connect { opened, connect } => (opened, connect),
            AuthenticationRequest::Continue { auth }
            | AuthenticationRequest::ReAuthenticate { auth, .. } => {
                let again = matches!(request, AuthenticationRequest::ReAuthenticate { .. });
                let Packet::Auth(auth) = auth.packet() else {
                    return Some(refuse(ReasonCode::UnspecifiedError));
                };
                let data = auth.authentication_data.unwrap_or_default();
                return Some(self.go_on(id, data, names, again));
            }
            _ => return Some(refuse(ReasonCode::ImplementationSpecificError)),
        };
        let Packet::Connect(connect) = connect.packet() else {
            return Some(refuse(ReasonCode::UnspecifiedError));
        };
        let known = self.listeners.get(usize::from(opened.listener));
        let user = known.and_then(|known| known.user);
        let user = names.as_ref().and_then(|names| {
            let user = user.map(|kind| user_of(kind, names));
            user.map(|user| user.map(Box::from))
        });
        let mut identity = identity_of(names);
        identity.tenant = opened.tenant.as_str().into();
        let properties = &connect.properties;
        let data = properties.authentication_data.unwrap_or_default();
        match (user, properties.authentication_method, &self.users) {
            (Some(None), _, _) => return Some(refuse(ReasonCode::NotAuthorized)),
            (Some(user), None, _) => {
                identity.user = user;
                return Some(accept(identity));
            }
            (None, None, _) => {}
            (None, Some(SCRAM_SHA_256), Some(users)) => {
                let users = Arc::clone(&lock(users));
                let (file, name) = (&users.file, connect.user_name);
                return Some(self.exchanges.begin(id, file, name, identity, data));
            }
            // Whom a certificate names cannot be somebody else, and proves nothing by another method.
            (_, Some(_), _) => return Some(refuse(ReasonCode::BadAuthenticationMethod)),
        }
        let password = connect.password.unwrap_or_default();
        let nameless = connect.user_name.is_none() && connect.password.is_none();
        let is_token = self.tokens && is_token(password);
        let queue = if is_token {
            &self.jobs
        } else if let (Some(users), Some(user)) = (&self.users, connect.user_name)
            && (!self.elsewhere || lock(users).file.hash(user).is_some())
        {
            if lock(users).is_known(user, password) {
                identity.user = Some(user.into());
                return Some(accept(identity));
            }
            &self.jobs
        } else if self.elsewhere && !(self.anonymous && nameless) {
            &self.questions
        } else {
            // Who is not on the list of listeners is the program that the broker is part of.
            let open = known.is_none_or(|known| known.open);
            let asked = self.tokens || self.users.is_some() || self.elsewhere;
            return Some(if !asked && open || asked && self.anonymous && nameless {
                accept(identity)
            } else {
                refuse(ReasonCode::NotAuthorized)
            });
        };
        let address = opened.peer.ip();
        let job = Box::new(Job {
            shard,
            id,
            is_token,
            user: connect.user_name.map(Box::from),
            password: password.into(),
            client_id: connect.client_id.into(),
            listener: opened.listener,
            address,
            since: Instant::now(),
            identity,
        });
        let busy = || refuse(ReasonCode::ServerBusy);
        match queue.put(origin(address), job) {
            Ok(()) => None,
            Err(job) if (job.shard, job.id) == (shard, id) => Some(busy()),
            Err(job) => {
                if let Some(inbox) = self.inboxes.get(job.shard.index()) {
                    inbox.send(Mail::Authenticated(job.id, Box::new(busy())));
                }
                None
            }
        }
    }

    /// A step after the first one, or the first one of a client that authenticates again.
    fn go_on(
        &mut self,
        id: ConnectionId,
        data: &[u8],
        names: Option<CertificateNames>,
        again: bool,
    ) -> Verdict {
        let verdict = self.exchanges.end(id, data).unwrap_or_else(|| {
            let Some(users) = &self.users else {
                return refuse(ReasonCode::BadAuthenticationMethod);
            };
            let users = Arc::clone(&lock(users));
            let identity = identity_of(names);
            self.exchanges.begin(id, &users.file, None, identity, data)
        });
        if again && matches!(verdict, Verdict::Refuse { .. }) {
            // DISCONNECT has no other code for it [MQTT5-3.14.2.1].
            return refuse(ReasonCode::NotAuthorized);
        }
        verdict
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.exchanges.forget(id);
    }
}

fn accept(identity: Identity) -> Verdict {
    let mut accepted = Accepted::default();
    accepted.identity = identity;
    Verdict::Accept(accepted)
}

pub(crate) fn refuse(reason: ReasonCode) -> Verdict {
    Verdict::Refuse {
        reason,
        reason_string: None,
        server_reference: None,
    }
}

/// Reads the files of users, rules, certificates and keys again, from any thread.
#[derive(Clone)]
pub struct Reloader {
    access: Access,
    users: Option<Arc<Mutex<Arc<Users>>>>,
    tokens: Option<Arc<Mutex<Arc<Tokens>>>>,
    remote: Option<Arc<Remote>>,
    judge: Option<Arc<Judge>>,
    doors: Doors,
    clock: Clock,
    admission: Arc<Admission>,
    inboxes: Arc<[Arc<Inbox>]>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reads all files. If those of users, rules and bans are fine, what they say holds from here on; the
    /// same goes for the certificates of each listener. What is not fine stays as it was. Nobody is
    /// disconnected but those who are banned: a client that lost a right keeps its subscriptions and is sent nothing through
    /// them; a user who was removed, or whose certificate is not valid any more, cannot connect again.
    ///
    /// How many files and listeners there are to read.
    ///
    /// # Errors
    ///
    /// The first thing that is not fine.
    pub fn reload(&self) -> Result<usize, ReloadError> {
        let access = self.reload_access();
        let listeners = certificates::reload(&self.doors, self.clock.now().unix)?;
        Ok(access? + listeners)
    }

    fn reload_access(&self) -> Result<usize, AccessError> {
        let files = Files::load(&self.access)?;
        files.tell(&self.access);
        let read = [
            files.users.is_some(),
            files.tokens.is_some(),
            files.rules.is_some(),
            files.bans.is_some(),
            files.remote.is_some(),
            files.judge.is_some(),
            self.access.tenants.is_some(),
        ];
        let count = read.into_iter().filter(|read| *read).count();
        if let (Some(current), Some(tokens), Some(_)) =
            (&self.tokens, files.tokens, &self.access.token_keys)
        {
            *lock(current) = tokens;
        }
        if let (Some(current), Some(remote)) = (&self.remote, files.remote) {
            current.renew(remote);
        }
        if let (Some(current), Some(users)) = (&self.users, files.users) {
            *lock(current) = users;
        }
        if let (Some(current), Some(judge)) = (&self.judge, &files.judge) {
            current.renew(judge);
            for inbox in &*self.inboxes {
                inbox.send(Mail::ForgetAnswers);
            }
        }
        if let Some(rules) = files.rules {
            for inbox in &*self.inboxes {
                let lost = self.access.lost_subscriptions;
                inbox.send(Mail::Rules(Arc::clone(&rules), lost));
            }
        }
        if let Some(tenants) = files.tenants {
            for inbox in &*self.inboxes {
                inbox.send(Mail::Tenants(Arc::clone(&tenants)));
            }
        }
        if let Some(bans) = files.bans {
            let bans = Arc::new(bans);
            self.admission.set_bans(Arc::clone(&bans));
            for inbox in &*self.inboxes {
                inbox.send(Mail::Bans(Arc::clone(&bans)));
            }
        }
        Ok(count)
    }
}

/// Starts the threads that verify passwords and tokens and ask other servers, if there are such. They
/// end with the shards.
pub(crate) fn start(
    config: &Config,
    files: Files,
    doors: &Doors,
    clock: Clock,
    admission: &Arc<Admission>,
    inboxes: &Arc<[Arc<Inbox>]>,
) -> io::Result<(Option<Authenticator>, Option<Authorizer>, Reloader)> {
    let access = &config.access;
    files.tell(access);
    let users = files.users.map(|users| Arc::new(Mutex::new(users)));
    let tokens = files.tokens.map(|tokens| Arc::new(Mutex::new(tokens)));
    let remote = files.remote.map(Arc::new);
    let judge = files.judge.map(Arc::new);
    let reloader = Reloader {
        access: access.clone(),
        users: users.clone(),
        tokens: tokens.clone(),
        remote: remote.clone(),
        judge: judge.clone(),
        doors: Arc::clone(doors),
        clock,
        admission: Arc::clone(admission),
        inboxes: Arc::clone(inboxes),
    };
    let asking = |judge| authorization::start(judge, Arc::clone(inboxes));
    let authorizer = judge.map(asking).transpose()?;
    if !config.asks_clients() {
        return Ok((None, authorizer, reloader));
    }
    let (jobs, waiting) = fair(JOBS_MAX);
    let (questions, asked) = fair(JOBS_MAX);
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = if users.is_some() || tokens.is_some() {
        (cores / 2).max(1)
    } else {
        0
    };
    for number in 0..threads {
        let (users, tokens) = (users.clone(), tokens.clone());
        let fetched = access.token_keys_url.is_some().then(|| questions.clone());
        let (waiting, inboxes) = (waiting.clone(), Arc::clone(inboxes));
        thread::Builder::new()
            .name(format!("passwords-{number}"))
            .spawn(move || {
                let (users, tokens) = (users.as_deref(), tokens.as_deref());
                verify_all(&waiting, users, tokens, fetched.as_ref(), &inboxes);
            })?;
    }
    let elsewhere = remote.as_ref().is_some_and(|it| it.knows_clients());
    if let Some(remote) = remote {
        callouts::start(remote, tokens.clone(), clock, asked, Arc::clone(inboxes))?;
    }
    let listeners = config.listen.iter().map(|it| Known::at(it, access));
    let exchanges = Exchanges::new()?;
    let authenticator = Authenticator {
        users,
        tokens: tokens.is_some(),
        elsewhere,
        anonymous: access.anonymous,
        listeners: listeners.collect(),
        jobs,
        questions,
        inboxes: Arc::clone(inboxes),
        exchanges,
    };
    Ok((Some(authenticator), authorizer, reloader))
}

fn verify_all(
    waiting: &Taker<Origin, Box<Job>>,
    users: Option<&Mutex<Arc<Users>>>,
    tokens: Option<&Mutex<Arc<Tokens>>>,
    fetched: Option<&Giver<Origin, Box<Job>>>,
    inboxes: &[Arc<Inbox>],
) {
    while let Some(job) = waiting.take() {
        let (mut shard, mut id) = (job.shard, job.id);
        let users = users.map(|users| Arc::clone(&lock(users)));
        let tokens = tokens.map(|tokens| Arc::clone(&lock(tokens)));
        let verdict = match verify(&job, users.as_deref(), tokens.as_deref()) {
            Verified::Verdict(verdict) => verdict,
            Verified::UnknownKey => match fetched.map(|it| it.put(origin(job.address), job)) {
                Some(Ok(())) => continue,
                Some(Err(job)) => {
                    (shard, id) = (job.shard, job.id);
                    refuse(ReasonCode::ServerBusy)
                }
                None => refuse(ReasonCode::BadUserNameOrPassword),
            },
        };
        if let Some(inbox) = inboxes.get(shard.index()) {
            inbox.send(Mail::Authenticated(id, Box::new(verdict)));
        }
    }
}

enum Verified {
    Verdict(Verdict),
    /// A token names a key that is not here.
    UnknownKey,
}

fn verify(job: &Job, users: Option<&Users>, tokens: Option<&Tokens>) -> Verified {
    let identity = job.identity.clone();
    let accepted = if job.is_token {
        match tokens.map(|tokens| tokens.verify(&job.password, identity)) {
            Some(Checked::UnknownKey) => return Verified::UnknownKey,
            Some(Checked::Holder(holder)) => {
                let mut accepted = Accepted::default();
                accepted.identity = holder.identity;
                accepted.until = Some(holder.until);
                Some(accepted)
            }
            Some(Checked::Refused) | None => None,
        }
    } else {
        let right = users.zip(job.user.as_ref());
        let right = right.filter(|(users, user)| users.verify(user, &job.password));
        right.map(|(_, user)| {
            let mut accepted = Accepted::default();
            accepted.identity = identity;
            accepted.identity.user = Some(user.clone());
            accepted
        })
    };
    let verdict = accepted.map(Verdict::Accept);
    Verified::Verdict(verdict.unwrap_or_else(|| refuse(ReasonCode::BadUserNameOrPassword)))
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
        let (jobs, waiting) = fair(1);
        let mut authenticator = Authenticator {
            users: Some(Arc::new(Mutex::new(Arc::clone(&users)))),
            tokens: false,
            elsewhere: false,
            anonymous: false,
            listeners: Arc::new([]),
            jobs,
            questions: fair(1).0,
            inboxes: Arc::new([]),
            exchanges: Exchanges::default(),
        };
        let shard = ShardId::new(0);
        let mut ask = |user, password| {
            let id = ConnectionId::new(shard, 1);
            authenticator.ask(shard, id, &request(user, password), None)
        };
        assert_eq!(ask(Some("ann"), "pencil ☃"), None);
        assert_eq!(
            ask(Some("ann"), "pencil ☃"),
            Some(refuse(ReasonCode::ServerBusy))
        );
        // What needs no verifying does not wait.
        assert_eq!(ask(None, "x"), Some(refuse(ReasonCode::NotAuthorized)));
        let job = waiting.take().unwrap();
        assert!(users.verify(job.user.as_deref().unwrap(), &job.password));
        assert!(!users.verify("ann", b"pencil"));
        let ann = accept(Identity::new("", Some("ann")));
        assert_eq!(ask(Some("ann"), "pencil ☃"), Some(ann));
        assert_eq!(ask(Some("eve"), "pencil ☃"), None);
    }
}
