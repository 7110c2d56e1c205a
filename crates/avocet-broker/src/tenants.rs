//! The file that says who belongs to which tenant, and what tenants may have.

use avocet_engine::{Tenant, TenantQuotas, Tenants};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::access::{AccessError, Problem, line_at, read, table, wrong};
use crate::config::Access;

/// Stands for all tenants without a table of their own.
const OTHERS: &str = "*";

/// Reads the file; none if neither that nor a claim says anything of tenants.
pub(crate) fn load(access: &Access) -> Result<Option<Tenants>, AccessError> {
    if access.tenants.is_none() && access.tenant_claim.is_none() {
        return Ok(None);
    }
    let mut tenants = match &access.tenants {
        Some(path) => {
            let text = read("access.tenants", path)?;
            parse(&text).map_err(|(line, problem)| wrong(path, line, problem))?
        }
        None => Tenants::default(),
    };
    tenants.claim = access.tenant_claim.clone();
    Ok(Some(tenants))
}

fn parse(text: &str) -> Result<Tenants, Problem> {
    let line_at = |at| line_at(text, at);
    let table = table(text)?;
    let mut tenants = Tenants::default();
    let mut others = false;
    for (key, value) in table.get_ref() {
        if key.get_ref() != "tenant" {
            let problem = format!("unknown key {:?}; known is tenant", key.get_ref());
            return Err((line_at(key.span().start), problem));
        }
        let DeValue::Array(items) = value.get_ref() else {
            let problem = "a tenant is a table `[[tenant]]`".to_owned();
            return Err((line_at(value.span().start), problem));
        };
        for item in items {
            let line = line_at(item.span().start);
            let DeValue::Table(table) = item.get_ref() else {
                return Err((line, "a tenant is a table `[[tenant]]`".to_owned()));
            };
            let entry = Entry::read(table, line, line_at)?;
            let twice = match &entry.tenant {
                Some(tenant) => {
                    let known = tenants.quotas.insert(tenant.clone(), entry.quotas);
                    known.is_some()
                }
                None => {
                    tenants.others = entry.quotas;
                    std::mem::replace(&mut others, true)
                }
            };
            if twice {
                let name = entry.tenant.as_ref().map_or(OTHERS, Tenant::as_str);
                return Err((line, format!("there are two tables for {name:?}")));
            }
            for (user, line) in entry.users {
                let Some(tenant) = &entry.tenant else {
                    let problem = format!("{OTHERS:?} is no tenant that a user can belong to");
                    return Err((line, problem));
                };
                let other = tenants.users.insert(user.as_str().into(), tenant.clone());
                if let Some(other) = other {
                    let problem = format!("{user:?} belongs to {other:?} already");
                    return Err((line, problem));
                }
            }
        }
    }
    Ok(tenants)
}

/// One table.
struct Entry {
    /// None for all others.
    tenant: Option<Tenant>,
    users: Vec<(String, usize)>,
    quotas: TenantQuotas,
}

impl Entry {
    fn read(
        table: &DeTable<'_>,
        line: usize,
        line_at: impl Fn(usize) -> usize,
    ) -> Result<Self, Problem> {
        let mut entry = Self {
            tenant: None,
            users: Vec::new(),
            quotas: TenantQuotas::default(),
        };
        let mut named = false;
        for (key, value) in table {
            let line = line_at(value.span().start);
            let quotas = &mut entry.quotas;
            match key.get_ref().as_ref() {
                "name" => {
                    let name = text(value, line)?;
                    named = true;
                    if name != OTHERS {
                        let tenant = Tenant::new(name);
                        let problem = |error| (line, format!("{name:?}: {error}"));
                        entry.tenant = Some(tenant.map_err(problem)?);
                    }
                }
                "users" => {
                    let DeValue::Array(users) = value.get_ref() else {
                        return Err((line, "`users` is a list of texts".to_owned()));
                    };
                    for user in users {
                        let line = line_at(user.span().start);
                        entry.users.push((text(user, line)?.to_owned(), line));
                    }
                }
                "connections_max" => quotas.connections_max = Some(count(value, line)?),
                "sessions_max" => quotas.sessions_max = Some(count(value, line)?),
                "subscriptions_max" => quotas.subscriptions_max = Some(count(value, line)?),
                "retained_messages_max" => quotas.retained_messages_max = Some(count(value, line)?),
                "retained_bytes_max" => quotas.retained_bytes_max = Some(count(value, line)?),
                "publish_messages_per_second" => {
                    quotas.publish_rate.messages_per_second = small(value, line)?;
                }
                "publish_bytes_per_second" => {
                    quotas.publish_rate.bytes_per_second = small(value, line)?;
                }
                unknown => {
                    let line = line_at(key.span().start);
                    let problem = format!(
                        "unknown key {unknown:?}; known are name, users, connections_max, \
                         sessions_max, subscriptions_max, retained_messages_max, \
                         retained_bytes_max, publish_messages_per_second and \
                         publish_bytes_per_second"
                    );
                    return Err((line, problem));
                }
            }
        }
        if named {
            Ok(entry)
        } else {
            Err((line, "a tenant has a `name`".to_owned()))
        }
    }
}

