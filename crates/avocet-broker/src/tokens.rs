//! JSON Web Tokens as passwords (RFC 7519): the keys that they are signed with, and what they say of a client.

use std::path::Path;
use std::time::Duration;

use avocet_access::Identity;
use avocet_session::UnixTime;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tracing::{info, warn};

use crate::access::{AccessError, read, wrong};
use crate::config::Access;

/// Keys that a token without a name for its key is tried with.
const TRIES_MAX: usize = 8;

/// Values that a client brings along: beyond, the token is refused.
const CLAIMS_MAX: usize = 256;

/// What a token has to be.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    /// The claim that is the User Name.
    user: Box<str>,
}

struct Key {
    id: Option<Box<str>>,
    key: DecodingKey,
    validation: Validation,
}

/// Whom a token is of, and until when.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) identity: Identity,
    pub(crate) until: UnixTime,
}

/// What a token is worth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Holder(Holder),
    /// It names a key that is not here.
    UnknownKey,
    Refused,
}

/// Whether a password is to be read as a token: three parts, the first of which is an object in base64.
pub(crate) fn is_token(password: &[u8]) -> bool {
    password.starts_with(b"ey") && password.iter().filter(|byte| **byte == b'.').count() == 2
}

impl Tokens {
    pub(crate) fn load(access: &Access, path: &Path) -> Result<Self, AccessError> {
        let text = read("access.token_keys", path)?;
        let parsed = Self::parse(access, &text, &path.display().to_string());
        parsed.map_err(|(line, problem)| wrong(path, line, problem))
    }

    /// Before the first keys have come.
    pub(crate) fn none(access: &Access) -> Self {
        Self {
            keys: Vec::new(),
            user: access.token_user.as_str().into(),
        }
    }

