//! `avocet acl`: what rules say, without a broker.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use avocet_access::{Identity, QoS, Request, Rules, import_acl};

use crate::access_args::{AclAction, AclArgs, ExplainArgs, Wish};
use crate::exit::Failure;

pub(crate) fn run(args: &AclArgs) -> Result<(), Failure> {
    match &args.action {
        AclAction::Explain(args) => explain(args),
        AclAction::Import { file } => {
            let text = read(file)?;
            let rules = import_acl(&text).map_err(|error| at(file, error.line, error.problem))?;
            print(format_args!(
                "# The rules of {}, for `access.rules` of avocet-broker.\n{rules}",
                file.display()
            ))
        }
        AclAction::Check { file } => {
            let rules = load(file)?;
            let count = rules.as_slice().len();
            let rules_are = if count == 1 { "rule" } else { "rules" };
            let default = rules.default_effect();
            print(format_args!("{count} {rules_are}, else {default}\n"))
        }
    }
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let rules = load(&args.rules)?;
    let mut identity = Identity::new(&args.id, args.username.as_deref());
    identity.tenant = args.tenant.as_deref().unwrap_or_default().into();
    identity.cert_cn = args.cert_cn.as_deref().map(Box::from);
    identity.cert_san = args
        .cert_san
        .iter()
        .map(|name| Box::from(&**name))
        .collect();
    for (name, value) in &args.claim {
        let values = identity.claims.entry(Box::from(&**name)).or_default();
        values.push(Box::from(&**value));
    }
    let qos = QoS::from_u8(args.qos).unwrap_or(QoS::ExactlyOnce);
    let retain = args.retain;
    let request = match &args.wish {
        Wish::Publish { topic } => Request::Publish {
            topic_name: topic.as_name(),
            qos,
            retain,
        },
        Wish::Subscribe { filter } => Request::Subscribe {
            topic_filter: filter.as_filter(),
            qos,
        },
        Wish::Deliver { topic } => Request::Deliver {
            topic_name: topic.as_name(),
            qos,
            retain,
        },
    };
    let explanation = rules.explain(&identity, &request);
    let mut text = String::new();
    for (index, mismatch) in explanation.passed_over.iter().enumerate() {
        let rule = rules.describe(avocet_access::DecidedBy::Rule(index));
        text.push_str(&format!("{rule} {mismatch}\n"));
    }
    let verdict = explanation.verdict;
    let decided_by = rules.describe(verdict.decided_by);
    print(format_args!("{text}{}: {decided_by}\n", verdict.effect))?;
    if verdict.is_allowed() {
        Ok(())
    } else {
        Err(Failure::Denied)
    }
}

fn load(file: &Path) -> Result<Rules, Failure> {
    let text = read(file)?;
    Rules::from_toml(&text).map_err(|error| at(file, error.line, error.problem))
}

/// A file as text; `-` is standard input.
fn read(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))
}

fn at(file: &Path, line: usize, problem: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}:{line}: {problem}", file.display()))
}

fn print(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)
        .and_then(|()| out.flush())
        .map_err(Failure::output)
}
