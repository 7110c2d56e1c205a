//! A server that does as little as a server can, in a process of its own: what it costs is not the
//! client's.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use avocet_codec::{
    AckType, Connack, Delivery, Packet, Publish, ReasonCode, TopicName, Version, frame_len,
};

use crate::{PAYLOAD, TOPIC};

/// The argument with which this program is the server.
pub(crate) const SERVE: &str = "--serve";

/// A running server, which ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts one that acknowledges at once, and sends so many messages to each client after
    /// CONNACK.
    pub(crate) fn start(sends: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, &sends.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process of the server does: it prints where it is, and ends with its parent.
pub(crate) fn serve(sends: usize) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    println!("{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client that is done may close as it likes.
            thread::spawn(move || answer(&mut stream, sends));
        }
    });
    let _ = io::stdin().read(&mut [0]);
}

fn answer(stream: &mut TcpStream, sends: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; 1 << 18];
    let (mut end, mut connected) = (0, false);
    loop {
        let read = stream.read(&mut input[end..])?;
        if read == 0 {
            return Ok(());
        }
        end += read;
        let (mut start, mut output) = (0, Vec::new());
        while let Ok(Some(len)) = frame_len(&input[start..end], u32::MAX) {
            if start + len > end {
                break;
            }
            let frame = &input[start..start + len];
            start += len;
            if !connected {
                connected = true;
                put(
                    Packet::Connack(Connack::new(ReasonCode::Success)),
                    &mut output,
                );
                continue;
            }
            if frame[0] & 0xf6 != 0x32 {
                continue;
            }
            let Ok(Packet::Publish(publish)) = Packet::decode(frame, Version::V3_1_1) else {
                continue;
            };
            let id = publish.packet_id().unwrap();
            output.extend_from_slice(&AckType::Puback.success(id));
        }
        input.copy_within(start..end, 0);
        end -= start;
        stream.write_all(&output)?;
        if connected && sends > 0 {
            return flood(stream, sends);
        }
    }
}

fn put(packet: Packet<'_>, output: &mut Vec<u8>) {
    packet.encode(Version::V3_1_1, output).unwrap();
}

fn flood(stream: &mut TcpStream, sends: usize) -> io::Result<()> {
    let topic_name = TopicName::new(TOPIC).unwrap();
    let publish = Publish::new(topic_name, Delivery::AtMostOnce, &PAYLOAD);
    let mut one = Vec::new();
    put(Packet::Publish(publish), &mut one);
    let many = one.repeat(1000);
    for _ in 0..sends / 1000 {
        stream.write_all(&many)?;
    }
    // Until the client closes.
    stream.read(&mut [0; 16]).map(drop)
}
