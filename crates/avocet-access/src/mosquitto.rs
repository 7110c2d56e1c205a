//! The ACL files of mosquitto, said as rules.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::identity::Field;
use crate::pattern::{TopicPattern, TopicPatternError};
use crate::rule::{Action, Actions, Condition, Effect, Rule};
use crate::rules::Rules;

/// A line of an ACL file that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
#[non_exhaustive]
pub struct AclError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: AclProblem,
}

/// What is wrong with a line of an ACL file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AclProblem {
    /// It begins with none of the words that there are.
    #[error("unknown word {0:?}; allowed are `user`, `topic`, `pattern` and comments with `#`")]
    Word(String),
    /// `user` without a name.
    #[error("`user` without a name")]
    UserMissing,
    /// `topic` or `pattern` without a topic.
    #[error("no topic; a line is `{0} [read|write|readwrite|deny] TOPIC`")]
    TopicMissing(&'static str),
    /// What stands in front of the topic is no kind of access.
    #[error("unknown access {0:?}; allowed are `read`, `write`, `readwrite` and `deny`")]
    Access(String),
    /// The topic is no Topic Filter.
    #[error("{0:?}: {1}")]
    Topic(String, TopicPatternError),
}

/// An ACL file of mosquitto as rules that allow and deny the same.
///
/// In mosquitto, `deny` counts before everything else of the same user, patterns come last, and
/// lines before the first `user` are for clients without a User Name. Subscribing is free, and
/// `read` decides what is delivered: so the last rule allows every subscription. The one
/// difference: a Client Identifier or a User Name that holds a `/` is never put in for `%c` or `%u`.
pub fn import_acl(text: &str) -> Result<Rules, AclError> {
    let mut of_users: [Vec<Rule>; 2] = Default::default();
    let mut of_all: [Vec<Rule>; 2] = Default::default();
    let mut whose = Condition::Anonymous(true);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |problem| AclError {
            line: number,
            problem,
        };
        let (word, rest) = split_word(line);
        match word {
            "user" if rest.is_empty() => return Err(failed(AclProblem::UserMissing)),
            "user" => whose = Condition::Is(Field::User, [Box::from(rest)].into()),
            "topic" => {
                let mut rule = rule("topic", rest).map_err(failed)?;
                rule.name = format!("mosquitto line {number}").into();
                rule.conditions.push(whose.clone());
                add(&mut of_users, rule);
            }
            "pattern" => {
                let mut rule = rule("pattern", rest).map_err(failed)?;
                rule.name = format!("mosquitto line {number}").into();
                add(&mut of_all, rule);
            }
            _ => return Err(failed(AclProblem::Word(word.to_string()))),
        }
    }
    let mut rules: Vec<Rule> = of_users.into_iter().chain(of_all).flatten().collect();
    let mut last = Rule::new(Effect::Allow, [Action::Subscribe].into_iter().collect());
    last.name = "mosquitto judges what is delivered, not subscriptions".into();
    rules.push(last);
    // None of these has what makes a rule contradict itself.
    Ok(Rules::new(rules, Effect::Deny).unwrap_or_default())
}

fn add([denying, allowing]: &mut [Vec<Rule>; 2], rule: Rule) {
    match rule.effect {
        Effect::Deny => denying.push(rule),
        Effect::Allow => allowing.push(rule),
    }
}

fn split_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (word, rest.trim())
}

fn rule(word: &'static str, rest: &str) -> Result<Rule, AclProblem> {
    let (access, topic) = match split_word(rest) {
        ("", _) => return Err(AclProblem::TopicMissing(word)),
        // One word is the topic, whatever it is.
        (topic, "") => ("readwrite", topic),
        both => both,
    };
    let (effect, actions): (_, &[Action]) = match access {
        "read" => (Effect::Allow, &[Action::Deliver]),
        "write" => (Effect::Allow, &[Action::Publish]),
        "readwrite" => (Effect::Allow, &[Action::Publish, Action::Deliver]),
        "deny" => (Effect::Deny, &[Action::Publish, Action::Deliver]),
        _ => return Err(AclProblem::Access(access.to_string())),
    };
    let mut pattern = topic.replace('{', "{{").replace('}', "}}");
    if word == "pattern" {
        pattern = pattern.replace("%c", "{client_id}").replace("%u", "{user}");
    }
    let pattern: Result<TopicPattern, _> = pattern.parse();
    let pattern = pattern.map_err(|error| AclProblem::Topic(topic.to_string(), error))?;
    let actions: Actions = actions.iter().copied().collect();
    let mut rule = Rule::new(effect, actions);
    rule.topics.push(pattern);
    Ok(rule)
}
