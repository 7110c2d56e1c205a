//! The binary against a server of one connection, in this process.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what fails here is to fail the test"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};

use avocet_codec::{Publish, QoS, ReasonCode, TopicName, Will};
use avocet_session::{
    Accept, ConnectionEvent, Details, Instant, Limits, Message, Now, Outgoing, ServerConfig,
    ServerConnection, ServerEvent, TransmitBuf, UnixTime,
};

/// What the server does, and what it saw.
#[derive(Default)]
struct Server {
    refuse: Option<ReasonCode>,
    refuse_subscriptions: bool,
    refuse_messages: bool,
    /// Sent after SUBACK.
    sends: Vec<Message>,
    /// Answers each message at its Response Topic.
    responds: bool,
    /// What CONNECT said.
    connect: String,
    received: Vec<String>,
    requests: Vec<String>,
    end: String,
}

fn now() -> Now {
    Now::new(Instant::ORIGIN, UnixTime::from_millis(1_700_000_000_000))
}

fn message(topic: &str, payload: &str) -> Message {
    Message::new(TopicName::new(topic).unwrap(), payload.as_bytes())
}

impl Server {
    /// Serves one connection in a thread; the port, and what it saw at the end.
    fn start(self) -> (u16, JoinHandle<Self>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (
            port,
            spawn(move || self.serve(listener.accept().unwrap().0)),
        )
    }

    fn serve(mut self, mut stream: TcpStream) -> Self {
        let mut connection = ServerConnection::new(Arc::new(ServerConfig::default()), now());
        let mut input = Vec::new();
        loop {
            let mut out = TransmitBuf::new(1 << 20);
            connection.poll_transmit(now(), &mut out);
            for slice in out.slices() {
                if stream.write_all(slice).is_err() {
                    connection.handle_closed(now());
                }
            }
            while let Some(event) = connection.poll_event() {
                if let ConnectionEvent::Closed(reason) = event {
                    self.end = reason.to_string();
                    return self;
                }
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => connection.handle_closed(now()),
                Ok(length) => input.extend_from_slice(&chunk[..length]),
            }
            loop {
                let read = connection.handle_input(&input, now());
                let consumed = read.consumed;
                self.on_event(read.event, &mut connection);
                input.drain(..consumed);
                if consumed == 0 {
                    break;
                }
            }
        }
    }

