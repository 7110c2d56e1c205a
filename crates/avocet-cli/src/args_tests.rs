use super::*;
use crate::transport::Transport;

fn parse(line: &str) -> Result<Command, String> {
    let words = line.split(' ').map(|word| word.replace('_', " "));
    Cli::try_parse_from(std::iter::once("avocet".to_owned()).chain(words))
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

fn publish(line: &str) -> PublishArgs {
    let Command::Pub(args) = parse(&format!("pub {line}")).unwrap() else {
        panic!("another command");
    };
    *args
}

fn subscribe(line: &str) -> SubscribeArgs {
    let Command::Sub(args) = parse(&format!("sub {line}")).unwrap() else {
        panic!("another command");
    };
    *args
}

#[test]
fn the_definitions_are_consistent() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_mosquitto_tools_but_5_0() {
    let args = publish("-t a -m x");
    assert_eq!(
        (args.connection.host.as_str(), args.connection.port),
        ("localhost", None)
    );
    assert_eq!(
        (args.qos, args.retain, args.repeat),
        (QoS::AtMostOnce, false, 1)
    );
    assert_eq!(args.connection.keepalive, 60);
    assert_eq!(args.connection.protocol_version, Version::V5);
    assert!(!args.connection.keep_session);
}

#[test]
fn short_options_are_those_of_mosquitto_pub() {
    let args = publish("-h host -p 99 -t a/b -m -5 -q 2 -r -i me -u user -P pw -V mqttv31 -k 5 -c");
    assert_eq!(
        (args.connection.host.as_str(), args.connection.port),
        ("host", Some(99))
    );
    assert_eq!(args.topic.as_deref(), Some("a/b"));
    assert_eq!(args.payload.message.as_deref(), Some("-5"));
    assert_eq!((args.qos, args.retain), (QoS::ExactlyOnce, true));
    assert_eq!(args.connection.id.as_deref(), Some("me"));
    assert_eq!(args.connection.username.as_deref(), Some("user"));
    assert_eq!(args.connection.password.password.as_deref(), Some("pw"));
    assert_eq!(args.connection.protocol_version, Version::V3_1);
    assert_eq!(args.connection.keepalive, 5);
    assert!(args.connection.keep_session);
}

#[test]
fn short_options_are_those_of_mosquitto_sub() {
    let args = subscribe(
        "-t a/# -t b -T a/b -U c -q 1 -C 3 -W 0.5 -E -R --remove-retained -N -F %t -x 9 -I pre",
    );
    assert_eq!(args.topics, ["a/#", "b"]);
    assert_eq!(
        (args.filter_out, args.unsubscribe),
        (vec!["a/b".into()], vec!["c".into()])
    );
    assert_eq!((args.qos, args.count), (QoS::AtLeastOnce, Some(3)));
    assert_eq!(args.timeout, Some(Duration::from_millis(500)));
    assert!(args.exit_after_subscribe && args.no_retained && args.remove_retained);
    assert!(args.output.no_line_end && args.output.format.is_some());
    assert_eq!(args.connection.session_expiry_interval, Some(9));
    assert_eq!(args.connection.id_prefix.as_deref(), Some("pre"));
}

#[test]
fn every_spelling_of_a_version_is_understood() {
    for (text, version) in [
        ("5", Version::V5),
        ("mqttv5", Version::V5),
        ("311", Version::V3_1_1),
        ("mqttv311", Version::V3_1_1),
        ("31", Version::V3_1),
        ("mqttv31", Version::V3_1),
    ] {
        assert_eq!(
            publish(&format!("-t a -n -V {text}"))
                .connection
                .protocol_version,
            version
        );
    }
}

#[test]
fn properties_are_gathered_three_or_four_words_at_a_time() {
    let args = publish(
        "-D publish user-property n v -t a -D publish content-type x -m y -D will user-property 1 2",
    );
    let words = "publish user-property n v publish content-type x will user-property 1 2";
    assert_eq!(
        args.connection.properties,
        words.split(' ').collect::<Vec<_>>()
    );
    assert_eq!(args.payload.message.as_deref(), Some("y"));
}

#[test]
fn a_url_stands_for_host_port_and_topic() {
    let args = publish("-L mqtt://u:p@h:5/t -m x");
    assert_eq!(
        args.connection.url,
        Some("mqtt://u:p@h:5/t".parse().unwrap())
    );
    assert!(parse("pub -L mqtt://h/t -h other -m x").is_err());
}

#[test]
fn ports_are_those_of_the_transport_unless_given() {
    for (line, expected) in [
        ("", "localhost:1883"),
        ("-h h", "h:1883"),
        ("-h h --tls", "h:8883"),
        ("-h h --insecure -p 1", "h:1"),
        ("-h h --ws", "h:80"),
        ("-h h --ws --cafile ca.pem", "h:443"),
        ("-L mqtt://h", "h:1883"),
        ("-L mqtts://h", "h:8883"),
        ("-L ws://h", "h:80"),
        ("-L wss://h:5/x", "h:5"),
        ("-L mqtt://h --tls", "h:8883"),
        ("-L quic://h", "h:8883"),
        ("-L quic://h:14567/t", "h:14567"),
        ("-L unix:/run/mqtt", "/run/mqtt"),
        ("--unix /run/mqtt --ws", "/run/mqtt"),
    ] {
        let args = publish(format!("-t a -m x {line}").trim()).connection;
        let transport = Transport::new(&args.transport, &args.host, args.port, args.url.as_ref());
        assert_eq!(transport.place.to_string(), expected, "{line}");
        let warns = line.contains("insecure");
        assert_eq!(transport.warning().is_some(), warns, "{line}");
    }
}

#[test]
fn refuses_with_what_is_allowed() {
    for (line, expected) in [
        ("pub -m x", "--topic <TOPIC>"),
        (
            "pub -t a",
            "--message <TEXT>|--file <FILE>|--stdin-line|--null-message|--stdin-file",
        ),
        ("pub -t a -m x -n", "cannot be used with"),
        ("pub -t a -m x -q 3", "allowed are 0, 1 and 2"),
        (
            "pub -t a -m x -V 4.0",
            "allowed are 5 (mqttv5), 311 (mqttv311) and 31 (mqttv31)",
        ),
        ("pub -t a -m x -p 65536", "65536"),
        ("pub -t a -l --repeat 2", "cannot be used with"),
        (
            "pub -t a -m x -L ftp://h",
            "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC",
        ),
        ("sub", "--topic <FILTER>"),
        ("sub -t a -W 0", "allowed are seconds above 0"),
        ("sub -t a -x soon", "and \"never\""),
        ("sub -t a -F %Q", "%Q is unknown"),
        ("sub -t a -R --retained-only", "cannot be used with"),
        ("request -t a -m x", "--response-topic <TOPIC>"),
        ("decode --hex 00 file --binary", "cannot be used with"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn names_options_that_are_not_supported() {
    let args = publish("-t a -m x --psk 00");
    assert_eq!(
        args.connection.unsupported.given(),
        Some(("--psk", "TLS with a key that both sides know"))
    );
    let args = publish("-t a -m x --proxy socks5h://a");
    assert_eq!(
        args.connection.unsupported.given(),
        Some(("--proxy", "connecting through a proxy"))
    );
    assert_eq!(publish("-t a -m x").connection.unsupported.given(), None);
}
