//! Rules as the TOML that people write.

use core::fmt::{self, Write as _};

use crate::identity::Field;
use crate::rule::{Action, Actions, Condition, QosSet, Rule};
use crate::rules::{DecidedBy, Rules};

impl Rules {
    /// What decided, for people: `rule 3 "own topics" (line 12)`, or `the default`.
    #[must_use]
    pub fn describe(&self, decided_by: DecidedBy) -> impl fmt::Display {
        fmt::from_fn(move |f| match decided_by {
            DecidedBy::Default => f.write_str("the default, since no rule is about it"),
            DecidedBy::Rule(index) => {
                write!(f, "rule {}", index + 1)?;
                if let Some(rule) = self.as_slice().get(index)
                    && !rule.name.is_empty()
                {
                    write!(f, " {}", Quoted(&rule.name))?;
                }
                self.line(index)
                    .map_or(Ok(()), |line| write!(f, " (line {line})"))
            }
        })
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "default = \"{}\"", self.default_effect())?;
        for rule in self.as_slice() {
            write!(f, "\n{rule}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[rule]]")?;
        if !self.name.is_empty() {
            writeln!(f, "name = {}", Quoted(&self.name))?;
        }
        for condition in &self.conditions {
            match condition {
                Condition::Anonymous(wanted) => writeln!(f, "anonymous = {wanted}")?,
                Condition::Is(Field::Claim(name), values) => {
                    write!(f, "claim.{} = ", Quoted(name))?;
                    list(f, values.iter().map(|value| Quoted(value)))?;
                }
                Condition::Is(field, values) => {
                    write!(f, "{field} = ")?;
                    list(f, values.iter().map(|value| Quoted(value)))?;
                }
            }
        }
        write!(f, "{} = ", self.effect)?;
        if self.actions == Actions::ALL {
            writeln!(f, "\"all\"")?;
        } else {
            list(f, self.actions.iter().map(Action::name).map(Quoted))?;
        }
        if !self.topics.is_empty() {
            write!(f, "topic = ")?;
            list(f, self.topics.iter().map(|topic| Quoted(topic.as_str())))?;
        }
        if self.qos != QosSet::ALL {
            write!(f, "qos = ")?;
            list(f, self.qos.iter().map(|qos| qos as u8))?;
        }
        if let Some(retain) = self.retain {
            writeln!(f, "retain = {retain}")?;
        }
        Ok(())
    }
}

/// One item as it is, several in brackets.
fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    let mut items = items.peekable();
    let Some(first) = items.next() else {
        return writeln!(f, "[]");
    };
    if items.peek().is_none() {
        return writeln!(f, "{first}");
    }
    write!(f, "[{first}")?;
    for item in items {
        write!(f, ", {item}")?;
    }
    writeln!(f, "]")
}

/// A text as a TOML string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                char if char.is_control() => write!(f, "\\u{:04X}", u32::from(char))?,
                char => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}
