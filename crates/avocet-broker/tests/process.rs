//! The process: what it tells its service manager, and whose rights it has.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use avocet_codec::{Delivery, Packet, QoS, Version};
use common::{DEADLINE, DataDir, Server, command, id, resume};

/// A service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 200];
        let len = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// What comes next that is no sign of life.
    fn hear_news(&self) -> String {
        loop {
            let heard = self.hear();
            if heard != "WATCHDOG=1" {
                return heard;
            }
        }
    }
}

fn listening(command: &mut Command) -> &mut Command {
    command.args(["--listen", "127.0.0.1:0"])
}

#[test]
fn the_service_manager_hears_when_clients_are_served_and_when_not() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let data = dir.0.join("data");
    let data = data.to_str().unwrap();
    let mut server = Server::start(&["--data-dir", data]);
    let (mut before, _) = resume(&server, "kept");
    before.subscribe("a", QoS::AtLeastOnce);
    server.kill();

    let path = dir.0.join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let mut command = command();
    listening(&mut command)
        .args(["--data-dir", data, "--shards", "2"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "50000");
    let mut server = Server::spawn(command);
    assert_eq!(manager.hear(), "READY=1\nSTATUS=Serving clients");
    // What was stored is there by then.
    let (client, present) = resume(&server, "kept");
    assert!(present);
    for _ in 0..3 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    server.hang_up();
    assert!(
        manager
            .hear_news()
            .starts_with("RELOADING=1\nMONOTONIC_USEC=")
    );
    assert!(manager.hear_news().starts_with("READY=1"));
    server.terminate();
    assert!(manager.hear_news().starts_with("STOPPING=1"));
    drop(client);
    assert!(server.wait().success());
}

#[test]
fn files_are_read_again_by_command_which_tells_what_came_of_it() {
    let dir = DataDir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    let (config, rules) = (file("avocet.toml"), file("rules.toml"));
    let reload = |arguments: &[&str]| {
        let output = command().arg("reload").args(arguments).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(both).unwrap())
    };
    for place in ["data_dir", "control_socket"] {
        let (path, socket) = match place {
            "data_dir" => (file("data"), file("data/control.sock")),
            _ => (file("control"), file("control")),
        };
        let text =
            format!("listen = '127.0.0.1:0'\n{place} = '{path}'\naccess.rules = '{rules}'\n");
        fs::write(&config, text).unwrap();
        let at = ["--config", &*config];
        let (code, said) = reload(&at);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("no broker answers at {socket}")),
            "{said}"
        );

        fs::write(&rules, "[[rule]]\nallow = 'all'\n").unwrap();
        let path = file("notify");
        let _ = fs::remove_file(&path);
        let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
        let mut broker = command();
        broker.args(at).env("NOTIFY_SOCKET", &path);
        let mut server = Server::spawn(broker);
        assert!(manager.hear().starts_with("READY=1"));
        // A client that says nothing, or nonsense, is not waited for.
        let silent = UnixStream::connect(&socket).unwrap();
        UnixStream::connect(&socket)
            .unwrap()
            .write_all(b"restart")
            .unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
        let done = "users, rules and certificates were read again";
        assert_eq!(reload(&at), (Some(0), format!("{done}\n")));
        server.wait_for_log(done);
        assert!(manager.hear().starts_with("RELOADING=1"));
        assert!(manager.hear().starts_with("READY=1"));

        fs::write(&rules, "[[rule]]\nallow = 'everything'\n").unwrap();
        let (code, said) = reload(&at);
        assert_eq!(code, Some(1), "{said}");
        let wrong = "users and rules stay as they were";
        assert!(
            said.contains(wrong) && said.contains("rules.toml, line 2: "),
            "{said}"
        );
        server.wait_for_log(wrong);
        // Another broker does not take its place.
        if place == "control_socket" {
            fs::write(&rules, "[[rule]]\nallow = 'all'\n").unwrap();
            let second = command().args(at).output().unwrap();
            let said = String::from_utf8_lossy(&second.stderr);
            assert_eq!(second.status.code(), Some(1), "{said}");
            assert!(said.contains("control_socket: cannot listen on "), "{said}");
            assert_eq!(reload(&at).0, Some(0));
        }
        server.terminate();
        assert!(server.wait().success());
        assert!(!Path::new(&socket).exists());
        drop(silent);
    }
    // A service that keeps nothing has a directory of systemd.
    let reload_there = || {
        let mut reload = command();
        reload.arg("reload").env("RUNTIME_DIRECTORY", &dir.0);
        reload.output().unwrap().status.code()
    };
    assert_eq!(reload_there(), Some(1));
    let mut service = command();
    service.args(["--listen", "127.0.0.1:0"]);
    service.env("RUNTIME_DIRECTORY", &dir.0);
    let mut server = Server::spawn(service);
    assert_eq!(reload_there(), Some(0));
    server.terminate();
    assert!(server.wait().success());
    let (code, said) = reload(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("where `control_socket` says"), "{said}");
    let long = format!("control_socket=/{}", "x".repeat(95));
    let check = command().args(["check", "--set", &long]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(2), "{said}");
    assert!(
        said.contains("control_socket") && said.contains("95 bytes"),
        "{said}"
    );
}

