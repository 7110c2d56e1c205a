//! rumqttd of crates.io as a peer of Avocet's client.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::mosquitto::unused_addresses;
use crate::process::Process;
use crate::provision;
use crate::scratch::Scratch;

/// A running rumqttd, stopped when dropped.
#[derive(Debug)]
pub struct Rumqttd {
    _process: Process,
    v3_1_1: SocketAddr,
    v5: SocketAddr,
}

impl Rumqttd {
    /// Starts rumqttd, and waits until it listens.
    pub async fn start() -> Self {
        let program = provision::rumqttd().unwrap_or_else(|error| panic!("{error:#}"));
        let [v3_1_1, v5] = unused_addresses();
        let mut configuration = "id = 0\n\
            [router]\nid = 0\nmax_connections = 1000\nmax_outgoing_packet_count = 200\n\
            max_segment_size = 1048576\nmax_segment_count = 10\n"
            .to_owned();
        for (section, address) in [("v4.1", v3_1_1), ("v5.1", v5)] {
            configuration += &format!(
                "[{section}]\nname = \"{section}\"\nlisten = \"{address}\"\n\
                 next_connection_delay_ms = 0\n\
                 [{section}.connections]\nconnection_timeout_ms = 5000\n\
                 max_payload_size = 65536\nmax_inflight_count = 100\ndynamic_filters = true\n"
            );
        }
        let scratch = Scratch::new();
        let file = scratch.write("rumqttd.toml", configuration);
        let mut command = Command::new(program);
        command.args(["--quiet", "-v", "--config"]).arg(file);
        let mut process = Process::spawn("rumqttd", command);
        for _ in [v3_1_1, v5] {
            process.line_with("Listening for remote connections").await;
        }
        Self {
            _process: process,
            v3_1_1,
            v5,
        }
    }

    /// Where it listens for 3.1.1, and for 5.0.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.v3_1_1, self.v5]
    }
}