fn text<'a>(value: &'a Spanned<DeValue<'_>>, line: usize) -> Result<&'a str, Problem> {
    if let DeValue::String(text) = value.get_ref()
        && !text.is_empty()
    {
        return Ok(text);
    }
    Err((line, "allowed is a text that is not empty".to_owned()))
}

fn count(value: &Spanned<DeValue<'_>>, line: usize) -> Result<u64, Problem> {
    let number = match value.get_ref() {
        DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        DeValue::String(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    let number = number.filter(|number| *number > 0);
    number.ok_or_else(|| (line, "allowed is an integer from 1".to_owned()))
}

fn small(value: &Spanned<DeValue<'_>>, line: usize) -> Result<u32, Problem> {
    let problem = |_| {
        (
            line,
            format!("allowed is an integer from 1 to {}", u32::MAX),
        )
    };
    u32::try_from(count(value, line)?).map_err(problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn tenants_users_and_quotas_are_read() {
        let text = "[[tenant]]\nname = \"acme\"\nusers = [\"ann\", \"bob\"]\nsessions_max = 1_000\n\
                    publish_messages_per_second = 50\n[[tenant]]\nname = \"*\"\nconnections_max = 0x10\n";
        let tenants = parse(text).unwrap();
        let acme = Tenant::new("acme").unwrap();
        assert_eq!(tenants.users.get("bob"), Some(&acme));
        assert_eq!(tenants.users.len(), 2);
        let quotas = &tenants.quotas[&acme];
        assert_eq!(quotas.sessions_max, Some(1_000));
        assert_eq!(quotas.connections_max, None);
        assert_eq!(quotas.publish_rate.messages_per_second, 50);
        assert_eq!(tenants.others.connections_max, Some(16));
        assert_eq!(parse("").unwrap(), Tenants::default());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, said) in [
            ("tenant = 1", 1, "[[tenant]]"),
            ("[[tenants]]\nname = \"a\"", 1, "known is tenant"),
            ("[[tenant]]\nusers = []", 1, "`name`"),
            ("[[tenant]]\nname = \"a/b\"", 2, "control character"),
            ("[[tenant]]\nname = \"\"", 2, "not empty"),
            ("[[tenant]]\nname = \"a\"\nsession_max = 1", 3, "known are"),
            ("[[tenant]]\nname = \"a\"\nsessions_max = 0", 3, "from 1"),
            (
                "[[tenant]]\nname = \"a\"\npublish_bytes_per_second = 5_000_000_000",
                3,
                "from 1 to",
            ),
            (
                "[[tenant]]\nname = \"a\"\nusers = [\n\"u\", 1]",
                4,
                "a text",
            ),
            ("[[tenant]]\nname = \"*\"\nusers = [\"u\"]", 3, "no tenant"),
            (
                "[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"",
                3,
                "two tables",
            ),
            (
                "[[tenant]]\nname = \"a\"\nusers = [\"u\"]\n[[tenant]]\nname = \"b\"\nusers = [\"u\"]",
                6,
                "already",
            ),
            ("[[tenant", 1, ""),
        ] {
            let (at, problem) = parse(text).unwrap_err();
            assert_eq!(at, line, "{text}: {problem}");
            assert!(problem.contains(said), "{problem}");
        }
    }
}