#[test]
fn the_service_manager_may_be_in_a_space_of_names_without_files() {
    let name = format!("avocet-test-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let mut command = command();
    listening(&mut command)
        .env("NOTIFY_SOCKET", format!("@{name}"))
        // Asked of somebody else.
        .env("WATCHDOG_USEC", "1")
        .env("WATCHDOG_PID", "1");
    let server = Server::spawn(command);
    assert!(manager.hear().starts_with("READY=1"));
    server.terminate();
    assert!(manager.hear().starts_with("STOPPING=1"));
}

#[test]
fn a_service_manager_that_is_not_there_changes_nothing() {
    let mut command = command();
    listening(&mut command).env("NOTIFY_SOCKET", "/no/such/socket");
    let mut server = Server::spawn(command);
    server.connect(Version::V5, "c");
    server.terminate();
    assert!(server.wait().success());
}

/// The numbers behind a word in what the system says of a process or a thread.
fn numbers(folder: &Path, word: &str) -> Vec<u32> {
    let status = fs::read_to_string(folder.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    let radix = if word.starts_with("Cap") { 16 } else { 10 };
    let numbers = line.unwrap().split_whitespace();
    let number = |text| u64::from_str_radix(text, radix).unwrap();
    numbers.map(|text| number(text) as u32).collect()
}

fn is_root() -> bool {
    numbers(Path::new("/proc/self"), "Uid:")[1] == 0
}

/// The numbers of the user and the group `nobody` has.
fn nobody() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("nobody:"));
    let fields: Vec<&str> = line.unwrap().split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

#[test]
fn who_was_started_as_root_becomes_another_user_for_good() {
    // Where that user may go, as folders of builds may be closed to others.
    let dir = DataDir(std::env::temp_dir().join(format!("avocet-user-{}", std::process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    let data = dir.0.join("data");
    let (uid, gid) = nobody();
    if !is_root() {
        // It serves as who it is, and says that it is not the other one.
        let mut server = Server::start(&["--set", "user=nobody"]);
        let own = numbers(Path::new("/proc/self"), "Uid:");
        let folder = format!("/proc/{}", server.id());
        assert_eq!(numbers(Path::new(&folder), "Uid:"), own);
        server.terminate();
        assert!(server.wait().success());
        return;
    }
    chown(&dir.0, Some(uid), Some(gid)).unwrap();
    let rules = dir.0.join("rules.toml");
    fs::write(&rules, "[[rule]]\nallow = 'all'\n").unwrap();
    let socket = dir.0.join("mqtt");
    // A port that is not for everybody, unless another program has it.
    let port = if std::net::TcpListener::bind("127.0.0.1:981").is_ok() {
        981
    } else {
        0
    };
    let mut server = Server::start(&[
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--listen",
        &format!("unix:{}", socket.display()),
        "--data-dir",
        data.to_str().unwrap(),
        "--set",
        &format!("access.rules={}", rules.display()),
        "--set",
        "user=nobody",
    ]);
    server.wait_for_log("listening on unix:");
    let folder = format!("/proc/{}/task", server.id());
    let mut threads = 0;
    for thread in fs::read_dir(folder).unwrap() {
        let thread = thread.unwrap().path();
        assert_eq!(numbers(&thread, "Uid:"), [uid; 4]);
        assert_eq!(numbers(&thread, "Gid:"), [gid; 4]);
        assert_eq!(numbers(&thread, "Groups:"), [gid]);
        for word in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(numbers(&thread, word), [0], "{word}");
        }
        assert_eq!(numbers(&thread, "NoNewPrivs:"), [1]);
        threads += 1;
    }
    assert!(threads > 1);
    assert_eq!(fs::metadata(&data).unwrap().uid(), uid);
    assert_eq!(fs::metadata(&socket).unwrap().uid(), uid);
    let mut client = server.connect(Version::V5, "c");
    client.publish("a", Delivery::AtLeastOnce(id(1)), b"stored");
    assert!(matches!(client.receive().packet(), Packet::Puback(_)));
    server.hang_up();
    server.wait_for_log("were read again");
    server.terminate();
    assert!(server.wait().success());
    assert!(!socket.exists());
}

#[test]
fn who_cannot_become_the_user_does_not_serve() {
    let mut command = command();
    let output = listening(&mut command)
        .args(["--set", "user=no-such-user"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("there is no user no-such-user in /etc/passwd"),
        "{said}"
    );
    assert!(!said.contains("listening on"), "{said}");
}