    /// Reads a JSON Web Key Set that came from there; or the line of what is wrong, and what that is.
    pub(crate) fn parse(access: &Access, text: &str, from: &str) -> Result<Self, (usize, String)> {
        let set: JwkSet = serde_json::from_str(text).map_err(|error| {
            // What the parser says may quote a key.
            let problem = format!("no JSON Web Key Set, from column {} on", error.column());
            (error.line(), problem)
        })?;
        let usable = |jwk: &Jwk| jwk.common.public_key_use != Some(PublicKeyUse::Encryption);
        let mut tokens = Self::none(access);
        for jwk in set.keys.iter().filter(|jwk| usable(jwk)) {
            match Key::new(jwk, access) {
                Some(key) => tokens.keys.push(key),
                None => {
                    let id = jwk.common.key_id.as_deref().unwrap_or("without a kid");
                    warn!("{from}: the key {id:?} is of no use here");
                }
            }
        }
        if tokens.keys.is_empty() {
            let problem =
                "no key of a kind that is known here: oct, RSA, EC (P-256, P-384), OKP (Ed25519)";
            return Err((1, problem.to_owned()));
        }
        Ok(tokens)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn tell(&self, path: &Path) {
        info!(keys = self.keys.len(), "keys of tokens: {}", path.display());
    }

    /// Whom a token is of, if it is signed with one of the keys, for this broker and not over.
    /// The rest of what is known of the client is in `identity`.
    pub(crate) fn verify(&self, token: &[u8], identity: Identity) -> Checked {
        let Ok(header) = decode_header(token) else {
            return Checked::Refused;
        };
        let named = |key: &&Key| header.kid.is_none() || key.id.as_deref() == header.kid.as_deref();
        if !self.keys.iter().any(|key| named(&key)) {
            return Checked::UnknownKey;
        }
        let fits = |key: &&Key| key.validation.algorithms.contains(&header.alg);
        let mut keys = self.keys.iter().filter(named).filter(fits).take(TRIES_MAX);
        let claims = keys.find_map(|key| {
            let token = decode::<Map<String, Value>>(token, &key.key, &key.validation);
            Some(token.ok()?.claims)
        });
        let holder = claims.and_then(|claims| self.holder(&claims, identity));
        holder.map_or(Checked::Refused, Checked::Holder)
    }

    fn holder(&self, claims: &Map<String, Value>, mut identity: Identity) -> Option<Holder> {
        let expiry = claims.get("exp")?.as_f64()?;
        let seconds = Duration::try_from_secs_f64(expiry).ok()?;
        let user = claims.get(&*self.user)?.as_str()?;
        if user.is_empty() {
            return None;
        }
        identity.user = Some(user.into());
        claims_into(claims, &mut identity)?;
        let until = UnixTime::from_millis(0) + seconds;
        Some(Holder { identity, until })
    }
}

/// Adds what is text, or a list of texts, to what is known of a client; none if that is too much. What
/// stands in an object has the names of both: `acl.pub`.
pub(crate) fn claims_into(claims: &Map<String, Value>, identity: &mut Identity) -> Option<()> {
    for (name, value) in claims {
        if let Value::Object(inner) = value {
            for (inner, value) in inner {
                claim_into(&format!("{name}.{inner}"), value, identity);
            }
        } else {
            claim_into(name, value, identity);
        }
    }
    let count: usize = identity.claims.values().map(Vec::len).sum();
    (count <= CLAIMS_MAX).then_some(())
}

fn claim_into(name: &str, value: &Value, identity: &mut Identity) {
    let texts: Vec<Box<str>> = match value {
        // What may be done with it, in words with spaces between them (RFC 8693, section 4.2).
        Value::String(text) if name == "scope" => text.split_whitespace().map(Box::from).collect(),
        Value::String(text) => vec![text.as_str().into()],
        Value::Array(values) => {
            let texts = values.iter().filter_map(Value::as_str);
            texts.map(Box::from).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return,
    };
    identity.claims.insert(name.into(), texts);
}

impl Key {
    fn new(jwk: &Jwk, access: &Access) -> Option<Self> {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        // The key says what it is for, never the token.
        let mut validation = Validation::new_for_family(key.family());
        if let Some(algorithm) = jwk.common.key_algorithm {
            let algorithm: Algorithm = algorithm.to_string().parse().ok()?;
            validation.algorithms.retain(|known| *known == algorithm);
        }
        validation.leeway = 0;
        // Its last second has begun.
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &access.token_issuer {
            validation.set_issuer(&[&**issuer]);
            required.push("iss");
        }
        validation.validate_aud = access.token_audience.is_some();
        if let Some(audience) = &access.token_audience {
            validation.set_audience(&[&**audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let id = jwk.common.key_id.as_deref().map(Box::from);
        (!validation.algorithms.is_empty()).then_some(Self {
            id,
            key,
            validation,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )]
    #![allow(clippy::disallowed_methods, reason = "tokens say what time it is")]

    use std::time::{SystemTime, UNIX_EPOCH};

    use base64ct::{Base64UrlUnpadded, Encoding as _};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::KeyPair;
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"thirty-two bytes or more of it..";

    fn jwk(id: &str, secret: &[u8]) -> Value {
        let secret = Base64UrlUnpadded::encode_string(secret);
        json!({"kty": "oct", "kid": id, "alg": "HS256", "k": secret})
    }

    fn tokens(keys: &[Value], change: impl FnOnce(&mut Access)) -> Result<Tokens, AccessError> {
        let name = format!(
            "tokens-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
        let mut access = Access::default();
        change(&mut access);
        let tokens = Tokens::load(&access, &path);
        std::fs::remove_file(&path).unwrap();
        tokens
    }

    fn now() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap().as_secs()
    }

    fn sign(algorithm: Algorithm, id: Option<&str>, secret: &[u8], claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = id.map(str::to_owned);
        encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    /// Keys to sign with and to verify with, and what tokens are signed with by them.
    fn key_pairs() -> [(EncodingKey, Value, &'static [Algorithm]); 4] {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let encoded = Base64UrlUnpadded::encode_string;
        let size = rcgen::RsaKeySize::_2048;
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        // The key itself lies behind 26 bytes of PKCS #8, the modulus behind 9 bytes of PKCS #1.
        let (signs, n) = (
            &rsa.serialized_der()[26..],
            &rsa.public_key_raw()[9..9 + 256],
        );
        let n = json!({"kty": "RSA", "n": encoded(n), "e": "AQAB"});
        let all = &[RS256, RS384, RS512, PS256, PS384, PS512];
        let curve = |kind, name: &str| {
            let key = KeyPair::generate_for(kind).unwrap();
            // Behind a byte, both coordinates.
            let (x, y) = key.public_key_raw()[1..].split_at(key.public_key_raw().len() / 2);
            let jwk = json!({"kty": "EC", "crv": name, "x": encoded(x), "y": encoded(y)});
            (EncodingKey::from_ec_der(key.serialized_der()), jwk)
        };
        let (p256, p256_jwk) = curve(&rcgen::PKCS_ECDSA_P256_SHA256, "P-256");
        let (p384, p384_jwk) = curve(&rcgen::PKCS_ECDSA_P384_SHA384, "P-384");
        let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let x = encoded(ed.public_key_raw());
        let ed_jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        [
            (EncodingKey::from_rsa_der(signs), n, all),
            (p256, p256_jwk, &[ES256]),
            (p384, p384_jwk, &[ES384]),
            (
                EncodingKey::from_ed_der(ed.serialized_der()),
                ed_jwk,
                &[EdDSA],
            ),
        ]
    }

    fn sign_with(algorithm: Algorithm, key: &EncodingKey) -> String {
        let claims = json!({"sub": "pump", "exp": now() + 60});
        encode(&Header::new(algorithm), &claims, key).unwrap()
    }

    fn holder(tokens: &Tokens, token: &str) -> Option<Holder> {
        assert!(is_token(token.as_bytes()));
        match tokens.verify(token.as_bytes(), Identity::default()) {
            Checked::Holder(holder) => Some(holder),
            Checked::UnknownKey | Checked::Refused => None,
        }
    }

    #[test]
    fn a_token_says_who_a_client_is_and_until_when() {
        let tokens = tokens(&[jwk("a", SECRET)], |_| {}).unwrap();
        let exp = now() + 60;
        let claims = json!({"sub": "pump", "exp": exp, "site": ["north", "south"], "n": 7});
        for id in [Some("a"), None] {
            let token = sign(Algorithm::HS256, id, SECRET, &claims);
            let holder = holder(&tokens, &token).unwrap();
            assert_eq!(holder.until, UnixTime::from_millis(exp * 1_000));
            assert_eq!(holder.identity.user.as_deref(), Some("pump"));
            let sites = holder.identity.claims.get("site").unwrap();
            assert_eq!(**sites, ["north".into(), "south".into()]);
            assert!(!holder.identity.claims.contains_key("n"));
        }
    }

    #[test]
    fn claims_may_hold_scopes_and_objects() {
        let tokens = tokens(&[jwk("a", SECRET)], |_| {}).unwrap();
        let claims = json!({
            "sub": "pump", "exp": now() + 60, "scope": "read write",
            "acl": {"pub": ["a/#", "b/+"], "sub": "c", "n": 1, "deep": {"x": "y"}},
        });
        let token = sign(Algorithm::HS256, Some("a"), SECRET, &claims);
        let identity = holder(&tokens, &token).unwrap().identity;
        let known = |name| identity.claims.get(name).map(|values| values.join(" "));
        assert_eq!(known("scope").as_deref(), Some("read write"));
        assert_eq!(identity.claims["scope"].len(), 2);
        assert_eq!(known("acl.pub").as_deref(), Some("a/# b/+"));
        assert_eq!(known("acl.sub").as_deref(), Some("c"));
        assert_eq!(
            (known("acl"), known("acl.n"), known("acl.deep")),
            (None, None, None)
        );
    }

    #[test]
    fn a_token_that_is_not_right_lets_nobody_in() {
        let tokens = tokens(&[jwk("a", SECRET), jwk("b", &[7; 32])], |access| {
            access.token_issuer = Some("issuer".into());
            access.token_audience = Some("here".into());
        })
        .unwrap();
        let claims = |change: fn(&mut Value)| {
            let mut claims = json!({
                "sub": "pump", "iss": "issuer", "aud": ["there", "here"], "exp": now() + 60,
            });
            change(&mut claims);
            claims
        };
        let verdict = |algorithm, id, secret: &[u8], change| {
            let token = sign(algorithm, id, secret, &claims(change));
            holder(&tokens, &token).is_some()
        };
        let good = |change| verdict(Algorithm::HS256, Some("a"), SECRET, change);
        assert!(good(|_| {}));
        assert!(!good(|it| it["exp"] = json!(now())), "over");
        assert!(!good(|it| it["exp"] = Value::Null), "for ever");
        assert!(!good(|it| it["nbf"] = json!(now() + 30)), "not yet");
        assert!(!good(|it| it["iss"] = json!("else")));
        assert!(!good(|it| it["iss"] = Value::Null));
        assert!(!good(|it| it["aud"] = json!("there")));
        assert!(!good(|it| it["sub"] = json!("")));
        assert!(!good(|it| it["sub"] = json!(7)));
        let many = |it: &mut Value| it["many"] = json!(vec!["x"; CLAIMS_MAX + 1]);
        assert!(!good(many));
        let other = |algorithm, id, secret: &[u8]| verdict(algorithm, id, secret, |_| {});
        assert!(
            !other(Algorithm::HS256, Some("b"), SECRET),
            "of another key"
        );
        assert!(!other(Algorithm::HS256, Some("c"), SECRET), "of no key");
        assert!(!other(
            Algorithm::HS256,
            None,
            b"another secret of theirs........"
        ));
        assert!(
            !other(Algorithm::HS512, Some("a"), SECRET),
            "not what the key is for"
        );
        let token = sign(Algorithm::HS256, Some("a"), SECRET, &claims(|_| {}));
        for at in (0..token.len()).filter(|at| token.as_bytes()[*at] != b'.') {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            // The last characters of a part may say the same.
            if matches!(
                tokens.verify(&changed, Identity::default()),
                Checked::Holder(_)
            ) {
                let same = token
                    .as_bytes()
                    .get(at + 1)
                    .is_none_or(|next| *next == b'.');
                assert!(same, "byte {at}");
            }
        }
        // Nothing is signed.
        let parts: Vec<_> = token.split('.').collect();
        let header = Base64UrlUnpadded::encode_string(br#"{"alg":"none"}"#);
        let unsigned = [&header, parts[1], ""].join(".");
        assert_eq!(
            tokens.verify(unsigned.as_bytes(), Identity::default()),
            Checked::Refused
        );
    }

    #[test]
    fn a_token_is_verified_with_a_public_key_of_each_kind() {
        let (mine, theirs) = (key_pairs(), key_pairs());
        for ((key, jwk, algorithms), (other, ..)) in mine.iter().zip(&theirs) {
            for algorithm in *algorithms {
                let mut named = jwk.clone();
                named["alg"] = json!(algorithm);
                for jwk in [jwk, &named] {
                    let tokens = tokens(std::slice::from_ref(jwk), |_| {}).unwrap();
                    let token = sign_with(*algorithm, key);
                    assert!(holder(&tokens, &token).is_some(), "{algorithm:?}");
                    let token = sign_with(*algorithm, other);
                    assert!(
                        holder(&tokens, &token).is_none(),
                        "of another {algorithm:?}"
                    );
                }
                // What the key is for is what counts.
                let only = tokens(&[named], |_| {}).unwrap();
                for another in algorithms.iter().filter(|it| *it != algorithm) {
                    let token = sign_with(*another, key);
                    assert!(holder(&only, &token).is_none(), "{another:?} {algorithm:?}");
                }
            }
        }
        // All of them together, without names.
        let all: Vec<_> = mine.iter().map(|(_, jwk, _)| jwk.clone()).collect();
        let all = tokens(&all, |_| {}).unwrap();
        for (key, _, algorithms) in &mine {
            for algorithm in *algorithms {
                assert!(holder(&all, &sign_with(*algorithm, key)).is_some());
            }
        }
    }

    #[test]
    fn a_public_key_is_never_taken_for_a_secret() {
        let (pairs, secret) = (key_pairs(), jwk("a", SECRET));
        for (_, public, _) in &pairs {
            let values = public.as_object().unwrap().values();
            let texts: Vec<_> = values.filter_map(Value::as_str).collect();
            let bytes = texts
                .iter()
                .filter_map(|it| Base64UrlUnpadded::decode_vec(it).ok());
            let mut secrets: Vec<Vec<u8>> = bytes.collect();
            secrets.extend(texts.iter().map(|it| it.as_bytes().to_vec()));
            secrets.push(public.to_string().into_bytes());
            for keys in [vec![public.clone()], vec![public.clone(), secret.clone()]] {
                let tokens = tokens(&keys, |_| {}).unwrap();
                for guess in &secrets {
                    let guess = EncodingKey::from_secret(guess);
                    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                        let token = sign_with(algorithm, &guess);
                        assert!(holder(&tokens, &token).is_none(), "{public}");
                    }
                }
            }
            // A key that says it is for what its kind is not for is of no use.
            for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
                let mut wrong = public.clone();
                wrong["alg"] = json!(algorithm);
                let fits = match public["kty"].as_str().unwrap() {
                    "RSA" => "RS256",
                    "EC" => "ES256",
                    _ => "EdDSA",
                };
                let read = tokens(&[wrong], |_| {});
                assert_eq!(read.is_ok(), algorithm == fits, "{public} {algorithm}");
            }
        }
        let mut wrong = secret;
        wrong["alg"] = json!("RS256");
        assert!(tokens(&[wrong], |_| {}).is_err());
    }

    #[test]
    fn keys_that_are_of_no_use_are_left_out_and_none_is_refused() {
        let unknown = json!({"kty": "XYZ", "kid": "x"});
        let encryption = json!({"kty": "oct", "use": "enc", "k": "AAAA"});
        let error = tokens(&[unknown.clone(), encryption], |_| {})
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("no key of a kind that is known here")
        );
        let tokens = tokens(&[unknown, jwk("a", SECRET)], |_| {}).unwrap();
        assert_eq!(tokens.keys.len(), 1);
    }
}
