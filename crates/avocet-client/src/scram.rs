//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as enhanced authentication: the server learns no password, and
//! has to prove that it knows what it was given when the user was made.

use std::fmt;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::authentication::{AuthenticationFailed, EnhancedAuthentication};

/// Rounds of hashing that a server may ask for.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Fewer are an attack, or as good as one (RFC 7677).
const ITERATIONS_MIN: u32 = 4096;

/// No channel binding, no other identity.
const HEADER: &str = "n,,";

/// A user and a password, for [`Config::authentication`](crate::Config::authentication). The password
/// is used as it is: for other than ASCII characters, in the form in which the server has it.
pub struct ScramSha256 {
    user_name: String,
    password: String,
    entropy: fn() -> [u8; 18],
    step: Step,
}

enum Step {
    Begin,
    /// `client-first-message-bare`, and the nonce in it.
    First {
        bare: String,
        nonce: String,
    },
    /// The signature that the server owes.
    Final {
        signature: [u8; 32],
    },
    Proven,
}

impl ScramSha256 {
    /// This user with this password.
    #[must_use]
    pub fn new(user_name: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user_name: user_name.into(),
            password: password.into(),
            entropy,
            step: Step::Begin,
        }
    }

    /// `client-final-message` to `server-first-message`.
    fn prove(&mut self, data: &str) -> Option<String> {
        let Step::First { bare, nonce } = &self.step else {
            return None;
        };
        let mut fields = data.split(',');
        let both = fields.next()?.strip_prefix("r=")?;
        let salt = fields.next()?.strip_prefix("s=")?;
        let iterations: u32 = fields.next()?.strip_prefix("i=")?.parse().ok()?;
        let is_continued = both.len() > nonce.len() && both.starts_with(nonce.as_str());
        if !is_continued || !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return None;
        }
        let salt = Base64::decode_vec(salt).ok()?;
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, iterations, &mut salted);
        let client_key = mac(&salted, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let channel = Base64::encode_string(HEADER.as_bytes());
        let without_proof = format!("c={channel},r={both}");
        let message = format!("{bare},{data},{without_proof}");
        let signature = mac(&stored_key, message.as_bytes());
        let mut proof = client_key;
        proof
            .iter_mut()
            .zip(signature)
            .for_each(|(to, with)| *to ^= with);
        let signature = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        self.step = Step::Final { signature };
        Some(format!(
            "{without_proof},p={}",
            Base64::encode_string(&proof)
        ))
    }
}

impl EnhancedAuthentication for ScramSha256 {
    fn method(&self) -> &str {
        "SCRAM-SHA-256"
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        let nonce = Base64::encode_string(&(self.entropy)());
        let name = self.user_name.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        let first = format!("{HEADER}{bare}");
        self.step = Step::First { bare, nonce };
        Some(first.into_bytes())
    }

    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationFailed> {
        let data = data.and_then(|data| std::str::from_utf8(data).ok());
        let data = data.ok_or(AuthenticationFailed)?;
        if let Step::Final { .. } = self.step {
            // Some servers prove themselves in an AUTH of its own.
            return self.finish(Some(data.as_bytes())).map(|()| None);
        }
        let proof = self.prove(data).ok_or(AuthenticationFailed)?;
        Ok(Some(proof.into_bytes()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationFailed> {
        match (&self.step, data) {
            (Step::Proven, None) => Ok(()),
            (Step::Final { signature }, Some(data)) => {
                let expected = format!("v={}", Base64::encode_string(signature));
                // Nothing is secret here: it came over the connection.
                let is_proven =
                    data.split(|byte| *byte == b',').next() == Some(expected.as_bytes());
                if !is_proven {
                    return Err(AuthenticationFailed);
                }
                self.step = Step::Proven;
                Ok(())
            }
            _ => Err(AuthenticationFailed),
        }
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        debug_assert!(false, "a key of any length will do");
        return [0; 32];
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn entropy() -> [u8; 18] {
    let mut bytes = [0; 18];
    // Without it a nonce is still never used twice, as the server adds its own.
    let filled = getrandom::fill(&mut bytes);
    debug_assert!(filled.is_ok(), "{filled:?}");
    bytes
}

impl fmt::Debug for ScramSha256 {
    /// The password stays secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256")
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn of_the_standard() -> ScramSha256 {
        let mut scram = ScramSha256::new("user", "pencil");
        scram.step = Step::First {
            bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO".into(),
        };
        scram
    }

    /// The example of RFC 7677.
    #[test]
    fn proves_and_checks_as_in_the_example_of_the_standard() {
        let mut scram = of_the_standard();
        let proof = scram
            .answer(Some(SERVER_FIRST.as_bytes()))
            .unwrap()
            .unwrap();
        assert_eq!(
            String::from_utf8(proof).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(scram.finish(None).is_err());
        assert!(
            scram
                .finish(Some(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="))
                .is_err()
        );
        scram
            .finish(Some(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))
            .unwrap();
    }

    #[test]
    fn a_server_that_breaks_the_rules_is_not_answered() {
        for first in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096",
        ] {
            assert!(
                of_the_standard().answer(Some(first.as_bytes())).is_err(),
                "{first}"
            );
        }
        assert!(
            ScramSha256::new("u", "p")
                .answer(Some(SERVER_FIRST.as_bytes()))
                .is_err()
        );
    }

    #[test]
    fn every_connection_has_a_nonce_of_its_own() {
        let mut scram = ScramSha256::new("a,b=c", "p");
        let first = scram.begin().unwrap();
        assert!(first.starts_with(b"n,,n=a=2Cb=3Dc,r="));
        assert_ne!(scram.begin().unwrap(), first);
    }
}
