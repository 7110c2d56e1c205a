//! What the documentation says of settings is so, and its configurations start.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::fs;
use std::path::Path;

use avocet_broker::ConfigBuilder;

use certificates::Authority;
use common::{DataDir, Server};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::read_to_string(path.join(name)).unwrap()
}

/// What stands in blocks of this language.
fn examples<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = text.split(begin.as_str()).skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
    blocks.collect()
}

#[test]
fn configurations_and_rules_on_pages_are_accepted() {
    for page in [
        "access.md",
        "configuration.md",
        "from-mosquitto.md",
        "limits.md",
        "listeners.md",
        "running.md",
        "tenants.md",
    ] {
        let text = document(page);
        let examples = examples(&text, "toml");
        assert_ne!(examples.len(), 0, "{page}");
        // Bans and tenants are in files that are read elsewhere.
        let elsewhere = ["# bans.toml", "# tenants.toml"];
        let is_read = |example: &&&str| !elsewhere.iter().any(|it| example.starts_with(it));
        for example in examples.iter().filter(is_read) {
            let problem = if example.contains("[[rule]]") {
                let rules = avocet_access::Rules::from_toml(example);
                rules.err().map(|error| error.to_string())
            } else {
                let config = ConfigBuilder::new().toml(example, Path::new(page));
                let config = config.and_then(ConfigBuilder::build);
                config.err().map(|error| error.to_string())
            };
            assert_eq!(problem, None, "{example}");
        }
    }
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The columns of all tables of two.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let rows = text.lines().filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        line.split_once(" | ")
    });
    rows.filter(|(_, here)| *here != "here")
}

/// Why there is no such setting, or why it cannot have this value.
fn problem(span: &str) -> Option<String> {
    let (key, value) = span.split_once(" = ").unwrap_or((span, ""));
    // A key of a listener stands in its table, and without a value it is only looked for.
    let text = match key.strip_prefix("listen.") {
        Some(key) => format!("[[listen]]\naddress = '127.0.0.1:0'\n{key} = 0\n"),
        None if value.is_empty() => format!("{key} = 0\n"),
        None => format!("{span}\n"),
    };
    let read = ConfigBuilder::new().toml(&text, Path::new("a line"));
    let error = read.err()?.to_string();
    (!value.is_empty() || error.contains("unknown setting")).then_some(error)
}

/// A setting, and no command, value or file.
fn is_setting(span: &str) -> bool {
    let key = span.split(" = ").next().unwrap();
    let in_key =
        |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._".contains(char);
    let named = span.contains(" = ") || key.contains('.');
    named && key.chars().all(in_key) && !key.starts_with('.')
}

#[test]
fn what_lines_of_mosquitto_become_are_settings() {
    let text = document("from-mosquitto.md");
    let mut settings = 0;
    for (_, here) in rows(&text) {
        for span in spans(here).filter(|span| is_setting(span)) {
            assert_eq!(problem(span), None, "{span} in: {here}");
            settings += 1;
        }
    }
    assert!(settings > 40, "{settings}");
    assert!(problem("listen.tls.cafile").unwrap().contains("unknown"));
    assert!(problem("queue.length = 7").is_some());
    assert!(problem("queue.qos0 = 7").is_some());
}

#[test]
fn every_line_of_mosquitto_becomes_something_or_nothing_for_a_reason() {
    let text = document("from-mosquitto.md");
    for (there, here) in rows(&text) {
        let says = here.starts_with("none")
            || here.starts_with("always")
            || here.contains('`')
            || here.contains("](");
        assert!(says && !there.is_empty(), "{there} | {here}");
    }
    // Those of its manual, but for bridges.
    for option in [
        "accept_protocol_versions",
        "acl_file",
        "allow_anonymous",
        "allow_duplicate_messages",
        "allow_zero_length_clientid",
        "auth_plugin",
        "auto_id_prefix",
        "autosave_interval",
        "autosave_on_changes",
        "bind_address",
        "bind_interface",
        "cafile",
        "capath",
        "certfile",
        "check_retain_source",
        "ciphers",
        "clientid_prefixes",
        "connection_messages",
        "crlfile",
        "dhparamfile",
        "disable_client_cert_date_checks",
        "enable_control_api",
        "enable_proxy_protocol",
        "global_max_clients",
        "global_max_connections",
        "global_plugin",
        "http_dir",
        "include_dir",
        "keyfile",
        "listener",
        "listener_allow_anonymous",
        "listener_auto_id_prefix",
        "log_dest",
        "log_facility",
        "log_timestamp",
        "log_timestamp_format",
        "log_type",
        "max_connections",
        "max_inflight_bytes",
        "max_inflight_messages",
        "max_keepalive",
        "max_packet_size",
        "max_qos",
        "max_queued_bytes",
        "max_queued_messages",
        "max_topic_alias",
        "memory_limit",
        "message_size_limit",
        "mount_point",
        "packet_buffer_size",
        "password_file",
        "per_listener_settings",
        "persistence",
        "persistence_file",
        "persistence_location",
        "persistent_client_expiration",
        "pid_file",
        "plugin",
        "plugin_load",
        "port",
        "protocol",
        "proxy_protocol_v2_require_tls",
        "psk_file",
        "psk_hint",
        "queue_qos0_messages",
        "require_certificate",
        "retain_available",
        "retain_expiry_interval",
        "set_tcp_nodelay",
        "socket_domain",
        "sys_interval",
        "tls_engine",
        "tls_keyform",
        "tls_version",
        "upgrade_outgoing_qos",
        "use_identity_as_username",
        "use_subject_as_username",
        "use_username_as_clientid",
        "user",
        "websockets_headers_size",
        "websockets_log_level",
        "websockets_origin",
    ] {
        let names = |(there, _): (&str, &str)| {
            spans(there).any(|span| span.split(' ').next() == Some(option))
        };
        assert!(rows(&text).any(names), "{option}");
    }
}