    fn on_event(&mut self, event: Option<ServerEvent<'_>>, connection: &mut ServerConnection) {
        match event {
            Some(ServerEvent::Connect(connect)) => {
                self.connect = format!(
                    "{} {:?} clean {} keep alive {} user {:?} password {:?} expiry {} will {}",
                    connect.version,
                    connect.client_id,
                    connect.clean_start,
                    connect.keep_alive,
                    connect.user_name,
                    connect.password.map(String::from_utf8_lossy),
                    connect.properties.session_expiry_interval,
                    connect
                        .will
                        .map_or_else(|| "none".into(), |will| of_will(&will)),
                );
                match self.refuse {
                    Some(code) => connection.refuse(code, Details::default(), now()),
                    None => connection.accept(Default::default(), Accept::default(), now()),
                }
            }
            Some(ServerEvent::Publish { publish, token }) => {
                let packet = publish.packet();
                self.received.push(of_publish(&packet));
                if let Some(token) = token {
                    let code = if self.refuse_messages {
                        ReasonCode::NotAuthorized
                    } else {
                        ReasonCode::Success
                    };
                    connection.acknowledge(token, code, None).unwrap();
                }
                if let Some(topic_name) = packet.properties.response_topic()
                    && self.responds
                {
                    send(connection, message(topic_name.as_str(), "not for you"));
                    let response =
                        Message::with_properties(topic_name, &packet.properties, b"the answer");
                    send(connection, response.unwrap());
                }
            }
            Some(ServerEvent::Subscribe(subscribe)) => {
                for filter in subscribe.filters {
                    let qos = filter.options.maximum_qos;
                    self.requests
                        .push(format!("+{} {qos}", filter.topic_filter));
                }
                let code = if self.refuse_subscriptions {
                    ReasonCode::NotAuthorized
                } else {
                    ReasonCode::GrantedQoS2
                };
                let codes = vec![code; subscribe.filters.len()];
                connection
                    .suback(subscribe.packet_id, &codes, None, now())
                    .unwrap();
                self.sends
                    .drain(..)
                    .for_each(|message| send(connection, message));
            }
            Some(ServerEvent::Unsubscribe(unsubscribe)) => {
                for filter in unsubscribe.filters {
                    self.requests.push(format!("-{filter}"));
                }
                let codes = vec![ReasonCode::Success; unsubscribe.filters.len()];
                connection
                    .unsuback(unsubscribe.packet_id, &codes, None, now())
                    .unwrap();
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
}

fn send(connection: &mut ServerConnection, message: Message) {
    let session = connection.session_mut().unwrap();
    let _ = session.enqueue(Outgoing::new(message), &Limits::default(), now());
}

fn of_will(will: &Will<'_>) -> String {
    let payload = String::from_utf8_lossy(will.payload);
    format!(
        "{}={payload} qos {} retain {} delay {}",
        will.topic_name, will.qos, will.retain, will.will_delay_interval
    )
}

fn of_publish(publish: &Publish<'_>) -> String {
    let payload = String::from_utf8_lossy(publish.payload);
    let retain = if publish.retain { " retain" } else { "" };
    format!(
        "{}={payload} qos {}{retain}",
        publish.topic_name.unwrap(),
        publish.qos()
    )
}

fn avocet(arguments: &str, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
    command.args(arguments.split(' ').map(|word| word.replace('_', " ")));
    if port != 0 {
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    }
    command
}

/// Runs it with this standard input.
fn run(arguments: &str, input: &str, server: Server) -> (Output, Server) {
    let (port, server) = server.start();
    let mut child = avocet(arguments, port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (output, server.join().unwrap())
}

/// Runs it where it never gets to connect.
fn fails(arguments: &str) -> (Option<i32>, String) {
    let output = avocet(arguments, 0).stdin(Stdio::null()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

const NORMAL: &str = "disconnected by the peer: normal disconnection";

#[test]
fn publishes_a_message_in_every_version_at_every_qos() {
    for version in ["31", "311", "5"] {
        for qos in ["0", "1", "2"] {
            let arguments = format!("pub -t a/b -m hello -r -V {version} -q {qos}");
            let (output, server) = run(&arguments, "", Server::default());
            assert_eq!(text(&output.stderr), "");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(server.received, [format!("a/b=hello qos {qos} retain")]);
            assert_eq!(server.end, NORMAL);
        }
    }
}

#[test]
fn publishes_lines_standard_input_and_nothing() {
    for (arguments, input, expected) in [
        (
            "pub -t a -l -q 1",
            "1\n2\r\n3",
            vec!["a=1 qos 1", "a=2 qos 1", "a=3 qos 1"],
        ),
        ("pub -t a -s", "1\n2\n", vec!["a=1\n2\n qos 0"]),
        ("pub -t a -f -", "1", vec!["a=1 qos 0"]),
        ("pub -t a -n -r", "", vec!["a= qos 0 retain"]),
        (
            "pub -t a -m x --repeat 2",
            "",
            vec!["a=x qos 0", "a=x qos 0"],
        ),
    ] {
        let (output, server) = run(arguments, input, Server::default());
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert_eq!(server.received, expected, "{arguments}");
    }
}

#[test]
fn a_password_or_a_token_may_be_in_a_file() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/token");
    for (held, sent) in [("ey.J.x\n", "ey.J.x"), ("a b\r\n", "a b"), ("c\n\n", "c\n")] {
        std::fs::write(path, held).unwrap();
        let (output, server) = run(
            &format!("pub -t a -n --pw-file {path}"),
            "",
            Server::default(),
        );
        assert_eq!(text(&output.stderr), "");
        let expected = format!("user None password Some({sent:?})");
        assert!(server.connect.contains(&expected), "{}", server.connect);
    }
    #[cfg(unix)]
    {
        let (_, server) = run(
            "pub -t a -n --pw-file /dev/stdin",
            "piped\n",
            Server::default(),
        );
        assert!(
            server.connect.contains("password Some(\"piped\")"),
            "{}",
            server.connect
        );
    }
    std::fs::write(path, "\n").unwrap();
    for (arguments, expected) in [
        (format!("--pw-file {path}"), "token is empty"),
        (
            "--pw-file /no/such/file".to_owned(),
            "--pw-file: cannot read /no/such/file",
        ),
        (format!("-P x --pw-file {path}"), "cannot be used with"),
    ] {
        let (code, said) = fails(&format!("pub -t a -n {arguments}"));
        assert!(code != Some(0) && said.contains(expected), "{said}");
    }
}

#[test]
fn says_in_connect_what_the_options_say() {
    for (arguments, expected) in [
        (
            "-i me -u user -P pass -k 7 -c --will-topic w --will-payload gone --will-qos 1 \
             --will-retain -D will will-delay-interval 3",
            "5.0 \"me\" clean false keep alive 7 user Some(\"user\") password Some(\"pass\") \
             expiry 4294967295 will w=gone qos 1 retain true delay 3",
        ),
        (
            "-V 311",
            "3.1.1 \"\" clean true keep alive 60 user None password None expiry 0 will none",
        ),
        (
            "-x 9 -i me",
            "5.0 \"me\" clean true keep alive 60 user None password None expiry 9 will none",
        ),
    ] {
        let (output, server) = run(&format!("pub -t a -n {arguments}"), "", Server::default());
        assert_eq!(text(&output.stderr), "");
        assert_eq!(server.connect, expected);
    }
}

#[test]
fn a_refused_connection_ends_with_the_code_of_connack() {
    for (version, code, message) in [("311", 5, "not authorized"), ("5", 0x87, "not authorized")] {
        let refuse = Some(ReasonCode::NotAuthorized);
        let arguments = format!("pub -t a -m x -V {version}");
        let (output, _) = run(
            &arguments,
            "",
            Server {
                refuse,
                ..Server::default()
            },
        );
        assert_eq!(output.status.code(), Some(code));
        let expected = format!("avocet: the server refused the connection: {message}\n");
        assert_eq!(text(&output.stderr), expected);
    }
}

#[test]
fn a_refused_message_or_subscription_is_an_error() {
    let server = Server {
        refuse_messages: true,
        ..Server::default()
    };
    let (output, server) = run("pub -t a -l -q 1", "1\n2\n", server);
    assert_eq!((output.status.code(), server.received.len()), (Some(1), 2));
    assert!(text(&output.stderr).contains("messages the server refused: 2"));
    let server = Server {
        refuse_subscriptions: true,
        ..Server::default()
    };
    let (output, _) = run("sub -t a -t b", "", server);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("-t a: the server refused: not authorized"),
        "{errors}"
    );
    assert!(
        errors.contains("the server refused every subscription"),
        "{errors}"
    );
}

#[test]
fn prints_messages_as_asked() {
    let sends = || {
        vec![
            message("a/1", "one"),
            message("a/2", "two").with_qos(QoS::ExactlyOnce),
        ]
    };
    for (arguments, expected) in [
        ("sub -t a/# -C 2", "one\ntwo\n"),
        ("sub -t a/# -C 2 -v", "a/1 one\na/2 two\n"),
        ("sub -t a/# -C 2 -N", "onetwo"),
        (
            "sub -t a/# -C 2 -q 2 -F %t:%q:%l:%x",
            "a/1:0:3:6f6e65\na/2:2:3:74776f\n",
        ),
        ("sub -t a/# -T a/1 -C 1", "two\n"),
    ] {
        let (output, server) = run(
            arguments,
            "",
            Server {
                sends: sends(),
                ..Server::default()
            },
        );
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), expected)
        );
        assert_eq!(server.end, NORMAL);
    }
    let (output, _) = run(
        "sub -t a/# -C 1 --json",
        "",
        Server {
            sends: sends(),
            ..Server::default()
        },
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["topic"], &json["payload"]),
        (&"a/1".into(), &"one".into())
    );
}

