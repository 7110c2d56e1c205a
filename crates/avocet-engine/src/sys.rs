//! `$SYS`: the counters of all shards, summed by one of them, in the topics that monitoring tools
//! know from mosquitto. Nothing of it is stored or waited for.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use avocet_session::{Instant, Message, Now};
use avocet_topic::TopicName;

use crate::Engine;
use crate::config::EngineConfig;
use crate::counters::Counters;
use crate::publish::Origin;
use crate::shard::{Lane, ShardId, Value};

pub(crate) struct Sys {
    interval: Option<Duration>,
    next: Option<Instant>,
    start: Instant,
    /// The last counters of each shard, in the shard that sums.
    stats: Vec<Counters>,
    clients_maximum: u64,
    /// What was published last, by topic.
    published: BTreeMap<&'static str, String>,
}

impl Sys {
    pub(crate) fn new(config: &EngineConfig, shard: ShardId, shards: u16, now: Now) -> Self {
        let sums = shard.index() == 0;
        Self {
            interval: config.sys_interval,
            // The first values are there from the start.
            next: config.sys_interval.map(|_| now.instant),
            start: now.instant,
            stats: (0..if sums { shards } else { 0 })
                .map(|_| Counters::default())
                .collect(),
            clients_maximum: 0,
            published: BTreeMap::new(),
        }
    }

    pub(crate) const fn next_update(&self) -> Option<Instant> {
        self.next
    }
}

impl Engine {
    pub(crate) fn update_sys(&mut self, now: Now) {
        let (Some(interval), Some(next)) = (self.sys.interval, self.sys.next) else {
            return;
        };
        if next > now.instant {
            return;
        }
        self.sys.next = Some(now.instant + interval.max(Duration::from_millis(1)));
        let owner = ShardId::new(0);
        if self.shard != owner {
            let counters = self.counters.clone();
            self.send(owner, Lane::Confirmations, Value::Stats(counters.into()));
            return;
        }
        let counters = self.counters.clone();
        self.on_stats(self.shard, counters);
        self.publish_sys(now);
    }

    pub(crate) fn on_stats(&mut self, from: ShardId, counters: Counters) {
        if let Some(stats) = self.sys.stats.get_mut(from.index()) {
            *stats = counters;
        }
    }

