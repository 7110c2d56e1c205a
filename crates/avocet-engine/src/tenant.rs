//! The names of tenants, and what each of them has for itself.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::hash::{Hash, Hasher};
use core::{fmt, mem};

use avocet_topic::{FilterTreeLimits, Seed, TopicFilterBuf, TopicTree};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::Engine;
use crate::engine::purpose;
use crate::quotas::TenantUsage;
use crate::rates::Spent;
use crate::retained::Retained;
use crate::routes::Routes;
use crate::shard::ShardId;

/// Whose topics, sessions, retained messages and quotas are apart from those of others: a name, or
/// nobody's for those without a tenant.
#[derive(Clone, Default)]
pub struct Tenant(Option<Arc<str>>);

/// Why a text is no name of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// It is empty.
    #[error("the name of a tenant is empty")]
    Empty,
    /// It has more than [`Tenant::BYTES_MAX`] bytes.
    #[error("the name of a tenant has more than {} bytes", Tenant::BYTES_MAX)]
    TooLong,
    /// It has a control character, `/`, `+` or `#`.
    #[error("the name of a tenant has a control character, `/`, `+` or `#`")]
    Character,
}

impl Tenant {
    /// Those without a tenant, and the server itself.
    pub const NONE: Self = Self(None);

    /// Bytes of a name.
    pub const BYTES_MAX: usize = 64;

    /// The tenant with this name, which can stand in a level of a topic and on a line of a log.
    pub fn new(name: &str) -> Result<Self, TenantError> {
        if name.is_empty() {
            return Err(TenantError::Empty);
        }
        if name.len() > Self::BYTES_MAX {
            return Err(TenantError::TooLong);
        }
        if name.contains(|c: char| c.is_control() || "/+#".contains(c)) {
            return Err(TenantError::Character);
        }
        Ok(Self(Some(name.into())))
    }

    /// The tenant of a key, whose name was checked when it was let in.
    pub(crate) fn of_key(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.into()))
    }

    /// The name, empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Borrow<str> for Tenant {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Tenant {}

impl PartialOrd for Tenant {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tenant {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Tenant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A shared subscription: tenants have some of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName {
    /// Whose it is.
    pub tenant: Tenant,
    /// The filter with its `$share/` and Share Name.
    pub filter: TopicFilterBuf,
}

impl GroupName {
    /// The shared subscription of a tenant.
    #[must_use]
    pub const fn new(tenant: Tenant, filter: TopicFilterBuf) -> Self {
        Self { tenant, filter }
    }
}

/// Which space of a shard; other shards may have another number for the same tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpaceId(u32);

impl SpaceId {
    /// Of those without a tenant, and of the server's own messages.
    pub(crate) const NO_TENANT: Self = Self(0);

    /// Another number for each space, 0 for the first one.
    pub(crate) const fn salt(self) -> u64 {
        (self.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// The topics of one tenant in this shard: who wants them, and which of them it retains.
pub(crate) struct Space {
    pub(crate) tenant: Tenant,
    pub(crate) routes: Routes,
    pub(crate) retained: TopicTree<Retained>,
    /// What the tenant has here, and in the other shards as they last said.
    pub(crate) usage: TenantUsage,
    pub(crate) of_others: BTreeMap<ShardId, TenantUsage>,
    /// Whether the others do not know.
    changed: bool,
    /// How fast it has published of late.
    pub(crate) published: Spent,
    /// What `$SYS` last said.
    pub(crate) told: TenantUsage,
}

/// The spaces of a shard. One that has begun stays, so that its number never means another tenant.
pub(crate) struct Spaces {
    entries: Vec<Space>,
    by_tenant: HashMap<Tenant, SpaceId, FixedState>,
    /// Those of whose usage other shards do not know.
    changed: Vec<SpaceId>,
    limits: FilterTreeLimits,
    seed: Seed,
}

impl Spaces {
    /// The space of those without a tenant.
    pub(crate) fn new(limits: FilterTreeLimits, seed: Seed) -> Self {
        let mut spaces = Self {
            entries: Vec::new(),
            by_tenant: HashMap::with_hasher(FixedState::with_seed(
                seed.number(purpose::TENANTS, 0),
            )),
            changed: Vec::new(),
            limits,
            seed,
        };
        spaces.begin(Tenant::NONE);
        spaces
    }

    pub(crate) fn get(&self, id: SpaceId) -> &Space {
        match self.entries.get(id.0 as usize) {
            Some(space) => space,
            None => unreachable!("spaces stay"),
        }
    }

    pub(crate) fn get_mut(&mut self, id: SpaceId) -> &mut Space {
        match self.entries.get_mut(id.0 as usize) {
            Some(space) => space,
            None => unreachable!("spaces stay"),
        }
    }

    /// Who wants the topics of a space.
    pub(crate) fn routes(&self, id: SpaceId) -> &Routes {
        &self.get(id).routes
    }

    /// The space of a tenant, which is empty for none.
    pub(crate) fn find(&self, tenant: &str) -> Option<SpaceId> {
        if tenant.is_empty() {
            return Some(SpaceId::NO_TENANT);
        }
        self.by_tenant.get(tenant).copied()
    }

    /// The space of a tenant, a new one if there is none.
    pub(crate) fn find_or_begin(&mut self, tenant: &str) -> SpaceId {
        let known = self.find(tenant);
        known.unwrap_or_else(|| self.begin(Tenant::of_key(tenant)))
    }

    /// Those of tenants.
    pub(crate) fn of_tenants(&self) -> impl Iterator<Item = (SpaceId, &Space)> {
        (0..).map(SpaceId).zip(&self.entries).skip(1)
    }

    /// A tenant has more, or less.
    pub(crate) fn count(&mut self, id: SpaceId, change: impl FnOnce(&mut TenantUsage)) {
        if id == SpaceId::NO_TENANT {
            return;
        }
        let space = self.get_mut(id);
        change(&mut space.usage);
        if !mem::replace(&mut space.changed, true) {
            self.changed.push(id);
        }
    }

    /// What a tenant has, of whom other shards do not know it.
    pub(crate) fn pop_changed(&mut self) -> Option<(Tenant, TenantUsage)> {
        let id = self.changed.pop()?;
        let space = self.get_mut(id);
        space.changed = false;
        Some((space.tenant.clone(), space.usage))
    }

    /// How many tenants have one.
    fn tenants(&self) -> usize {
        self.entries.len() - 1
    }

    fn begin(&mut self, tenant: Tenant) -> SpaceId {
        let id = SpaceId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.by_tenant.insert(tenant.clone(), id);
        self.entries.push(Space {
            tenant,
            routes: Routes::new(self.limits, self.seed),
            retained: TopicTree::new(),
            usage: TenantUsage::default(),
            of_others: BTreeMap::new(),
            changed: false,
            published: Spent::default(),
            told: TenantUsage::default(),
        });
        id
    }
}

impl Engine {
    /// The space of a tenant; none if it would be a new one and there are as many as there may be. A
    /// restart takes back all there were.
    pub(crate) fn find_or_begin_space(&mut self, tenant: &str) -> Option<SpaceId> {
        let has_room =
            self.is_restoring() || self.spaces.tenants() < self.config.limits.tenants_max;
        match self.spaces.find(tenant) {
            None if has_room => Some(self.spaces.find_or_begin(tenant)),
            known => known,
        }
    }
}