#[test]
fn retained_messages_are_printed_left_out_or_removed() {
    let sends = || vec![message("a", "old").with_retain(true), message("a", "new")];
    for (arguments, expected) in [
        ("sub -t a -R -C 1", "new\n"),
        ("sub -t a --retained-only", "old\n"),
        ("sub -t a -C 2 --remove-retained", "old\nnew\n"),
    ] {
        let (output, server) = run(
            arguments,
            "",
            Server {
                sends: sends(),
                ..Server::default()
            },
        );
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), expected)
        );
        let removed = arguments.contains("--remove");
        assert_eq!(server.received == ["a= qos 1 retain"], removed);
    }
}

#[test]
fn subscribes_and_unsubscribes_as_asked() {
    let (output, server) = run("sub -t a -t b/# -U c -q 1 -E", "", Server::default());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(server.requests, ["-c", "+a 1", "+b/# 1"]);
    let (output, server) = run("sub -U c", "", Server::default());
    assert_eq!(
        (output.status.code(), server.requests),
        (Some(0), vec!["-c".into()])
    );
}

#[test]
fn a_timeout_has_its_own_exit_code() {
    // Long enough to connect, whatever else the machine does: the time runs from the start.
    for arguments in ["sub -t a -W 3", "request -t a -e b -m x -W 3"] {
        let (output, server) = run(arguments, "", Server::default());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(27), ""));
        assert_eq!(server.end, NORMAL);
    }
}

