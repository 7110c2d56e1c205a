//! Who belongs to which tenant, and what each tenant has of what it may have.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;

use crate::config::Rate;
use crate::shard::{Lane, ShardId, Value};
use crate::tenant::{SpaceId, Tenant, TenantError};
use crate::{Accepted, Engine};

/// Who belongs to which tenant, and what tenants may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tenants {
    /// The tenants of users, by User Name.
    pub users: BTreeMap<Box<str>, Tenant>,
    /// The claim that is the name of a tenant.
    pub claim: Option<Box<str>>,
    /// What tenants may have.
    pub quotas: BTreeMap<Tenant, TenantQuotas>,
    /// What each tenant may have that is not among them.
    pub others: TenantQuotas,
}

/// What a tenant may have; none is as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantQuotas {
    /// Clients that are connected at a time. A CONNECT of one more gets 0x97 (quota exceeded).
    pub connections_max: Option<u64>,
    /// Sessions, connected or not. A CONNECT that would begin one more gets 0x97.
    pub sessions_max: Option<u64>,
    /// Subscriptions of all sessions. One more gets 0x97 in SUBACK.
    pub subscriptions_max: Option<u64>,
    /// Retained messages. One more is delivered and not retained.
    pub retained_messages_max: Option<u64>,
    /// Bytes of these; the outcome is the same.
    pub retained_bytes_max: Option<u64>,
    /// How fast all its clients together may publish: each shard has an even share. Beyond, those
    /// who publish are not read for a while.
    pub publish_rate: Rate,
}

/// What a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantUsage {
    /// Clients that are connected.
    pub connections: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained_messages: u64,
    /// Bytes of these.
    pub retained_bytes: u64,
}

impl TenantUsage {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.subscriptions += other.subscriptions;
        self.retained_messages += other.retained_messages;
        self.retained_bytes += other.retained_bytes;
    }
}

/// Something of which a tenant may have only so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    Connections,
    Sessions,
    Subscriptions,
    RetainedMessages,
    RetainedBytes,
}

impl Quota {
    const fn max(self, quotas: &TenantQuotas) -> Option<u64> {
        match self {
            Self::Connections => quotas.connections_max,
            Self::Sessions => quotas.sessions_max,
            Self::Subscriptions => quotas.subscriptions_max,
            Self::RetainedMessages => quotas.retained_messages_max,
            Self::RetainedBytes => quotas.retained_bytes_max,
        }
    }

    const fn used(self, usage: &TenantUsage) -> u64 {
        match self {
            Self::Connections => usage.connections,
            Self::Sessions => usage.sessions,
            Self::Subscriptions => usage.subscriptions,
            Self::RetainedMessages => usage.retained_messages,
            Self::RetainedBytes => usage.retained_bytes,
        }
    }
}

/// Why it is not clear whose client somebody is, who is not let in then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TenantProblem {
    /// Two of its listener, its user, its claim and those who let it in name these.
    Two(Tenant, Tenant),
    /// A claim is no name of a tenant.
    Claim(TenantError),
}

impl fmt::Display for TenantProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Two(one, other) => write!(f, "it is of two tenants, {one} and {other}"),
            Self::Claim(error) => write!(f, "its claim: {error}"),
        }
    }
}

impl Tenants {
    /// The tenant of a client: the one that its listener, those who let it in, its user and its claim
    /// name. Each may name none.
    pub(crate) fn of_client(
        &self,
        listener: &Tenant,
        accepted: &Accepted,
    ) -> Result<Tenant, TenantProblem> {
        let identity = &accepted.identity;
        let user = identity.user.as_deref().and_then(|it| self.users.get(it));
        let claims = self.claim.as_ref().and_then(|it| identity.claims.get(it));
        let claims = claims.into_iter().flatten().map(|name| Tenant::new(name));
        let named = [Some(listener), Some(&accepted.tenant), user];
        let named = named.into_iter().flatten().cloned().map(Ok);
        let mut tenant = Tenant::NONE;
        for named in named.chain(claims) {
            let named = named.map_err(TenantProblem::Claim)?;
            if tenant.is_none() {
                tenant = named;
            } else if !named.is_none() && named != tenant {
                return Err(TenantProblem::Two(tenant, named));
            }
        }
        Ok(tenant)
    }

    fn quotas_of(&self, tenant: &Tenant) -> &TenantQuotas {
        self.quotas.get(tenant).unwrap_or(&self.others)
    }

    /// Whether it is limited how fast a tenant publishes.
    pub(crate) fn limit_rates(&self) -> bool {
        let mut quotas = self.quotas.values().chain([&self.others]);
        quotas.any(|quotas| quotas.publish_rate.is_limited())
    }
}

impl Engine {
    /// Who belongs to which tenant from here on, and what tenants may have. Sessions stay with the
    /// tenants that they have, and nobody loses what he has.
    pub fn set_tenants(&mut self, tenants: Arc<Tenants>) {
        self.paces_tenants = tenants.limit_rates();
        self.tenants = tenants;
    }

    /// What each tenant has in this shard that has had something since the start.
    pub fn tenants(&self) -> impl Iterator<Item = (&Tenant, TenantUsage)> {
        let spaces = self.spaces.of_tenants();
        spaces.map(|(_, space)| (&space.tenant, space.usage))
    }

    /// Whether the tenant of a space may have so much more. What other shards take at the same
    /// moment is not known.
    pub(crate) fn has_quota(&self, id: SpaceId, quota: Quota, more: u64) -> bool {
        if id == SpaceId::NO_TENANT || more == 0 {
            return true;
        }
        let space = self.spaces.get(id);
        let max = quota.max(self.tenants.quotas_of(&space.tenant));
        max.is_none_or(|max| quota.used(&space.total()) + more <= max)
    }

    /// How fast the tenant of a space may publish in this shard.
    pub(crate) fn publish_rate_of(&self, id: SpaceId) -> Rate {
        if id == SpaceId::NO_TENANT {
            return Rate::default();
        }
        let rate = &self
            .tenants
            .quotas_of(&self.spaces.get(id).tenant)
            .publish_rate;
        let shards = u32::from(self.shards);
        Rate {
            messages_per_second: rate.messages_per_second.div_ceil(shards),
            bytes_per_second: rate.bytes_per_second.div_ceil(shards),
        }
    }

    /// Tells the other shards what tenants have in this one; after each turn.
    pub(crate) fn tell_usage(&mut self) {
        while let Some((tenant, usage)) = self.spaces.pop_changed() {
            for shard in self.other_shards() {
                let tenant = tenant.clone();
                let value = Value::Usage { tenant, usage };
                self.send(shard, Lane::Confirmations, value);
            }
        }
    }

    pub(crate) fn on_usage(&mut self, from: ShardId, tenant: &Tenant, usage: TenantUsage) {
        if let Some(id) = self.find_or_begin_space(tenant.as_str()) {
            let space = self.spaces.get_mut(id);
            space.of_others.insert(from, usage);
        }
    }
}

impl crate::tenant::Space {
    /// What the tenant has in all shards, as far as it is known here.
    pub(crate) fn total(&self) -> TenantUsage {
        let mut total = self.usage;
        for usage in self.of_others.values() {
            total.add(usage);
        }
        total
    }
}
