//! Where settings come from: a TOML file, the environment, flags; what comes later wins.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::{Setting, settings};
use super::value::{Kind, Raw, Value};
use super::{Config, ConfigError, Origin};

/// Gathers settings from several sources into a [`Config`].
#[derive(Debug, Default)]
pub struct ConfigBuilder {
    config: Config,
    origins: HashMap<&'static str, Origin>,
}

impl ConfigBuilder {
    /// Starts from the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => self.toml(&text, path),
            Err(source) => Err(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads TOML; errors name `path` as the place it came from.
    pub fn toml(mut self, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = File { text, path };
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: file.origin(error.span().unwrap_or_default()),
            message: error
                .message()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })?;
        self.table(&file, "", table.get_ref())?;
        Ok(self)
    }

    /// Reads the variables that belong to a setting, out of all of `variables`. Others are left
    /// alone, whatever their name.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        for (name, text) in variables {
            if let Some(setting) = settings().find(|setting| setting.variable() == name) {
                self.set(
                    setting,
                    &Raw::Untyped(text.clone()),
                    text,
                    Origin::Environment { name },
                )?;
            }
        }
        Ok(self)
    }

    /// Sets one setting by its key, as `name`d flag of a command line.
    pub fn flag(mut self, name: &str, key: &str, value: &str) -> Result<Self, ConfigError> {
        let origin = Origin::Flag {
            name: name.to_owned(),
        };
        let setting = find(key, &origin)?;
        self.set(
            setting,
            &Raw::Untyped(value.to_owned()),
            value.to_owned(),
            origin,
        )?;
        Ok(self)
    }

    /// The configuration, if its settings go together.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.config
            .check_with(|key| self.origins.get(key).cloned().unwrap_or(Origin::Program))?;
        Ok(self.config)
    }

    fn table(
        &mut self,
        file: &File<'_>,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        // In the order of the file, so that the first mistake is the one reported.
        let mut items: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        items.sort_by_key(|(key, _)| key.span().start);
        for (name, value) in items {
            let key = format!("{prefix}{}", name.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                let prefix = format!("{key}.");
                if settings().any(|setting| setting.key.starts_with(&prefix)) {
                    self.table(file, &prefix, inner)?;
                    continue;
                }
            }
            let origin = file.origin(name.span());
            let setting = find(&key, &origin)?;
            check_fields(file, &key, setting.kind, value.get_ref())?;
            let shown = file.text(value.span());
            self.set(setting, &raw(value.get_ref()), shown, origin)?;
        }
        Ok(())
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        raw: &Raw,
        shown: String,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let Some(value) = setting.kind.read(raw) else {
            return Err(ConfigError::Value {
                origin,
                key: setting.key.to_owned(),
                value: shown,
                allowed: setting.kind.to_string(),
            });
        };
        (setting.set)(&mut self.config, value);
        self.origins.insert(setting.key, origin);
        Ok(())
    }
}

struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn text(&self, span: Range<usize>) -> String {
        self.text.get(span).unwrap_or_default().to_owned()
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Origin::File {
            path: PathBuf::from(self.path),
            line,
        }
    }
}

/// Names the one field of a table that is wrong, where a setting has fields.
fn check_fields(
    file: &File<'_>,
    key: &str,
    kind: Kind,
    value: &DeValue<'_>,
) -> Result<(), ConfigError> {
    if let DeValue::Array(items) = value {
        for item in items {
            check_fields(file, key, kind, item.get_ref())?;
        }
    }
    let DeValue::Table(table) = value else {
        return Ok(());
    };
    for (name, value) in table {
        let origin = file.origin(name.span());
        let key = format!("{key}.{}", file.text(name.span()));
        let Some(kind) = kind.field(name.get_ref()) else {
            let nearest = None;
            return Err(ConfigError::UnknownKey {
                origin,
                key,
                nearest,
            });
        };
        check_fields(file, &key, kind, value.get_ref())?;
        if kind.read(&raw(value.get_ref())).is_none() {
            return Err(ConfigError::Value {
                origin,
                key,
                value: file.text(value.span()),
                allowed: kind.to_string(),
            });
        }
    }
    Ok(())
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other, Raw::Integer)
        }
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Array(items) => Raw::Array(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), raw(value.get_ref())))
                .collect(),
        ),
        DeValue::Float(_) | DeValue::Datetime(_) => Raw::Other,
    }
}

fn find(key: &str, origin: &Origin) -> Result<&'static Setting, ConfigError> {
    settings()
        .find(|setting| setting.key == key)
        .ok_or_else(|| ConfigError::UnknownKey {
            origin: origin.clone(),
            key: key.to_owned(),
            nearest: nearest(key).map(str::to_owned),
        })
}

/// The setting whose key is most like `key`: with the same last part, or few letters away.
fn nearest(key: &str) -> Option<&'static str> {
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or(key)
    }
    let keys = || settings().map(|setting| setting.key);
    let moved = || keys().find(|known| last(known) == last(key));
    let close = |distance: usize, key: &str| distance <= 2.max(key.len() / 3);
    let by_distance = || {
        let whole = keys().map(|known| (distance(known, key), known));
        let part = keys().map(|known| (distance(last(known), last(key)) + 1, known));
        let (distance, known) = whole.chain(part).min_by_key(|(distance, _)| *distance)?;
        close(distance, last(key)).then_some(known)
    };
    moved().or_else(by_distance)
}

/// How many letters must be added, removed or replaced to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// How `value` would stand in a file.
pub(crate) fn shown(config: &Config, key: &str) -> String {
    let setting = settings().find(|setting| setting.key == key);
    setting
        .map(|setting| (setting.get)(&mut config.clone()))
        .as_ref()
        .map(Value::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ] {
            assert_eq!(distance(a, b), expected);
        }
    }

    #[test]
    fn similar_keys_are_suggested() {
        assert_eq!(nearest("shard"), Some("shards"));
        assert_eq!(nearest("log.fromat"), Some("log.format"));
        assert_eq!(nearest("anonymous"), Some("access.anonymous"));
        assert_eq!(nearest("zzzzzzzz"), None);
    }
}
