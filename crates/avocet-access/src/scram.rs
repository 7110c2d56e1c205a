//! SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides show that they know the password, and neither sends it.
//!
//! ```text
//! client                                   server
//!   │  n,,n=USER,r=NONCE                      │  CONNECT, or AUTH with 0x19
//!   │ ──────────────────────────────────────> │
//!   │  r=NONCE+MORE,s=SALT,i=ROUNDS           │  AUTH with 0x18
//!   │ <────────────────────────────────────── │
//!   │  c=biws,r=NONCE+MORE,p=PROOF            │  AUTH with 0x18
//!   │ ──────────────────────────────────────> │
//!   │  v=SIGNATURE                            │  CONNACK, or AUTH with 0x00
//!   │ <────────────────────────────────────── │
//! ```
//!
//! Nonces and salts come from outside. Channels are not bound, and nobody acts for somebody else.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The Authentication Method of CONNECT and AUTH.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// No message of ours or of other implementations comes near.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// What a server must ask for, and the most that a client does for it: less than a second.
const ROUNDS: core::ops::RangeInclusive<u32> = 4_096..=1_000_000;

type Key = [u8; 32];

/// A message of the other side is refused. It never holds what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// It is not such a message.
    #[error("not a message of SCRAM, or one of another step")]
    Malformed,
    /// It asks for what is not supported.
    #[error("SCRAM with {0} is not supported")]
    Unsupported(&'static str),
    /// It belongs to another exchange.
    #[error("a nonce of another exchange")]
    Nonce,
    /// The other side does not know the password.
    #[error("the other side does not know the password")]
    Proof,
}

/// SCRAM does not take a password. RFC 5802 prepares texts beyond ASCII, which this version does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password for SCRAM is of printable ASCII characters")]
pub struct ScramPasswordError;

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub(crate) rounds: u32,
    pub(crate) salt: Box<[u8]>,
    pub(crate) stored: Key,
    pub(crate) server: Key,
}

impl ScramKeys {
    /// How often passwords are hashed unless somebody says otherwise.
    pub const ROUNDS: u32 = 15_000;

    /// The keys of a password. The salt must be fresh and random.
    pub fn new(password: &[u8], salt: &[u8], rounds: u32) -> Result<Self, ScramPasswordError> {
        let (client, server) = derive(password, salt, rounds)?;
        Ok(Self {
            rounds,
            salt: salt.into(),
            stored: Sha256::digest(client).into(),
            server,
        })
    }

