//! What a configuration may hold, and what is said about one that is refused.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::Path;

use avocet_broker::{Config, ConfigBuilder, ConfigError, Durability, LogFormat, Origin};

fn read(text: &str) -> Result<Config, ConfigError> {
    ConfigBuilder::new()
        .toml(text, Path::new("avocet.toml"))?
        .build()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = read("").unwrap();
    assert_eq!(config.listen, ["127.0.0.1:1883".parse().unwrap()]);
    assert_eq!(config.shards, None);
    assert!(!config.access.anonymous);
}

#[test]
fn mistakes_name_the_key_the_value_the_line_and_what_is_allowed() {
    for (text, expected) in [
        (
            "shards = 2\nshard = 3\n",
            "avocet.toml, line 2: unknown setting `shard`; did you mean `shards`?",
        ),
        (
            "anonymous = true",
            "avocet.toml, line 1: unknown setting `anonymous`; did you mean `access.anonymous`?",
        ),
        (
            "[log]\n\nlevel = 'info'",
            "avocet.toml, line 3: unknown setting `log.level`",
        ),
        (
            "[zebra]\nstripes = 1",
            "avocet.toml, line 1: unknown setting `zebra`",
        ),
        (
            "shards = 1000",
            "avocet.toml, line 1: `shards = 1000` is not allowed: it must be an integer from 0 to 256",
        ),
        (
            "# one\nshards = \"two\"",
            "avocet.toml, line 2: `shards = \"two\"` is not allowed: it must be an integer from 0 to 256",
        ),
        (
            "shards = -1",
            "avocet.toml, line 1: `shards = -1` is not allowed: it must be an integer from 0 to 256",
        ),
        (
            "access = true",
            "avocet.toml, line 1: unknown setting `access`",
        ),
        (
            "[access]\nanonymous = 'yes'",
            "avocet.toml, line 2: `access.anonymous = 'yes'` is not allowed: it must be true or false",
        ),
        (
            "log.format = 'xml'",
            "avocet.toml, line 1: `log.format = 'xml'` is not allowed: it must be \"text\" or \"json\"",
        ),
        (
            "log.filter = 'loud=very=much'",
            "avocet.toml, line 1: `log.filter = 'loud=very=much'` is not allowed: it must be a level",
        ),
        (
            "stop_timeout = 5",
            "avocet.toml, line 1: `stop_timeout = 5` is not allowed: it must be a time with its unit",
        ),
        (
            "listen = '1883'",
            "avocet.toml, line 1: `listen = '1883'` is not allowed: it must be HOST:PORT",
        ),
        (
            "shards = 1\nlisten = [\"0.0.0.0:1883\"]",
            "avocet.toml, line 2: `listen = [\"0.0.0.0:1883\"]` is refused: other machines could \
             reach 0.0.0.0:1883, and anyone could connect, since there is no authentication; set \
             `password_file` in section `[access]` to a file that `avocet passwd` makes",
        ),
        (
            "data_dir = '/var/lib/avocet'\ndurability = 'quorum'",
            "avocet.toml, line 2: `durability = 'quorum'` is not allowed: it must be \"fsync\", \
             \"os\" or \"memory\"",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\ndurability = 'disk'",
            "avocet.toml, line 3: `listen.durability = 'disk'` is not allowed: it must be \"fsync\", \
             \"os\" or \"memory\"",
        ),
        (
            "listen = [\n  '127.0.0.1:1',\n  { address = '1884' },\n]",
            "avocet.toml, line 3: `listen.address = '1884'` is not allowed: it must be HOST:PORT",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\nssl = true",
            "avocet.toml, line 3: unknown setting `listen.ssl`",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\n[listen.tls]\nkey = 'a'",
            "avocet.toml, line 3: `listen.tls = [listen.tls]` is not allowed: it must be a table with a \
             `certificate` and its `key`",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\n[listen.tls]\ncertificate = ['a', 'b']\nkey = 'a'",
            "avocet.toml, line 3: `listen.tls = [listen.tls]` is not allowed: it must be a table with a \
             `certificate` and its `key`, or as many of the one as of the other",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\n[listen.tls]\nuser = 'name'",
            "avocet.toml, line 4: `listen.tls.user = 'name'` is not allowed: it must be \"cn\", \"san\" \
             or \"dn\"",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\n[listen.tls]\ncafile = 'name'",
            "avocet.toml, line 4: unknown setting `listen.tls.cafile`",
        ),
        (
            "listen = { address = '127.0.0.1:1', tls = { certificate = 'a', key = 'b', user = 'cn' } }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", tls = { certificate = [\"a\"], \
             key = [\"b\"], user = \"cn\" } }]` is refused: without `client_ca` no client is asked",
        ),
        (
            "listen = { address = '127.0.0.1:1', websocket = { path = 'mqtt' } }",
            "avocet.toml, line 1: `listen.websocket.path = 'mqtt'` is not allowed: it must be a path that \
             begins with a slash",
        ),
        (
            "listen = { address = '127.0.0.1:1', websocket = { origins = ['a.example'] } }",
            "avocet.toml, line 1: `listen.websocket.origins = ['a.example']` is not allowed: it must be \
             \"*\", a web site",
        ),
        (
            "listen = { address = '127.0.0.1:1', websocket = 'yes' }",
            "avocet.toml, line 1: `listen.websocket = 'yes'` is not allowed: it must be true, false or a \
             table",
        ),
        (
            "listen = { address = '127.0.0.1:1', quic = true }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", quic = true }]` is refused: \
             QUIC needs `tls`",
        ),
        (
            "listen = { address = 'unix:/a', quic = true }",
            "avocet.toml, line 1: `listen = [{ address = \"unix:/a\", quic = true }]` is refused: QUIC \
             needs an IP address",
        ),
        (
            "listen = { address = '127.0.0.1:1', proxy_protocol = true }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", proxy_protocol = true }]` is \
             refused: `proxy_protocol` needs `trusted_proxies`",
        ),
        (
            "listen = { address = '127.0.0.1:1', trusted_proxies = '10.0.0.0/8' }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", trusted_proxies = \
             [\"10.0.0.0/8\"] }]` is refused: `trusted_proxies` says whom to believe",
        ),
        (
            "listen = { address = '127.0.0.1:1', trusted_proxies = ['10.0.0.0/33'] }",
            "avocet.toml, line 1: `listen.trusted_proxies = ['10.0.0.0/33']` is not allowed: it must be \
             an IP address, a network",
        ),
        (
            "listen = { address = '127.0.0.1:1', proxy_protocol = true, trusted_proxies = '::1' }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", proxy_protocol = true, \
             trusted_proxies = [\"::1/128\"] }]` is refused: other machines could reach",
        ),
        (
            "listen = { address = '127.0.0.1:1', handshake_timeout = '0s' }",
            "avocet.toml, line 1: `listen.handshake_timeout = '0s'` is not allowed: it must be a time",
        ),
        (
            "listen = { address = '127.0.0.1:1', idle_timeout = '1m' }",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", idle_timeout = \"1m\" }]` is \
             refused: only QUIC has an `idle_timeout`",
        ),
        (
            "listen = { address = '127.0.0.1:1', quic = true, idle_timeout = '2d' }",
            "avocet.toml, line 1: `listen.idle_timeout = '2d'` is not allowed: it must be a time",
        ),
        (
            "[[listen]]\naddress = 'unix:/run/mqtt'\nmode = 'rw'",
            "avocet.toml, line 3: `listen.mode = 'rw'` is not allowed: it must be three octal digits",
        ),
        (
            "listen = [{ address = '127.0.0.1:1', mode = '600' }]",
            "avocet.toml, line 1: `listen = [{ address = \"127.0.0.1:1\", mode = \"600\" }]` is \
             refused: only Unix sockets have a `mode`",
        ),
        (
            "listen = ['127.0.0.1:1', 'unix:a', '[::1]:1', 'unix:a']",
            "avocet.toml, line 1: `listen = [\"127.0.0.1:1\", \"unix:a\", \"[::1]:1\", \"unix:a\"]` \
             is refused: unix:a is listened on twice",
        ),
        (
            "listen = { durability = 'os' }",
            "avocet.toml, line 1: `listen = { durability = 'os' }` is not allowed: it must be HOST:PORT",
        ),
        (
            "data_dir = 'a'\n[topic_durability]\n'a/' = 'os'\n'b/' = 'disk'",
            "avocet.toml, line 4: `topic_durability.'b/' = 'disk'` is not allowed: it must be \
             \"fsync\", \"os\" or \"memory\"",
        ),
        (
            "topic_durability = { 'a/#' = 'os' }",
            "avocet.toml, line 1: `topic_durability = { 'a/#' = 'os' }` is not allowed: it must be a \
             table of beginnings of Topic Names, without + and #, each with \"fsync\", \"os\" or \
             \"memory\"",
        ),
        (
            "topic_durability = 'os'",
            "avocet.toml, line 1: `topic_durability = 'os'` is not allowed: it must be a table",
        ),
        (
            "data_dir = 'a'\n[topic_durability]\n'a/' = 'fsync'\n'a/b/' = 'os'",
            "avocet.toml, line 2: `topic_durability = { \"a/\" = \"fsync\", \"a/b/\" = \"os\" }` is \
             refused: \"a/b/\" cannot be \"os\": \"a/\" is \"fsync\", and the strictest that fits counts",
        ),
        (
            "[topic_durability]\n'a/' = 'os'",
            "avocet.toml, line 1: `topic_durability = { \"a/\" = \"os\" }` is refused: nothing is \
             stored without a folder for it; set `data_dir`",
        ),
        ("shards = \n", "avocet.toml, line 1: not valid TOML: "),
        (
            "shards = 1\nshards = 2\n",
            "avocet.toml, line 2: not valid TOML: duplicate key",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(
            error.starts_with(expected),
            "{text}\n  gives {error}\n  not   {expected}"
        );
    }
}

#[test]
fn a_public_listener_needs_anonymous_access_to_be_allowed() {
    for address in ["0.0.0.0:1883", "[::]:1883", "192.0.2.7:1883"] {
        let text = format!("listen = '{address}'");
        assert!(matches!(read(&text), Err(ConfigError::Refused { key, .. }) if key == "listen"));
        assert!(read(&format!("{text}\naccess.anonymous = true")).is_ok());
        assert!(read(&format!("{text}\naccess.password_file = 'users'")).is_ok());
    }
    for address in [
        "127.0.0.1:1883",
        "127.8.9.10:1883",
        "[::1]:0",
        "localhost:1883",
    ] {
        assert!(read(&format!("listen = '{address}'")).is_ok(), "{address}");
    }
}

#[test]
fn levels_are_given_by_listener_and_by_topic() {
    let config = read(
        "data_dir = 'data'
        durability = 'os'
        [[listen]]
        address = '127.0.0.1:1'
        [[listen]]
        address = '127.0.0.1:2'
        durability = 'memory'
        [topic_durability]
        'alarm/' = 'fsync'",
    )
    .unwrap();
    let levels: Vec<_> = config.listen.iter().map(|it| it.durability).collect();
    assert_eq!(levels, [None, Some(Durability::Memory)]);
    let alarm = ("alarm/".to_owned(), Durability::Fsync);
    assert_eq!(config.topic_durability, [alarm]);
    assert!(config.is_durable());

    let pairs = [("AVOCET_DATA_DIR", "data"), ("AVOCET_DURABILITY", "memory")];
    let builder = || ConfigBuilder::new().environment(variables(&pairs)).unwrap();
    assert!(!builder().build().unwrap().is_durable());
    let builder = builder().flag("--set", "topic_durability", "a/=os,b/=memory");
    assert!(builder.unwrap().build().unwrap().is_durable());
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let builder = ConfigBuilder::new()
        .toml(
            "shards = 1\nlisten = '127.0.0.1:1'\nlog.format = 'json'",
            Path::new("a.toml"),
        )
        .unwrap()
        .environment(variables(&[
            ("AVOCET_LISTEN", "127.0.0.1:2,127.0.0.1:3"),
            ("AVOCET_SHARDS", "2"),
            ("AVOCET_LOG", "debug"),
            ("AVOCET_PORT", "tcp://10.0.0.1:1883"),
            ("PATH", "/bin"),
        ]))
        .unwrap()
        .flag("--shards", "shards", "3")
        .unwrap();
    let config = builder.build().unwrap();
    assert_eq!(
        config.listen,
        [
            "127.0.0.1:2".parse().unwrap(),
            "127.0.0.1:3".parse().unwrap()
        ]
    );
    assert_eq!(config.shards.unwrap().get(), 3);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn a_mistake_outside_of_the_file_names_its_place() {
    let error = ConfigBuilder::new()
        .environment(variables(&[("AVOCET_SHARDS", "many")]))
        .unwrap_err()
        .to_string();
    let expected = "environment variable AVOCET_SHARDS: `shards = many` is not allowed: it must be \
                    an integer from 0 to 256";
    assert_eq!(error, expected);

    let error = ConfigBuilder::new()
        .flag("--set", "shrads", "1")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "flag --set: unknown setting `shrads`; did you mean `shards`?"
    );

    let builder = ConfigBuilder::new().environment(variables(&[("AVOCET_LISTEN", "0.0.0.0:1")]));
    let Err(ConfigError::Refused { origin, key, .. }) = builder.unwrap().build() else {
        panic!("a listener that anyone can reach was accepted");
    };
    assert_eq!(
        origin,
        Origin::Environment {
            name: "AVOCET_LISTEN".to_owned()
        }
    );
    assert_eq!(key, "listen");
}

#[test]
fn a_missing_file_is_named() {
    let error = ConfigBuilder::new()
        .file(Path::new("/no/such/avocet.toml"))
        .unwrap_err();
    let expected = "cannot read the configuration file /no/such/avocet.toml: ";
    assert!(error.to_string().starts_with(expected));
}

#[test]
fn the_documentation_lists_every_setting_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let marker = "<!-- The list below is what `avocet-broker settings` prints; a test compares them. -->\n\n";
    let (above, listed) = page.split_once(marker).expect("the marker");
    if std::env::var_os("AVOCET_UPDATE_DOCS").is_some() {
        std::fs::write(
            path,
            format!("{above}{marker}{}", avocet_broker::reference()),
        )
        .unwrap();
    } else {
        assert_eq!(
            listed,
            avocet_broker::reference(),
            "set AVOCET_UPDATE_DOCS=1 to write it anew"
        );
    }
}

#[test]
fn every_default_can_be_written_in_a_file() {
    let reference = avocet_broker::reference();
    let mut text = String::new();
    for line in reference.lines() {
        if let Some(section) = line.strip_prefix("### `") {
            text += section.trim_end_matches('`');
            text += "\n";
        } else if let Some(setting) = line.strip_prefix("**`") {
            text += setting.split_once("`**").unwrap().0;
            text += "\n";
        }
    }
    let config = read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}
