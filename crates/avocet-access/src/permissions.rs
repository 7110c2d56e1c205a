//! The rules as they are for one client.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use avocet_topic::{TopicFilter, TopicFilterBuf};

use crate::identity::Identity;
use crate::rule::{Action, Effect, QoS, QosSet, Rule};
use crate::rules::{DecidedBy, Request, Rules, Verdict};

/// What one client may do: the rules that are for it, with its own values in place of placeholders.
///
/// It answers as [`Rules::decide`] does and allocates nothing to do so.
#[derive(Clone, Debug)]
pub struct Permissions {
    rules: Arc<Rules>,
    entries: Box<[Entry]>,
    /// For each action, the verdict that needs no look at the topic, the QoS or the flag.
    always: [Option<Verdict>; 3],
}

#[derive(Clone, Debug)]
struct Entry {
    rule: u32,
    topics: Topics,
}

#[derive(Clone, Debug)]
enum Topics {
    /// Those of the rule, which has no placeholder.
    AsWritten,
    Expanded(Box<[TopicFilterBuf]>),
}

impl Permissions {
    /// The rules as they are for a client.
    #[must_use]
    pub fn new(rules: &Arc<Rules>, identity: &Identity) -> Self {
        let mut entries = Vec::new();
        for (index, rule) in (0..).zip(rules.as_slice()) {
            if rule.is_for(identity).is_err() {
                continue;
            }
            let plain = rule.topics.iter().all(|it| it.as_filter().is_some());
            let topics = if plain {
                Topics::AsWritten
            } else {
                let all = rule.topics.iter().flat_map(|it| it.expand(identity));
                let expanded: Box<[_]> = all.collect();
                if expanded.is_empty() {
                    continue;
                }
                Topics::Expanded(expanded)
            };
            entries.push(Entry {
                rule: index,
                topics,
            });
        }
        let mut permissions = Self {
            rules: Arc::clone(rules),
            entries: entries.into(),
            always: [None; 3],
        };
        permissions.always = Action::ALL.map(|action| permissions.only_verdict(action));
        permissions
    }

    /// The rules that these come from.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    fn rule(&self, entry: &Entry) -> Option<&Rule> {
        self.rules.as_slice().get(entry.rule as usize)
    }

    fn only_verdict(&self, action: Action) -> Option<Verdict> {
        for entry in &self.entries {
            let rule = self.rule(entry)?;
            if rule.actions.contains(action) {
                let all =
                    rule.topics.is_empty() && rule.qos == QosSet::ALL && rule.retain.is_none();
                return all.then(|| verdict(entry, rule));
            }
        }
        Some(self.default())
    }

    fn default(&self) -> Verdict {
        Verdict {
            effect: self.rules.default_effect(),
            decided_by: DecidedBy::Default,
        }
    }

    /// Whether the client may do this.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        if let Some(verdict) = self.always(request.action()) {
            return verdict;
        }
        for entry in &self.entries {
            let Some(rule) = self.rule(entry) else {
                continue;
            };
            if rule.is_about(request).is_ok() && entry.takes(rule, request) {
                return verdict(entry, rule);
            }
        }
        self.default()
    }

    /// The highest QoS up to `qos` with which the client may subscribe to a filter.
    #[must_use]
    pub fn subscribe(&self, topic_filter: TopicFilter<'_>, qos: QoS) -> Option<QoS> {
        let lower = QoS::ALL.into_iter().rev().filter(|it| *it <= qos);
        lower
            .map(|qos| Request::Subscribe { topic_filter, qos })
            .find(|request| self.decide(request).is_allowed())
            .map(|request| request.qos())
    }

    /// The verdict on all requests for an action, if it is one and the same.
    #[must_use]
    pub fn always(&self, action: Action) -> Option<Verdict> {
        self.always.get(action as usize).copied().flatten()
    }

    /// Whether the client may be sent whatever it has subscribed to.
    #[must_use]
    pub fn delivers_all(&self) -> bool {
        self.always(Action::Deliver)
            .is_some_and(Verdict::is_allowed)
    }
}

impl Entry {
    fn takes(&self, rule: &Rule, request: &Request<'_>) -> bool {
        match &self.topics {
            Topics::AsWritten => {
                let mut filters = rule.topics.iter().filter_map(|it| it.as_filter());
                rule.topics.is_empty() || filters.any(|filter| rule.takes(filter, request))
            }
            Topics::Expanded(filters) => filters
                .iter()
                .any(|filter| rule.takes(filter.as_filter(), request)),
        }
    }
}

fn verdict(entry: &Entry, rule: &Rule) -> Verdict {
    let effect: Effect = rule.effect;
    Verdict {
        effect,
        decided_by: DecidedBy::Rule(entry.rule as usize),
    }
}