    /// Keys of no password, always the same for the same user and secret: with them the exchange of a user that there is not
    /// ends as that of one whose password is wrong.
    #[must_use]
    pub fn decoy(user: &str, secret: &Key) -> Self {
        let salt = mac(secret, user.as_bytes());
        Self {
            rounds: Self::ROUNDS,
            salt: salt.iter().copied().take(16).collect(),
            stored: mac(secret, &salt),
            server: mac(secret, &mac(secret, &salt)),
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys")
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

/// The first message of a client, as the server has it.
#[derive(Clone, Debug)]
pub struct ScramServer {
    user: Box<str>,
    nonce: Box<str>,
    /// The message without what stands before the user.
    bare: Box<str>,
    /// That, as the last message repeats it.
    binding: Box<str>,
}

impl ScramServer {
    /// Reads the first message of a client.
    pub fn new(message: &[u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        match parts.next() {
            Some("n" | "y") => {}
            Some(part) if part.starts_with("p=") => {
                return Err(ScramError::Unsupported("channel binding"));
            }
            _ => return Err(ScramError::Malformed),
        }
        match parts.next() {
            Some("") => {}
            Some(part) if part.starts_with("a=") => {
                return Err(ScramError::Unsupported("an authorization identity"));
            }
            _ => return Err(ScramError::Malformed),
        }
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        let header = message.strip_suffix(bare).unwrap_or_default();
        if bare.starts_with("m=") {
            return Err(ScramError::Unsupported("extensions"));
        }
        let mut parts = bare.split(',');
        let user = unescape(field(parts.next(), "n=")?)?;
        let nonce = field(parts.next(), "r=")?;
        if user.is_empty() || !is_nonce(nonce) {
            return Err(ScramError::Malformed);
        }
        Ok(Self {
            user,
            nonce: nonce.into(),
            bare: bare.into(),
            binding: Base64::encode_string(header.as_bytes()).into(),
        })
    }

    /// Who the client says it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the client has to prove, with the keys of its user, or [decoys](ScramKeys::decoy). The nonce must be fresh
    /// and random.
    #[must_use]
    pub fn challenge(self, keys: ScramKeys, nonce: [u8; 18]) -> ScramChallenge {
        let nonce = format!("{}{}", self.nonce, Base64::encode_string(&nonce));
        let salt = Base64::encode_string(&keys.salt);
        let message = format!("r={nonce},s={salt},i={}", keys.rounds);
        ScramChallenge {
            first: self,
            keys,
            nonce,
            message,
        }
    }
}

/// A server that waits for the proof of a client.
#[derive(Clone, Debug)]
pub struct ScramChallenge {
    first: ScramServer,
    keys: ScramKeys,
    nonce: String,
    message: String,
}

impl ScramChallenge {
    /// Who the client says it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.first.user
    }

    /// For the client.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Reads the last message of the client; the answer proves to it that the server knows its password. The time it takes tells
    /// nothing of the keys.
    pub fn verify(self, message: &[u8]) -> Result<String, ScramError> {
        let message = text(message)?;
        let (without, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut parts = without.split(',');
        if field(parts.next(), "c=")? != &*self.first.binding {
            return Err(ScramError::Malformed);
        }
        if field(parts.next(), "r=")? != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof: Key = key(proof)?;
        let signed = format!("{},{},{without}", self.first.bare, self.message);
        let signature = mac(&self.keys.stored, signed.as_bytes());
        let client = xor(&proof, &signature);
        let stored: Key = Sha256::digest(client).into();
        if !bool::from(stored.ct_eq(&self.keys.stored)) {
            return Err(ScramError::Proof);
        }
        let signature = mac(&self.keys.server, signed.as_bytes());
        Ok(format!("v={}", Base64::encode_string(&signature)))
    }
}

/// What ends the exchange of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramClientError {
    /// The password is not for SCRAM.
    #[error(transparent)]
    Password(#[from] ScramPasswordError),
    /// The server sent what it may not.
    #[error(transparent)]
    Server(#[from] ScramError),
    /// The server asks for fewer rounds than RFC 7677 does, or for more than a million.
    #[error("the server asks for {0} rounds; allowed are 4,096 to 1,000,000")]
    Rounds(u32),
}

/// The client's side.
pub struct ScramClient {
    password: Box<[u8]>,
    nonce: Box<str>,
    bare: String,
    /// What the server has to prove, once it is known.
    signature: Option<Key>,
}

impl ScramClient {
    /// A client that is to prove that it knows the password of a user. The nonce must be fresh and random.
    #[must_use]
    pub fn new(user: &str, password: &[u8], nonce: [u8; 18]) -> Self {
        let nonce = Base64::encode_string(&nonce);
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            password: password.into(),
            bare: format!("n={user},r={nonce}"),
            nonce: nonce.into(),
            signature: None,
        }
    }

    /// The Authentication Data of CONNECT.
    #[must_use]
    pub fn first_message(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// Reads the first message of the server and answers it. This takes as long as the server wants it to: about
    /// 10 ms for 15,000 rounds.
    pub fn prove(&mut self, message: &[u8]) -> Result<String, ScramClientError> {
        let message = text(message)?;
        let mut parts = message.split(',');
        let nonce = field(parts.next(), "r=")?;
        let more = nonce.strip_prefix(&*self.nonce).ok_or(ScramError::Nonce)?;
        if more.is_empty() || !is_nonce(nonce) {
            return Err(ScramError::Nonce.into());
        }
        let salt = field(parts.next(), "s=")?;
        let salt = Base64::decode_vec(salt).map_err(|_| ScramError::Malformed)?;
        let rounds = field(parts.next(), "i=")?;
        let rounds = rounds.parse().map_err(|_| ScramError::Malformed)?;
        if !ROUNDS.contains(&rounds) {
            return Err(ScramClientError::Rounds(rounds));
        }
        let (client, server) = derive(&self.password, &salt, rounds)?;
        let without = format!("c=biws,r={nonce}");
        let signed = format!("{},{message},{without}", self.bare);
        let stored: Key = Sha256::digest(client).into();
        let proof = xor(&client, &mac(&stored, signed.as_bytes()));
        self.signature = Some(mac(&server, signed.as_bytes()));
        Ok(format!("{without},p={}", Base64::encode_string(&proof)))
    }

    /// Reads the last message of the server, which knows the password if this does not fail.
    pub fn verify(&self, message: &[u8]) -> Result<(), ScramError> {
        let expected = self.signature.as_ref().ok_or(ScramError::Malformed)?;
        let signature = text(message)?.split(',').next();
        let signature: Key = key(field(signature, "v=")?)?;
        if bool::from(signature.ct_eq(expected)) {
            Ok(())
        } else {
            Err(ScramError::Proof)
        }
    }
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClient").finish_non_exhaustive()
    }
}

/// The keys of client and server.
fn derive(password: &[u8], salt: &[u8], rounds: u32) -> Result<(Key, Key), ScramPasswordError> {
    if !password.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(ScramPasswordError);
    }
    let mut salted = Key::default();
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, &mut salted);
    Ok((mac(&salted, b"Client Key"), mac(&salted, b"Server Key")))
}

fn mac(key: &Key, message: &[u8]) -> Key {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key);
    // A key of any length is taken.
    mac.map_or_else(
        |_| Key::default(),
        |mac| mac.chain_update(message).finalize().into_bytes().into(),
    )
}

fn xor(first: &Key, second: &Key) -> Key {
    let mut both = *first;
    for (byte, other) in both.iter_mut().zip(second) {
        *byte ^= other;
    }
    both
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let text = str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
    if text.len() > MESSAGE_BYTES_MAX || text.contains('\0') {
        return Err(ScramError::Malformed);
    }
    Ok(text)
}

fn field<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed)
}

