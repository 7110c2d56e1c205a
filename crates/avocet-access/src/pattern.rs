//! Topic Filters with placeholders.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use avocet_topic::{TopicFilter, TopicFilterBuf, TopicFilterError};

use crate::identity::{Field, FieldError, Identity};

/// How many Topic Filters one pattern may stand for. A client with more values has none of those
/// beyond, so it cannot make a decision costly.
const FILTERS_MAX: usize = 256;

/// A Topic Filter in which `{client_id}`, `{user}`, `{tenant}`, `{cert_cn}`, `{cert_san}` and `{claim.NAME}`
/// stand for what is known of a client. `{{` and `}}` stand for the braces themselves.
///
/// A value that is empty, or holds `+`, `#`, `/` or U+0000, is never put in: a client cannot choose
/// a name that widens a rule. Neither is one that begins with `$` put in front, since topics that
/// begin so are the server's.
///
/// `{filters:claim.NAME}`, alone, stands for the Topic Filters that are the values of a claim: whoever
/// issues tokens says with them what their holders may do.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicPattern {
    text: Box<str>,
    parts: Parts,
}

#[derive(Clone, PartialEq, Eq)]
enum Parts {
    /// It has no placeholder.
    Plain(TopicFilterBuf),
    Mixed(Vec<Part>),
    /// It is the values of this claim.
    Filters(Field),
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Field),
}

/// What is wrong with a text that was to be a Topic Filter with placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicPatternError {
    /// It is no Topic Filter, whatever the placeholders stand for.
    #[error(transparent)]
    Filter(#[from] TopicFilterError),
    /// A placeholder is none of those known.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A brace without its partner.
    #[error("'{{' and '}}' enclose a placeholder; write '{{{{' and '}}}}' for the characters")]
    Brace,
    /// Topic Filters of something else than a claim, or with something beside them.
    #[error("'{{filters:claim.NAME}}' stands alone, and for claims only")]
    Filters,
    /// It names a group of a Shared Subscription, which rules do not tell apart.
    #[error("a rule is for the topic filter behind '$share/NAME/'")]
    Share,
}

impl TopicPattern {
    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The Topic Filter itself, if it has no placeholder.
    #[must_use]
    pub fn as_filter(&self) -> Option<TopicFilter<'_>> {
        match &self.parts {
            Parts::Plain(filter) => Some(filter.as_filter()),
            Parts::Mixed(_) | Parts::Filters(_) => None,
        }
    }

    /// The first placeholder for which a client has no value that may be put in.
    #[must_use]
    pub fn missing(&self, identity: &Identity) -> Option<&Field> {
        let parts = match &self.parts {
            Parts::Plain(_) => return None,
            Parts::Filters(field) => return self.expand(identity).is_empty().then_some(field),
            Parts::Mixed(parts) => parts,
        };
        let fields = parts
            .iter()
            .enumerate()
            .filter_map(|(at, part)| match part {
                Part::Field(field) => Some((at, field)),
                Part::Text(_) => None,
            });
        let mut missing = fields.filter(|(at, field)| {
            !identity
                .values(field)
                .any(|value| may_stand(value) && (*at > 0 || !value.starts_with('$')))
        });
        missing.next().map(|(_, field)| field)
    }

    /// The Topic Filters that this one stands for with a client: one for each choice of values, so
    /// none if one of them may not be put in.
    pub fn expand(&self, identity: &Identity) -> Vec<TopicFilterBuf> {
        let parts = match &self.parts {
            Parts::Plain(filter) => return [filter.clone()].into(),
            Parts::Filters(field) => {
                let filters = identity.values(field).filter_map(|it| filter(it).ok());
                return filters.take(FILTERS_MAX).collect();
            }
            Parts::Mixed(parts) => parts,
        };
        let mut choices: Vec<Vec<(&Field, &str)>> = [Vec::new()].into();
        for part in parts {
            let Part::Field(field) = part else { continue };
            let known = |choice: &Vec<_>| choice.iter().any(|(other, _)| *other == field);
            if choices.iter().any(known) {
                continue;
            }
            let mut longer = Vec::new();
            for choice in &choices {
                for value in identity.values(field).filter(|value| may_stand(value)) {
                    if longer.len() == FILTERS_MAX {
                        break;
                    }
                    let mut choice = choice.clone();
                    choice.push((field, value));
                    longer.push(choice);
                }
            }
            choices = longer;
        }
        let filters = choices.iter().filter_map(|choice| {
            let mut text = String::new();
            for (at, part) in parts.iter().enumerate() {
                match part {
                    Part::Text(literal) => text.push_str(literal),
                    Part::Field(field) => {
                        let (_, value) = choice.iter().find(|(other, _)| *other == field)?;
                        if at == 0 && value.starts_with('$') {
                            return None;
                        }
                        text.push_str(value);
                    }
                }
            }
            TopicFilterBuf::new(text).ok()
        });
        filters.collect()
    }
}

/// A Topic Filter as rules take it.
fn filter(text: &str) -> Result<TopicFilterBuf, TopicPatternError> {
    if text.starts_with("$share/") {
        return Err(TopicPatternError::Share);
    }
    Ok(TopicFilterBuf::new(text)?)
}

/// Whether a value stands for part of one Topic Level and for nothing else.
fn may_stand(value: &str) -> bool {
    !value.is_empty() && !value.contains(['+', '#', '/', '\0'])
}

impl FromStr for TopicPattern {
    type Err = TopicPatternError;

    fn from_str(text: &str) -> Result<Self, TopicPatternError> {
        if text.contains("{filters:") {
            let inside = text.strip_prefix("{filters:");
            let inside = inside.and_then(|inside| inside.strip_suffix('}'));
            let field: Field = inside.ok_or(TopicPatternError::Filters)?.parse()?;
            if !matches!(field, Field::Claim(_)) {
                return Err(TopicPatternError::Filters);
            }
            return Ok(Self {
                text: text.into(),
                parts: Parts::Filters(field),
            });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, behind)) = split_at_brace(rest) {
            literal.push_str(before);
            if let Some(doubled) = ["{{", "}}"].iter().find(|it| behind.starts_with(**it)) {
                literal.extend(doubled.chars().take(1));
                rest = behind.get(2..).unwrap_or_default();
                continue;
            }
            let inside = behind.strip_prefix('{').ok_or(TopicPatternError::Brace)?;
            let (name, behind) = inside.split_once('}').ok_or(TopicPatternError::Brace)?;
            if !literal.is_empty() {
                parts.push(Part::Text(core::mem::take(&mut literal).into()));
            }
            parts.push(Part::Field(name.parse()?));
            rest = behind;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(Self {
                text: text.into(),
                parts: Parts::Plain(filter(&literal)?),
            });
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        let example: String = parts
            .iter()
            .map(|part| match part {
                Part::Text(literal) => literal,
                Part::Field(_) => "x",
            })
            .collect();
        TopicFilter::new(&example)?;
        if example.starts_with("$share/") {
            return Err(TopicPatternError::Share);
        }
        Ok(Self {
            text: text.into(),
            parts: Parts::Mixed(parts),
        })
    }
}

fn split_at_brace(text: &str) -> Option<(&str, &str)> {
    let at = text.find(['{', '}'])?;
    text.split_at_checked(at)
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
