//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as enhanced authentication: the server learns no password, and
//! has to prove that it knows what it was given when the user was made.

use std::{fmt, mem};

use avocet_access::{SCRAM_SHA_256, ScramClient};

use crate::authentication::{AuthenticationFailed, EnhancedAuthentication};

/// A user and a password, for [`Config::authentication`](crate::Config::authentication). The password
/// is of printable ASCII characters; with another one, the client fails to authenticate.
pub struct ScramSha256 {
    user_name: String,
    password: String,
    step: Step,
}

enum Step {
    Begin,
    /// The server's nonce is due.
    First(ScramClient),
    /// The server's proof is due.
    Final(ScramClient),
    Proven,
}

impl ScramSha256 {
    /// This user with this password.
    #[must_use]
    pub fn new(user_name: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user_name: user_name.into(),
            password: password.into(),
            step: Step::Begin,
        }
    }
}

impl EnhancedAuthentication for ScramSha256 {
    fn method(&self) -> &str {
        SCRAM_SHA_256
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        let mut nonce = [0; 18];
        // Without it a nonce is still never used twice, as the server adds its own.
        let filled = getrandom::fill(&mut nonce);
        debug_assert!(filled.is_ok(), "{filled:?}");
        let client = ScramClient::new(&self.user_name, self.password.as_bytes(), nonce);
        let first = client.first_message();
        self.step = Step::First(client);
        Some(first.into_bytes())
    }

    fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationFailed> {
        if let Step::Final(_) = self.step {
            // Some servers prove themselves in an AUTH of its own.
            return self.finish(data).map(|()| None);
        }
        let Step::First(mut client) = mem::replace(&mut self.step, Step::Begin) else {
            return Err(AuthenticationFailed);
        };
        let proof = client.prove(data.unwrap_or_default());
        self.step = Step::Final(client);
        let proof = proof.map_err(|_| AuthenticationFailed)?;
        Ok(Some(proof.into_bytes()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationFailed> {
        match (&self.step, data) {
            (Step::Proven, None) => Ok(()),
            (Step::Final(client), Some(data)) => {
                client.verify(data).map_err(|_| AuthenticationFailed)?;
                self.step = Step::Proven;
                Ok(())
            }
            _ => Err(AuthenticationFailed),
        }
    }
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
    use avocet_access::{ScramKeys, ScramServer};

    use super::*;

    /// What a server that knows the password says to the first message, and to the last.
    fn serve(scram: &mut ScramSha256, password: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        let first = scram.begin().unwrap();
        let keys = ScramKeys::new(password.as_bytes(), &[3; 16], 4_096).unwrap();
        let challenge = ScramServer::new(&first).unwrap().challenge(keys, [2; 18]);
        let proof = scram.answer(Some(challenge.message().as_bytes()));
        let proof = proof.unwrap().unwrap();
        let signature = challenge.verify(&proof).ok();
        (proof, signature.map(String::into_bytes))
    }

    #[test]
    fn both_sides_prove_that_they_know_the_password() {
        let mut scram = ScramSha256::new("user", "pencil");
        let (_, signature) = serve(&mut scram, "pencil");
        let signature = signature.unwrap();
        assert!(scram.finish(None).is_err());
        assert!(scram.finish(Some(b"v=AAAA")).is_err());
        scram.finish(Some(&signature)).unwrap();
        scram.finish(None).unwrap();
        let (_, signature) = serve(&mut scram, "pencils");
        assert_eq!(signature, None, "of another password");
        // The proof of the server may come in an AUTH of its own.
        let (_, signature) = serve(&mut scram, "pencil");
        assert_eq!(scram.answer(signature.as_deref()).unwrap(), None);
        scram.finish(None).unwrap();
    }

    #[test]
    fn a_server_that_breaks_the_rules_is_not_answered() {
        for first in ["", "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"] {
            let mut scram = ScramSha256::new("user", "pencil");
            scram.begin().unwrap();
            assert!(scram.answer(Some(first.as_bytes())).is_err(), "{first}");
        }
        let mut early = ScramSha256::new("user", "pencil");
        assert!(early.answer(Some(b"r=x")).is_err());
    }

    #[test]
    fn every_connection_has_a_nonce_of_its_own() {
        let mut scram = ScramSha256::new("a,b=c", "p");
        let first = scram.begin().unwrap();
        assert!(first.starts_with(b"n,,n=a=2Cb=3Dc,r="));
        assert_ne!(scram.begin().unwrap(), first);
    }
}
