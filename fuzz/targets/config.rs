//! Configurations in all their forms: each is a value or an error that names the setting, or the
//! line. What an error shows as it would stand in a file is read as the same value.
//!
//! The input is text: a TOML file; behind a NUL character, `NAME=value` of the environment; behind
//! each further one, `key=value` of a flag.

#![no_main]

use std::path::Path;

use avocet_broker::{Config, ConfigBuilder, ConfigError, Origin};
use avocet_fuzz::asks_dns;
use libfuzzer_sys::fuzz_target;

const FILE: &str = "avocet.toml";

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let assigned = |text| str::split_once(text, '=');
    let variable = parts.next().and_then(assigned);
    let flags: Vec<_> = parts.filter_map(assigned).collect();
    if listeners(file).iter().any(|text| asks_dns(text))
        || variable.is_some_and(|(_, value)| asks_dns(value))
        || flags.iter().any(|(_, value)| asks_dns(value))
    {
        return;
    }
    match load(file, variable, &flags) {
        Ok(config) => config.check().expect("it was checked"),
        Err(error) => check(&error, file),
    }
});

fn load(
    file: &str,
    variable: Option<(&str, &str)>,
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let mut builder = ConfigBuilder::new().toml(file, Path::new(FILE))?;
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    builder = builder.environment(variable.map(owned))?;
    for (key, value) in flags {
        builder = builder.flag("--set", key, value)?;
    }
    builder.build()
}

fn check(error: &ConfigError, file: &str) {
    let text = error.to_string();
    match error {
        ConfigError::Syntax { origin, .. } => check_line(origin, file),
        ConfigError::UnknownKey { origin, key, .. } => {
            assert!(text.contains(key), "{text}");
            check_line(origin, file);
        }
        ConfigError::Value { origin, key, .. } => {
            assert!(text.contains(key), "{text}");
            check_line(origin, file);
        }
        ConfigError::Refused {
            origin, key, value, ..
        } => {
            assert!(text.contains(key), "{text}");
            check_line(origin, file);
            let again = load(&format!("{key} = {value}"), None, &[]);
            let Err(ConfigError::Refused {
                key: key_again,
                value: value_again,
                ..
            }) = again
            else {
                panic!("{text}: {again:?}");
            };
            assert_eq!((key_again, value_again), (key.clone(), value.clone()));
        }
        other => panic!("no file was read: {other:?}"),
    }
}

fn check_line(origin: &Origin, file: &str) {
    match origin {
        Origin::File { path, line } => {
            assert_eq!(path, Path::new(FILE));
            assert!((1..=file.split('\n').count()).contains(line), "line {line}");
        }
        Origin::Environment { name } => assert!(name.starts_with("AVOCET_")),
        Origin::Flag { name } => assert_eq!(name, "--set"),
        other => panic!("{other:?}"),
    }
}

fn listeners(file: &str) -> Vec<String> {
    let Ok(table) = file.parse::<toml::Table>() else {
        return Vec::new();
    };
    let texts = match table.get("listen") {
        Some(toml::Value::Array(texts)) => texts.clone(),
        Some(text) => vec![text.clone()],
        None => Vec::new(),
    };
    let address = |listener: &toml::Value| listener.get("address").unwrap_or(listener).clone();
    let texts: Vec<_> = texts.iter().map(address).collect();
    let texts = texts.iter().filter_map(toml::Value::as_str);
    texts.map(str::to_owned).collect()
}