fn key(text: &str) -> Result<Key, ScramError> {
    let bytes = Base64::decode_vec(text).map_err(|_| ScramError::Malformed)?;
    bytes.try_into().map_err(|_: Vec<u8>| ScramError::Malformed)
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A name in which `=2C` stands for a comma and `=3D` for an equals sign.
fn unescape(name: &str) -> Result<Box<str>, ScramError> {
    let mut parts = name.split('=');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (char, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(ScramError::Malformed),
        };
        whole.push(char);
        whole.push_str(rest);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const ANSWER: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn client() -> ScramClient {
        let mut client = ScramClient::new("user", b"pencil", [0; 18]);
        client.nonce = "rOprNGfwEbeRWgbNEkqO".into();
        client.bare = "n=user,r=rOprNGfwEbeRWgbNEkqO".into();
        client
    }

    fn challenge() -> ScramChallenge {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        ScramChallenge {
            first: ScramServer::new(FIRST.as_bytes()).unwrap(),
            keys: ScramKeys::new(b"pencil", &salt, 4_096).unwrap(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
            message: ANSWER.into(),
        }
    }

    #[test]
    fn both_sides_say_what_the_example_of_rfc_7677_says() {
        let mut client = client();
        assert_eq!(client.first_message(), FIRST);
        assert_eq!(client.prove(ANSWER.as_bytes()).unwrap(), LAST);
        assert_eq!(challenge().verify(LAST.as_bytes()).unwrap(), SIGNATURE);
        client.verify(SIGNATURE.as_bytes()).unwrap();
    }

    #[test]
    fn what_is_changed_on_the_way_is_refused() {
        let changed = |message: &str, at: usize| {
            let mut changed = message.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            changed
        };
        let challenge = challenge();
        for at in 0..LAST.len() {
            let verdict = challenge.clone().verify(&changed(LAST, at));
            assert!(verdict.is_err(), "byte {at}");
        }
        let mut client = client();
        client.prove(ANSWER.as_bytes()).unwrap();
        for at in 0..SIGNATURE.len() {
            let verdict = client.verify(&changed(SIGNATURE, at));
            assert!(verdict.is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_client_does_not_answer_to_what_is_not_for_it() {
        let refused = |message: &str| client().prove(message.as_bytes()).unwrap_err();
        let other = ANSWER.replace("rOprNGfw", "rOprNGfx");
        assert_eq!(refused(&other), ScramError::Nonce.into());
        let same = "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(
            refused(same),
            ScramError::Nonce.into(),
            "no nonce of the server"
        );
        for (rounds, number) in [("4095", 4_095), ("1000001", 1_000_001)] {
            let message = ANSWER.replace("4096", rounds);
            assert_eq!(refused(&message), ScramClientError::Rounds(number));
        }
        let silent = client().verify(SIGNATURE.as_bytes());
        assert_eq!(silent, Err(ScramError::Malformed), "nothing was proved");
    }

    #[test]
    fn a_server_refuses_what_it_does_not_support() {
        let refused = |message: &str| ScramServer::new(message.as_bytes()).unwrap_err();
        for (message, what) in [
            ("p=tls-exporter,,n=user,r=abc", "channel binding"),
            ("n,a=root,n=user,r=abc", "an authorization identity"),
            ("n,,m=x,n=user,r=abc", "extensions"),
        ] {
            assert_eq!(refused(message), ScramError::Unsupported(what));
        }
        for message in [
            "",
            "n",
            "n,,",
            "n,,n=user",
            "n,,n=,r=a",
            "n,,n=a=b,r=a",
            "x,,n=a,r=a",
            "n,,n=a,r=",
        ] {
            assert_eq!(refused(message), ScramError::Malformed, "{message:?}");
        }
        assert_eq!(
            ScramServer::new(&[0xff]).unwrap_err(),
            ScramError::Malformed
        );
        let long = ["n,,n=user,r=", &"a".repeat(MESSAGE_BYTES_MAX)].concat();
        assert_eq!(refused(&long), ScramError::Malformed);
    }

    #[test]
    fn names_with_commas_and_equals_signs_arrive_as_they_are() {
        let name = "a,b=c=2C";
        let client = ScramClient::new(name, b"pencil", [1; 18]);
        let server = ScramServer::new(client.first_message().as_bytes()).unwrap();
        assert_eq!(server.user(), name);
    }

    #[test]
    fn a_user_that_there_is_not_fails_where_a_wrong_password_does() {
        let decoy = ScramKeys::decoy("eve", &[7; 32]);
        assert_eq!(decoy, ScramKeys::decoy("eve", &[7; 32]));
        assert_ne!(decoy.salt, ScramKeys::decoy("eva", &[7; 32]).salt);
        assert_ne!(decoy.salt, ScramKeys::decoy("eve", &[8; 32]).salt);
        let real = ScramKeys::new(b"pencil", &[3; 16], ScramKeys::ROUNDS).unwrap();
        assert_eq!(
            (decoy.rounds, decoy.salt.len()),
            (real.rounds, real.salt.len())
        );
        for keys in [decoy, real] {
            let mut client = ScramClient::new("eve", b"pencils", [1; 18]);
            let server = ScramServer::new(client.first_message().as_bytes()).unwrap();
            let challenge = server.challenge(keys, [2; 18]);
            let proof = client.prove(challenge.message().as_bytes()).unwrap();
            assert_eq!(challenge.verify(proof.as_bytes()), Err(ScramError::Proof));
        }
    }

    #[test]
    fn passwords_beyond_ascii_are_refused() {
        let refused = Err(ScramPasswordError);
        for password in ["pencil ☃", "pen\tcil", "\u{7f}"] {
            assert_eq!(
                ScramKeys::new(password.as_bytes(), &[0; 16], 4_096),
                refused
            );
            let mut client = ScramClient::new("user", password.as_bytes(), [0; 18]);
            let nonce = client.nonce.to_string();
            let message = format!("r={nonce}x,s=AAAA,i=4096");
            let error = client.prove(message.as_bytes()).unwrap_err();
            assert_eq!(error, ScramPasswordError.into());
        }
    }
}
