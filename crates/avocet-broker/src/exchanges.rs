//! Clients of a shard that are about to show by SCRAM that they know their passwords.

use std::collections::HashMap;
use std::io;

use avocet_access::{
    Identity, PasswordFile, PasswordHash, ScramChallenge, ScramError, ScramKeys, ScramServer,
};
use avocet_codec::ReasonCode;
use avocet_engine::{Accepted, ConnectionId, Tenant, Verdict};

use crate::access::refuse;

#[derive(Clone, Default)]
pub(crate) struct Exchanges {
    /// With what else is known of the client.
    open: HashMap<ConnectionId, (ScramChallenge, Identity)>,
    /// Makes the salts of users that there are not.
    secret: [u8; 32],
}

impl Exchanges {
    pub(crate) fn new() -> io::Result<Self> {
        let mut exchanges = Self::default();
        getrandom::fill(&mut exchanges.secret).map_err(io::Error::other)?;
        Ok(exchanges)
    }

    /// The first step. Where CONNECT has a User Name too, it is the same.
    pub(crate) fn begin(
        &mut self,
        id: ConnectionId,
        users: &PasswordFile,
        user_name: Option<&str>,
        identity: Identity,
        data: &[u8],
    ) -> Verdict {
        let server = match ScramServer::new(data) {
            Ok(server) => server,
            Err(error) => return not_scram(error),
        };
        let user = server.user();
        if user_name.is_some_and(|name| name != user) {
            return refuse(ReasonCode::BadUserNameOrPassword);
        }
        let mut nonce = [0; 18];
        if getrandom::fill(&mut nonce).is_err() {
            return refuse(ReasonCode::ImplementationSpecificError);
        }
        let keys = users.hash(user).and_then(PasswordHash::scram_keys);
        let keys = keys.unwrap_or_else(|| ScramKeys::decoy(user, &self.secret));
        let challenge = server.challenge(keys, nonce);
        let data = Some(challenge.message().as_bytes().to_vec());
        self.open.insert(id, (challenge, identity));
        Verdict::Continue { data }
    }

    /// The last step, or none if there was no first one.
    pub(crate) fn end(&mut self, id: ConnectionId, data: &[u8]) -> Option<Verdict> {
        let (challenge, mut identity) = self.open.remove(&id)?;
        identity.user = Some(challenge.user().into());
        Some(match challenge.verify(data) {
            Ok(signature) => {
                let mut accepted = Accepted::new(Tenant::NONE, Some(signature.into_bytes()));
                accepted.identity = identity;
                Verdict::Accept(accepted)
            }
            Err(ScramError::Proof) => refuse(ReasonCode::BadUserNameOrPassword),
            Err(error) => not_scram(error),
        })
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.open.remove(&id);
    }
}

fn not_scram(error: ScramError) -> Verdict {
    Verdict::Refuse {
        reason: ReasonCode::NotAuthorized,
        reason_string: Some(error.to_string()),
        server_reference: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use avocet_access::ScramClient;
    use avocet_engine::ShardId;

    use super::*;

    #[test]
    fn who_knows_the_password_is_let_in_and_nobody_else() {
        let hash = PasswordHash::scram(b"pencil", [3; 16]).unwrap();
        let other = "eve:$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==";
        let users = PasswordFile::parse(&format!("ann:{hash}\n{other}")).unwrap();
        let mut exchanges = Exchanges::new().unwrap();
        let id = ConnectionId::new(ShardId::new(0), 1);
        for (user, password, right) in [
            ("ann", "pencil", true),
            ("ann", "pencils", false),
            // With another hash, and not there.
            ("eve", "pencil", false),
            ("bob", "pencil", false),
        ] {
            let mut client = ScramClient::new(user, password.as_bytes(), [1; 18]);
            let mut identity = Identity::default();
            identity.cert_cn = Some("device".into());
            let first = client.first_message();
            let begun = exchanges.begin(id, &users, None, identity, first.as_bytes());
            let Verdict::Continue { data: Some(data) } = begun else {
                panic!("no challenge for {user}");
            };
            let proof = client.prove(&data).unwrap();
            let verdict = exchanges.end(id, proof.as_bytes()).unwrap();
            if let Verdict::Accept(accepted) = verdict {
                assert!(right, "{user} {password}");
                assert_eq!(accepted.identity.user.as_deref(), Some(user));
                assert_eq!(accepted.identity.cert_cn.as_deref(), Some("device"));
                client.verify(&accepted.data.unwrap()).unwrap();
            } else {
                assert!(!right, "{user} {password}");
                assert_eq!(verdict, refuse(ReasonCode::BadUserNameOrPassword));
            }
            let again = exchanges.end(id, proof.as_bytes());
            assert_eq!(again, None, "the proof is for one time");
        }
    }

    #[test]
    fn an_exchange_goes_with_its_connection() {
        let mut exchanges = Exchanges::new().unwrap();
        let id = ConnectionId::new(ShardId::new(0), 1);
        let first = ScramClient::new("ann", b"pencil", [1; 18]).first_message();
        let mut begin = |name| {
            let (users, identity) = (PasswordFile::default(), Identity::default());
            exchanges.begin(id, &users, name, identity, first.as_bytes())
        };
        assert_eq!(
            begin(Some("bob")),
            refuse(ReasonCode::BadUserNameOrPassword)
        );
        assert!(matches!(begin(Some("ann")), Verdict::Continue { .. }));
        assert_eq!(exchanges.open.len(), 1);
        exchanges.forget(id);
        assert!(exchanges.open.is_empty());
    }
}
