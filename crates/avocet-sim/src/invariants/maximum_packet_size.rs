//! No packet is larger than its receiver allows [MQTT5-3.1.2-24] [MQTT5-3.2.2-15].

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;

#[derive(Default)]
pub(crate) struct MaximumPacketSize;

impl Invariant for MaximumPacketSize {
    fn name(&self) -> &'static str {
        "Maximum Packet Size"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let (conn, pkt, len, maximum) = match &event.what {
            What::ServerSent { conn, pkt, len } => {
                let connect = model.conns.get(conn).and_then(|info| info.connect.as_ref());
                (
                    conn,
                    pkt,
                    len,
                    connect.map(|connect| connect.maximum_packet_size),
                )
            }
            What::ClientSent { conn, pkt, len } => {
                let connack = model.conns.get(conn).and_then(|info| info.connack.as_ref());
                (
                    conn,
                    pkt,
                    len,
                    connack.map(|connack| connack.maximum_packet_size),
                )
            }
            _ => return Ok(()),
        };
        match maximum {
            Some(maximum) if *len > maximum as usize => {
                Err(format!("[{conn}] {pkt} takes {len} bytes of {maximum}"))
            }
            _ => Ok(()),
        }
    }
}
