//! Rules in their order: the first one that is about a request decides.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use avocet_topic::{TopicFilter, TopicName};

use crate::identity::{Field, Identity};
use crate::rule::{Action, Condition, Effect, QoS, Rule, RuleError};

/// What a client wants, or is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// To publish a message, or to leave it as its Will.
    Publish {
        /// To this topic.
        topic_name: TopicName<'a>,
        /// With this QoS.
        qos: QoS,
        /// With this RETAIN flag.
        retain: bool,
    },
    /// To subscribe; a Shared Subscription is judged by the filter behind its Share Name.
    Subscribe {
        /// To this filter.
        topic_filter: TopicFilter<'a>,
        /// With this QoS.
        qos: QoS,
    },
    /// To be sent a message.
    Deliver {
        /// Of this topic.
        topic_name: TopicName<'a>,
        /// With this QoS.
        qos: QoS,
        /// With this RETAIN flag.
        retain: bool,
    },
}

impl Request<'_> {
    /// Which action it is.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::Publish { .. } => Action::Publish,
            Self::Subscribe { .. } => Action::Subscribe,
            Self::Deliver { .. } => Action::Deliver,
        }
    }

    /// With which QoS.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        match self {
            Self::Publish { qos, .. } | Self::Subscribe { qos, .. } | Self::Deliver { qos, .. } => {
                *qos
            }
        }
    }

    /// With which RETAIN flag; none for a subscription.
    #[must_use]
    pub const fn retain(&self) -> Option<bool> {
        match self {
            Self::Publish { retain, .. } | Self::Deliver { retain, .. } => Some(*retain),
            Self::Subscribe { .. } => None,
        }
    }
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The rule with this index.
    Rule(usize),
    /// No rule was about it.
    Default,
}

/// Whether something may be done, and what decided that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be done.
    pub effect: Effect,
    /// What decided it.
    pub decided_by: DecidedBy,
}

impl Verdict {
    /// Whether it may be done.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        self.effect == Effect::Allow
    }
}

/// Why a rule did not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// It is about other actions.
    Action,
    /// It is about clients with, or without, a User Name.
    Anonymous,
    /// It is about clients with other values of this field.
    Field(Field),
    /// It is about other QoS.
    Qos,
    /// It is about messages with the other RETAIN flag.
    Retain,
    /// It is about other topics.
    Topic,
    /// Nothing may be put in for this placeholder.
    Placeholder(Field),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Action => f.write_str("is about other actions"),
            Self::Anonymous => f.write_str("is about clients with or without a user name"),
            Self::Field(field) => write!(f, "is about another {field}"),
            Self::Qos => f.write_str("is about other QoS"),
            Self::Retain => f.write_str("is about messages with another RETAIN flag"),
            Self::Topic => f.write_str("is about other topics"),
            Self::Placeholder(field) => write!(
                f,
                "has no value for {{{field}}} (none is known, or it is empty or holds + # /)"
            ),
        }
    }
}

/// A verdict, and why the rules before did not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// For each rule before the one that decided, in order.
    pub passed_over: Vec<Mismatch>,
}

/// Rules in their order. What none of them is about has the default, which denies.
///
/// As text ([`fmt::Display`]) they are TOML that [`Rules::from_toml`] reads, behind a feature. They are
/// equal if they say the same, wherever they stand.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Box<[Rule]>,
    default: Effect,
    /// Where each rule stands in the text that they come from; empty if they come from none.
    pub(crate) lines: Box<[u32]>,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules && self.default == other.default
    }
}

impl Eq for Rules {}

impl Rules {
    /// These rules in this order; `default` is for what no rule is about.
    pub fn new(rules: impl Into<Box<[Rule]>>, default: Effect) -> Result<Self, RuleError> {
        let rules = rules.into();
        rules.iter().try_for_each(Rule::check)?;
        let lines = Box::default();
        Ok(Self {
            rules,
            default,
            lines,
        })
    }

    /// Everything is allowed to everybody.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            default: Effect::Allow,
            ..Self::default()
        }
    }

    /// The rules in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// The line where a rule begins, from 1, if the rules come from a text.
    #[must_use]
    pub fn line(&self, index: usize) -> Option<u32> {
        self.lines.get(index).copied()
    }

    /// What is said of what no rule is about.
    #[must_use]
    pub fn default_effect(&self) -> Effect {
        self.default
    }

    /// Whether a client may do something, slow and obvious: what [`Permissions`](crate::Permissions)
    /// answers faster.
    #[must_use]
    pub fn decide(&self, identity: &Identity, request: &Request<'_>) -> Verdict {
        self.explain(identity, request).verdict
    }

    /// The same, with the reason why each rule before did not decide.
    #[must_use]
    pub fn explain(&self, identity: &Identity, request: &Request<'_>) -> Explanation {
        let mut passed_over = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            match judge(rule, identity, request) {
                Ok(()) => {
                    let verdict = Verdict {
                        effect: rule.effect,
                        decided_by: DecidedBy::Rule(index),
                    };
                    return Explanation {
                        verdict,
                        passed_over,
                    };
                }
                Err(mismatch) => passed_over.push(mismatch),
            }
        }
        Explanation {
            verdict: Verdict {
                effect: self.default,
                decided_by: DecidedBy::Default,
            },
            passed_over,
        }
    }
}

/// Whether a rule is about what a client wants.
fn judge(rule: &Rule, identity: &Identity, request: &Request<'_>) -> Result<(), Mismatch> {
    rule.is_for(identity).map_err(|condition| match condition {
        Condition::Anonymous(_) => Mismatch::Anonymous,
        Condition::Is(field, _) => Mismatch::Field(field.clone()),
    })?;
    rule.is_about(request)?;
    if rule.topics.is_empty() {
        return Ok(());
    }
    let mut missing = None;
    for pattern in &rule.topics {
        let filters = pattern.expand(identity);
        if filters
            .iter()
            .any(|filter| rule.takes(filter.as_filter(), request))
        {
            return Ok(());
        }
        missing = missing.or_else(|| pattern.missing(identity));
    }
    Err(missing.map_or(Mismatch::Topic, |field| {
        Mismatch::Placeholder(field.clone())
    }))
}
