//! One rule: for whom it is, what it is about, and what it says.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use avocet_topic::TopicFilter;

use crate::identity::{Field, Identity};
use crate::pattern::TopicPattern;
use crate::rules::{Mismatch, Request};

/// What a rule says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// It may be done.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// What can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client publishes a message, or leaves one as its Will.
    Publish,
    /// A client subscribes.
    Subscribe,
    /// A client is sent a message that it has subscribed to.
    Deliver,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Deliver];

    /// Its name in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Deliver => "deliver",
        }
    }
}

/// Some actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    /// These in their order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        let all = Action::ALL.into_iter();
        all.filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let bits = actions.into_iter().map(|action| 1 << action as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// Quality of Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    /// 0.
    AtMostOnce,
    /// 1.
    AtLeastOnce,
    /// 2.
    ExactlyOnce,
}

impl QoS {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// The one with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Some of the QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QosSet(u8);

impl QosSet {
    /// All of them.
    pub const ALL: Self = Self(0b111);

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, qos: QoS) -> bool {
        self.0 & (1 << qos as u8) != 0
    }

    /// These, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = QoS> {
        QoS::ALL.into_iter().filter(move |qos| self.contains(*qos))
    }
}

impl Default for QosSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromIterator<QoS> for QosSet {
    fn from_iter<I: IntoIterator<Item = QoS>>(all: I) -> Self {
        let bits = all.into_iter().map(|qos| 1 << qos as u8);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// What must be so of a client for a rule to be about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Whether it has no User Name.
    Anonymous(bool),
    /// One of the values of its field is one of these.
    Is(Field, Vec<Box<str>>),
}

impl Condition {
    fn holds(&self, identity: &Identity) -> bool {
        match self {
            Self::Anonymous(wanted) => identity.user.is_none() == *wanted,
            Self::Is(field, wanted) => identity
                .values(field)
                .any(|value| wanted.iter().any(|wanted| **wanted == *value)),
        }
    }
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// What people call it; its number is its name if this is empty.
    pub name: Box<str>,
    /// What it says.
    pub effect: Effect,
    /// What it is about.
    pub actions: Actions,
    /// For whom it is: all of these hold; everybody if there is none.
    pub conditions: Vec<Condition>,
    /// Topics it is about; all topics if there is none, those that begin with `$` too.
    pub topics: Vec<TopicPattern>,
    /// The QoS of a message, or asked for in a subscription.
    pub qos: QosSet,
    /// The RETAIN flag of a message; a rule that asks for one is not about subscriptions.
    pub retain: Option<bool>,
}

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It says neither or both.
    #[error("a rule has either `allow` or `deny`")]
    Effect,
    /// It asks for a RETAIN flag that subscriptions do not have.
    #[error("`retain` is for messages: a rule that has it cannot be about \"subscribe\"")]
    Retain,
}

impl Rule {
    /// A rule for everybody and all topics.
    #[must_use]
    pub fn new(effect: Effect, actions: Actions) -> Self {
        Self {
            effect,
            actions,
            ..Self::default()
        }
    }

    /// Whether it goes together.
    pub(crate) fn check(&self) -> Result<(), RuleError> {
        if self.retain.is_some() && self.actions.contains(Action::Subscribe) {
            return Err(RuleError::Retain);
        }
        Ok(())
    }

    /// Whether it is about a client.
    pub(crate) fn is_for(&self, identity: &Identity) -> Result<(), &Condition> {
        let mut failed = self.conditions.iter().filter(|it| !it.holds(identity));
        failed.next().map_or(Ok(()), Err)
    }

    /// Whether it is about a request, but for its topic.
    pub(crate) fn is_about(&self, request: &Request<'_>) -> Result<(), Mismatch> {
        if !self.actions.contains(request.action()) {
            return Err(Mismatch::Action);
        }
        if !self.qos.contains(request.qos()) {
            return Err(Mismatch::Qos);
        }
        match (self.retain, request.retain()) {
            (Some(wanted), Some(retain)) if wanted != retain => Err(Mismatch::Retain),
            (Some(_), None) => Err(Mismatch::Retain),
            (Some(_), Some(_)) | (None, _) => Ok(()),
        }
    }

    /// Whether one of its topics decides about what a request is about.
    ///
    /// A subscription is allowed only by a filter that covers all of it, and denied by one that has
    /// any topic in common with it.
    pub(crate) fn takes(&self, filter: TopicFilter<'_>, request: &Request<'_>) -> bool {
        match request {
            Request::Publish { topic_name, .. } | Request::Deliver { topic_name, .. } => {
                avocet_topic::matches(filter, *topic_name)
            }
            Request::Subscribe { topic_filter, .. } => {
                let wanted = behind_share(*topic_filter);
                match self.effect {
                    Effect::Allow => crate::covers(filter, wanted),
                    Effect::Deny => crate::overlaps(filter, wanted),
                }
            }
        }
    }
}

/// What a subscription takes messages from, shared or not.
fn behind_share(filter: TopicFilter<'_>) -> TopicFilter<'_> {
    match filter.share() {
        Ok(Some(share)) => share.topic_filter,
        // One that breaks the rules for Shared Subscriptions matches nothing.
        Ok(None) | Err(_) => filter,
    }
}