const USERS: &str = "ann:$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==\n";

/// All files that configurations name below /etc/avocet.
fn files() -> DataDir {
    let dir = DataDir::new();
    fs::create_dir_all(dir.0.join("tls")).unwrap();
    fs::write(dir.0.join("passwd"), USERS).unwrap();
    let rule = "[[rule]]\nallow = 'all'\ntopic = 'devices/{user}/#'\n";
    fs::write(dir.0.join("rules.toml"), rule).unwrap();
    let tenants = include_str!("../../../docs/tenants.md");
    let (_, tenants) = tenants.split_once("# tenants.toml\n").unwrap();
    let (tenants, _) = tenants.split_once("```").unwrap();
    fs::write(dir.0.join("tenants.toml"), tenants).unwrap();
    let tls = dir.0.join("tls");
    let authority = Authority::new(&tls, "ca");
    authority.revoke(&[]);
    let broker = authority.issue("localhost");
    fs::rename(broker.certificate, tls.join("broker.pem")).unwrap();
    fs::rename(broker.key, tls.join("broker.key")).unwrap();
    dir
}

#[cfg(unix)]
#[test]
fn configurations_of_the_documentation_are_fine_and_start() {
    let dir = files();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let here = dir.0.to_str().unwrap();
        let text = ["/etc/avocet", "/var/lib/avocet", "/run/avocet"]
            .iter()
            .fold(text, |text, place| text.replace(place, here));
        let config = dir.0.join("avocet.toml");
        fs::write(&config, &text).unwrap();
        let mut check = common::command();
        let output = check
            .arg("check")
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());

        // The same at ports that are free.
        let free = |line: &str| match line.split_once("address = \"") {
            Some((_, address)) if !address.starts_with("unix:") => {
                "address = \"127.0.0.1:0\"\n".to_owned()
            }
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(free).collect();
        fs::write(&config, text).unwrap();
        let mut command = common::command();
        command.arg("--config").arg(&config);
        let server = Server::spawn(command);
        server.terminate();
        count += 1;
    }
    assert_eq!(count, 4);
}

/// Each limit is on its page with its default, and with a counter that there is.
#[test]
fn every_limit_is_named_with_what_happens_beyond_it() {
    let (text, reference) = (document("limits.md"), avocet_broker::reference());
    let limits = reference.split("### `[limits]`").nth(1).unwrap();
    let limits = limits.split("### ").next().unwrap();
    let keys = limits.split("**`").skip(1);
    let keys = keys.map(|rest| rest.split_once("`**").unwrap().0.split_once(" = ").unwrap());
    let defaults: Vec<_> = keys.collect();
    assert!(defaults.len() > 30);
    for (key, _) in &defaults {
        assert!(text.contains(&format!("`limits.{key}`")), "limits.{key}");
    }
    // The names of all counters, and of all reasons for a drop.
    let counters = format!("{:?}", avocet_engine::Counters::default());
    let drops = avocet_engine::DropReason::ALL.map(|reason| format!("{reason:?}"));
    let is_counter = |name: &str| {
        counters.contains(&format!(" {name}: ")) || drops.iter().any(|drop| drop == name)
    };
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.split(" | ").collect();
        let [_, setting, default, told, told_before, counter] = cells[..] else {
            continue;
        };
        if setting == "setting" {
            continue;
        }
        rows += 1;
        for cell in [default, told, told_before, counter.trim_end_matches(" |")] {
            assert!(!cell.trim().is_empty(), "{line}");
        }
        for span in spans(setting).filter(|span| is_setting(span)) {
            assert_eq!(problem(span), None, "{line}");
        }
        for span in spans(counter) {
            assert!(is_counter(span), "{span} in: {line}");
        }
        let key = spans(setting)
            .next()
            .and_then(|span| span.strip_prefix("limits."));
        let known = defaults.iter().find(|(name, _)| Some(*name) == key);
        let number = default.replace(',', "");
        if let Some((_, known)) = known.filter(|_| number.bytes().all(|it| it.is_ascii_digit())) {
            assert_eq!(number, *known, "{line}");
        }
    }
    assert!(rows > 50, "{rows}");
}