#[test]
fn a_request_prints_its_own_response() {
    let server = Server {
        responds: true,
        ..Server::default()
    };
    let (output, server) = run("request -t ask -e answers -m why -v", "", server);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "answers the answer\n")
    );
    assert_eq!(server.requests, ["+answers 0"]);
    assert_eq!(server.received, ["ask=why qos 0"]);
}

/// The reader went away, as `head -1` does.
#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let sends = (0..2000)
        .map(|count| message("a", &format!("{count:0100}")))
        .collect();
    let (port, server) = Server {
        sends,
        ..Server::default()
    }
    .start();
    let mut child = avocet("sub -t a", port)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 101];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert_eq!(server.join().unwrap().end, NORMAL);
}

#[test]
fn a_signal_ends_a_subscriber_in_order() {
    for signal in ["-INT", "-TERM"] {
        let sends = vec![message("a", "x")];
        let (port, server) = Server {
            sends,
            ..Server::default()
        }
        .start();
        let mut child = avocet("sub -t a", port)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 2];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let pid = child.id().to_string();
        assert!(
            // The shell has `kill` built in; the program of that name is not everywhere.
            Command::new("sh")
                .args(["-c", "kill \"$@\"", "kill"])
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(server.join().unwrap().end, NORMAL);
    }
}

#[test]
fn decodes_hexadecimal_text_and_bytes() {
    let output = avocet("decode --hex c000 d0_00", 0).output().unwrap();
    let expected = "     0      2  PINGREQ\n     2      2  PINGRESP\n";
    assert_eq!(text(&output.stdout), expected);
    let mut child = avocet("decode -V 5", 0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&[0xC0, 0, 0xD0, 0, 0xFF])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(1), expected)
    );
    assert!(text(&output.stderr).starts_with("avocet: at byte 4: "));
}

#[test]
fn errors_say_what_is_wrong_with_which_option() {
    for (arguments, expected) in [
        (
            "pub -t a/# -m x",
            "-t \"a/#\": topic name contains a wildcard",
        ),
        ("sub -t a/#/b", "-t \"a/#/b\": "),
        ("sub -t a -T b#", "-T \"b#\": "),
        (
            "pub -t a -m x --cafile /does/not/exist",
            "cannot read /does/not/exist: ",
        ),
        (
            "pub -t a -m x --capath ca",
            "--capath: a folder of authorities is not supported yet",
        ),
        (
            "pub -t a -m x --ws -L quic://host",
            "--ws: WebSocket is not spoken over QUIC",
        ),
        (
            "pub -t a -m x --unix /does/not/exist",
            "cannot connect to /does/not/exist: ",
        ),
        ("pub -t a -m x --cert a", "--key <FILE>"),
        ("pub -t a -m x --insecure --cafile a", "cannot be used with"),
        ("pub -t a -f /does/not/exist", "-f /does/not/exist: "),
        (
            "pub -t a -m x -c",
            "-c: keeping the session needs a client identifier (-i ID)",
        ),
        (
            "pub -t a -m x -V 311 -x 5",
            "-x: the session expiry interval needs MQTT 5.0",
        ),
        (
            "pub -t a -m x -V 311 -D publish content-type y",
            "-D: properties need MQTT 5.0",
        ),
        (
            "pub -t a -m x -D will content-type y",
            "-D will needs --will-topic",
        ),
        (
            "pub -t a -m x -D publish response-topic b/+",
            "-D response-topic \"b/+\": ",
        ),
        (
            "pub -t a -m x -V 311 -P secret",
            "a password needs a user name",
        ),
        ("request -t a -e b -l", "-l: a request is one message"),
        (
            "decode --hex c0 0",
            "--hex c00: not pairs of hexadecimal digits",
        ),
        ("decode /does/not/exist", "/does/not/exist: "),
        ("pub -t a", "required arguments were not provided"),
    ] {
        let (code, errors) = fails(arguments);
        assert_eq!(code, Some(1), "{arguments}");
        assert!(errors.contains(expected), "{arguments}: {errors}");
    }
    assert_eq!(fails("pub -t a -m x --quiet -L wss://host").0, Some(1));
    assert_eq!(fails("pub -t a -m x -c --quiet"), (Some(1), String::new()));
    assert_eq!(
        avocet("sub --help", 0).output().unwrap().status.code(),
        Some(0)
    );
    assert_eq!(
        avocet("--version", 0).output().unwrap().status.code(),
        Some(0)
    );
}
