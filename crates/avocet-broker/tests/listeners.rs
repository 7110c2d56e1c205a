//! Listeners of all kinds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use avocet_codec::{Connect, Delivery, QoS, Version};

use common::{Client, DataDir, Server};

#[test]
fn messages_cross_from_one_listener_to_another() {
    let mut server = Server::start(&["--listen", "127.0.0.1:0", "--shards", "2"]);
    let line = server.wait_for_log("listening on ");
    let second = line.split_once("listening on ").unwrap().1.trim();
    let address = second.parse().unwrap();
    assert_ne!(address, server.address);
    let mut subscriber = server.connect(Version::V5, "here");
    subscriber.subscribe("a", QoS::AtMostOnce);
    let mut publisher = Client::connect(address, &Connect::new(Version::V5, "there"));
    publisher.publish("a", Delivery::AtMostOnce, b"across");
    assert_eq!(subscriber.receive_publish().0, b"across");
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn folder() -> DataDir {
        let dir = DataDir::new();
        fs::create_dir_all(&dir.0).unwrap();
        dir
    }

    fn connect(path: &std::path::Path, client_id: &str) -> Client<UnixStream> {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        Client::connect_over(stream, &Connect::new(Version::V5, client_id))
    }

    #[test]
    fn a_unix_socket_serves_and_goes_with_the_broker() {
        let dir = folder();
        let path = dir.0.join("mqtt");
        let config = dir.0.join("avocet.toml");
        let text = format!(
            "[[listen]]\naddress = '127.0.0.1:0'\n[[listen]]\naddress = 'unix:{}'\nmode = '600'\n",
            path.display()
        );
        fs::write(&config, text).unwrap();
        for shards in ["1", "3"] {
            let mut command = common::command();
            command
                .arg("--config")
                .arg(&config)
                .args(["--shards", shards]);
            let mut server = Server::spawn(command);
            server.wait_for_log(&format!("listening on unix:{}", path.display()));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let mut subscriber = server.connect(Version::V5, "by TCP");
            subscriber.subscribe("a", QoS::AtMostOnce);
            let mut publisher = connect(&path, "by Unix socket");
            let line = server.wait_for_log("by Unix socket");
            assert!(line.contains("address=\"unix\""), "{line}");
            let payload = vec![7; 1 << 20];
            publisher.publish("a", Delivery::AtMostOnce, &payload);
            assert!(subscriber.receive_publish().0 == payload);
            server.terminate();
            assert!(server.wait().success());
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_that_a_killed_broker_left_is_replaced() {
        let dir = folder();
        let path = dir.0.join("mqtt");
        let listen = format!("unix:{}", path.display());
        for _ in 0..2 {
            let mut server = Server::start(&["--listen", &listen]);
            server.wait_for_log(&listen);
            connect(&path, "c");
            server.kill();
            assert!(path.exists());
        }
    }
}
