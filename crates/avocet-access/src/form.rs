//! Rules as they are written: what each key of a rule may hold.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};

use crate::identity::Field;
use crate::pattern::TopicPattern;
use crate::rule::{Action, Actions, Condition, Effect, QoS, Rule, RuleError};
use crate::rules::Rules;

/// A text is no rules.
#[cfg(feature = "toml")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct RulesError {
    /// The line in the text, from 1.
    pub line: usize,
    /// What is wrong there, and what is allowed.
    pub problem: alloc::string::String,
}

impl Rules {
    /// Rules as TOML: `default` is `"deny"` or `"allow"`, each `[[rule]]` one rule.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, RulesError> {
        let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        let parsed = toml::from_str(text).and_then(|rules: Self| {
            let places: Places = toml::from_str(text)?;
            Ok((rules, places))
        });
        let (mut rules, places) = parsed.map_err(|error| RulesError {
            line: line(error.span().map_or(0, |span| span.start)),
            problem: error.message().trim().replace('\n', "; "),
        })?;
        let lines = places.rule.iter().map(|rule| line(rule.span().start));
        rules.lines = lines.filter_map(|line| line.try_into().ok()).collect();
        Ok(rules)
    }
}

/// Where the rules stand in a text.
#[cfg(feature = "toml")]
#[derive(Deserialize)]
struct Places {
    #[serde(default)]
    rule: Vec<toml::Spanned<serde::de::IgnoredAny>>,
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            #[serde(default)]
            default: Word<Effect>,
            #[serde(default)]
            rule: Vec<Rule>,
        }
        let form = Form::deserialize(deserializer)?;
        Self::new(form.rule, form.default.0).map_err(Error::custom)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            #[serde(default)]
            name: Box<str>,
            allow: Option<ActionsForm>,
            deny: Option<ActionsForm>,
            topic: Option<List<TopicPattern>>,
            qos: Option<List<QoS>>,
            retain: Option<bool>,
            anonymous: Option<bool>,
            user: Option<List<Box<str>>>,
            client_id: Option<List<Box<str>>>,
            tenant: Option<List<Box<str>>>,
            cert_cn: Option<List<Box<str>>>,
            cert_san: Option<List<Box<str>>>,
            #[serde(default)]
            claim: BTreeMap<Box<str>, List<Box<str>>>,
        }
        let form = Form::deserialize(deserializer)?;
        let (effect, actions) = match (form.allow, form.deny) {
            (Some(actions), None) => (Effect::Allow, actions.0),
            (None, Some(actions)) => (Effect::Deny, actions.0),
            (Some(_), Some(_)) | (None, None) => return Err(Error::custom(RuleError::Effect)),
        };
        let mut conditions: Vec<_> = form
            .anonymous
            .map(Condition::Anonymous)
            .into_iter()
            .collect();
        let fields = [
            (Field::User, form.user),
            (Field::ClientId, form.client_id),
            (Field::Tenant, form.tenant),
            (Field::CertCn, form.cert_cn),
            (Field::CertSan, form.cert_san),
        ];
        for (field, values) in fields {
            conditions.extend(values.map(|values| Condition::Is(field, values.0)));
        }
        for (name, values) in form.claim {
            conditions.push(Condition::Is(Field::Claim(name), values.0));
        }
        let rule = Self {
            name: form.name,
            effect,
            actions,
            conditions,
            topics: form.topic.map(|topics| topics.0).unwrap_or_default(),
            qos: form
                .qos
                .map(|qos| qos.0.into_iter().collect())
                .unwrap_or_default(),
            retain: form.retain,
        };
        rule.check().map_err(Error::custom)?;
        Ok(rule)
    }
}

/// What one item of a rule is written as.
trait Item: Sized {
    /// What is allowed, for messages.
    const ALLOWED: &'static str;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Str(text), &Self::ALLOWED))
    }

    fn from_number<E: Error>(number: i64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Signed(number), &Self::ALLOWED))
    }
}

impl Item for Box<str> {
    const ALLOWED: &'static str = "a text or a list of texts";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Ok(text.into())
    }
}

impl Item for TopicPattern {
    const ALLOWED: &'static str = "a topic filter or a list of topic filters";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        text.parse()
            .map_err(|error| E::custom(format_args!("{text:?}: {error}")))
    }
}

impl Item for QoS {
    const ALLOWED: &'static str = "0, 1, 2 or a list of these";

    fn from_number<E: Error>(number: i64) -> Result<Self, E> {
        let qos = u8::try_from(number).ok().and_then(Self::from_u8);
        qos.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &Self::ALLOWED))
    }
}

impl Item for Action {
    const ALLOWED: &'static str =
        "\"publish\", \"subscribe\", \"deliver\", a list of these, or \"all\"";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        let mut named = Self::ALL.into_iter().filter(|it| it.name() == text);
        named
            .next()
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &Self::ALLOWED))
    }
}

impl Item for Effect {
    const ALLOWED: &'static str = "\"allow\" or \"deny\"";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(E::invalid_value(Unexpected::Str(text), &Self::ALLOWED)),
        }
    }
}

/// One item, and no list.
#[derive(Default)]
struct Word<T>(T);

/// One item or several; an empty list is refused, because it reads as "any" and would be none.
struct List<T>(Vec<T>);

struct ActionsForm(Actions);

struct ItemVisitor<T>(PhantomData<T>);

impl<T: Item> Visitor<'_> for ItemVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ALLOWED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_number(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::from_number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<'de, T: Item> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ItemVisitor(PhantomData))
            .map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Item> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ALLOWED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::from_text(text).map(|item| [item].into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
        T::from_number(number).map(|item| [item].into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(Word(item)) = seq.next_element::<Word<T>>()? {
            items.push(item);
        }
        if items.is_empty() {
            return Err(A::Error::custom(
                "an empty list; leave the key out, or name what the rule is about",
            ));
        }
        Ok(items)
    }
}

impl<'de, T: Item> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ListVisitor(PhantomData))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for ActionsForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllVisitor;

        impl<'de> Visitor<'de> for AllVisitor {
            type Value = Actions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Action::ALLOWED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Actions, E> {
                if text == "all" {
                    return Ok(Actions::ALL);
                }
                Action::from_text(text).map(|action| [action].into_iter().collect())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Actions, A::Error> {
                let actions: Vec<Action> = ListVisitor(PhantomData).visit_seq(seq)?;
                Ok(actions.into_iter().collect())
            }
        }

        deserializer.deserialize_any(AllVisitor).map(Self)
    }
}
