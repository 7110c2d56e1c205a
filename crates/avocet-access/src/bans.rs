//! Who is not let in, whatever else is known of them.

use alloc::boxed::Box;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

/// Names by their hashes. Who asks has no part in what is in it, so there is nothing to be gained by
/// names that have the same hash.
type Names = HashSet<Box<str>, FixedState>;

/// Clients that are not let in, by what they call themselves or who they are. Asking about one takes as
/// long for many as for few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    client_ids: Names,
    users: Names,
}

impl Bans {
    /// Bans a Client Identifier.
    pub fn ban_client_id(&mut self, client_id: &str) {
        self.client_ids.insert(client_id.into());
    }

    /// Bans a User Name.
    pub fn ban_user(&mut self, user: &str) {
        self.users.insert(user.into());
    }

    /// Whether a client is banned by its Client Identifier or its user.
    #[must_use]
    pub fn has(&self, client_id: &str, user: Option<&str>) -> bool {
        self.client_ids.contains(client_id) || user.is_some_and(|user| self.users.contains(user))
    }

    /// How many names are banned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.client_ids.len() + self.users.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client_ids.is_empty() && self.users.is_empty()
    }
}