    fn publish_sys(&mut self, now: Now) {
        let mut sum = Counters::default();
        for counters in &self.sys.stats {
            sum += counters;
        }
        let clients = sum.sessions_connected + sum.sessions_disconnected;
        self.sys.clients_maximum = self.sys.clients_maximum.max(clients);
        let uptime = now.instant.duration_since(self.sys.start).as_secs();
        let version = self.config.version.to_string();
        let values = [
            ("$SYS/broker/version", version),
            ("$SYS/broker/uptime", format!("{uptime} seconds")),
            ("$SYS/broker/clients/total", clients.to_string()),
            (
                "$SYS/broker/clients/connected",
                sum.sessions_connected.to_string(),
            ),
            (
                "$SYS/broker/clients/active",
                sum.sessions_connected.to_string(),
            ),
            (
                "$SYS/broker/clients/disconnected",
                sum.sessions_disconnected.to_string(),
            ),
            (
                "$SYS/broker/clients/inactive",
                sum.sessions_disconnected.to_string(),
            ),
            (
                "$SYS/broker/clients/maximum",
                self.sys.clients_maximum.to_string(),
            ),
            (
                "$SYS/broker/clients/expired",
                sum.sessions_expired.to_string(),
            ),
            (
                "$SYS/broker/connects/accepted",
                sum.connects_accepted.to_string(),
            ),
            (
                "$SYS/broker/connects/refused",
                sum.connects_refused.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/banned",
                sum.connects_banned.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/quota",
                sum.connects_over_quota.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/rate",
                sum.connects_over_rate.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/busy",
                sum.connects_overloaded.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/authorization",
                sum.connects_not_authorized.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/malformed",
                sum.connects_malformed.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/timeout",
                sum.connects_timed_out.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/handshake",
                sum.handshakes_failed.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/handshake_timeout",
                sum.handshakes_timed_out.to_string(),
            ),
            (
                "$SYS/broker/connects/refused/handshakes",
                sum.handshakes_over_limit.to_string(),
            ),
            (
                "$SYS/broker/authorization/refused/publish",
                sum.publishes_not_authorized.to_string(),
            ),
            (
                "$SYS/broker/authorization/refused/subscribe",
                sum.subscriptions_not_authorized.to_string(),
            ),
            (
                "$SYS/broker/authorization/refused/deliver",
                sum.deliveries_not_authorized.to_string(),
            ),
            (
                "$SYS/broker/authorization/asked",
                sum.authorizations_asked.to_string(),
            ),
            (
                "$SYS/broker/authorization/unanswered",
                sum.authorizations_unanswered.to_string(),
            ),
            (
                "$SYS/broker/authorization/known",
                sum.authorizations_known.to_string(),
            ),
            (
                "$SYS/broker/messages/received",
                sum.packets_received.to_string(),
            ),
            ("$SYS/broker/messages/sent", sum.packets_sent.to_string()),
            (
                "$SYS/broker/messages/stored",
                (sum.retained_messages + sum.queued_messages).to_string(),
            ),
            (
                "$SYS/broker/store/messages/count",
                (sum.retained_messages + sum.queued_messages).to_string(),
            ),
            (
                "$SYS/broker/store/messages/bytes",
                (sum.retained_bytes + sum.queued_bytes).to_string(),
            ),
            (
                "$SYS/broker/publish/messages/received",
                sum.publishes_received.to_string(),
            ),
            (
                "$SYS/broker/publish/messages/sent",
                sum.publishes_sent.to_string(),
            ),
            (
                "$SYS/broker/publish/messages/dropped",
                sum.dropped_total().to_string(),
            ),
            ("$SYS/broker/bytes/received", sum.bytes_received.to_string()),
            ("$SYS/broker/bytes/sent", sum.bytes_sent.to_string()),
            (
                "$SYS/broker/subscriptions/count",
                sum.subscriptions.to_string(),
            ),
            (
                "$SYS/broker/shared_subscriptions/count",
                sum.shared_subscriptions.to_string(),
            ),
            (
                "$SYS/broker/retained messages/count",
                sum.retained_messages.to_string(),
            ),
        ];
        for (topic, value) in values {
            if self.sys.published.get(topic) == Some(&value) {
                continue;
            }
            if let Ok(topic_name) = TopicName::new(topic) {
                let message = Message::new(topic_name, value.as_bytes()).with_retain(true);
                let mut published = self.published(message, None);
                self.publish(&Origin::SERVER, &mut published, now);
            }
            self.sys.published.insert(topic, value);
        }
        self.publish_tenants(now);
    }

    /// What each tenant has, for those without a tenant.
    fn publish_tenants(&mut self, now: Now) {
        let totals = self.spaces.of_tenants();
        let totals = totals.map(|(id, space)| (id, space.tenant.clone(), space.total()));
        for (id, tenant, total) in totals.collect::<Vec<_>>() {
            let told = mem::replace(&mut self.spaces.get_mut(id).told, total);
            if told == total {
                continue;
            }
            let topic = |what| format!("$SYS/broker/tenants/{tenant}/{what}");
            for (what, count) in [
                ("clients/connected", total.connections),
                ("clients/total", total.sessions),
                ("subscriptions/count", total.subscriptions),
                ("retained messages/count", total.retained_messages),
                ("retained messages/bytes", total.retained_bytes),
            ] {
                if let Ok(topic_name) = TopicName::new(&topic(what)) {
                    let count = count.to_string();
                    let message = Message::new(topic_name, count.as_bytes()).with_retain(true);
                    let mut published = self.published(message, None);
                    self.publish(&Origin::SERVER, &mut published, now);
                }
            }
        }
    }
}
