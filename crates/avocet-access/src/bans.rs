//! Who is not let in, whatever else is known of them.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

/// Client Identifiers and users that are banned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bans {
    /// Client Identifiers.
    pub client_ids: BTreeSet<Box<str>>,
    /// User Names.
    pub users: BTreeSet<Box<str>>,
}

impl Bans {
    /// Whether a client is banned by its Client Identifier or its user.
    #[must_use]
    pub fn has(&self, client_id: &str, user: Option<&str>) -> bool {
        self.client_ids.contains(client_id) || user.is_some_and(|user| self.users.contains(user))
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client_ids.is_empty() && self.users.is_empty()
    }
}
