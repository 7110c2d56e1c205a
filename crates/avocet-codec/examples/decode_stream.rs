//! Prints the packets of a captured byte stream, one a line.
//!
//! ```text
//! cargo run --example decode_stream                    # the capture below
//! cargo run --example decode_stream -- capture.bin     # what one side of a connection sent
//! cargo run --example decode_stream -- capture.bin 5   # ... without the CONNECT, in 5.0
//! ```

use std::error::Error;

use avocet_codec::{PACKET_SIZE_MAX, Packet, Version};

/// CONNECT, PUBLISH and DISCONNECT of a 5.0 client with one measurement to tell.
const CAPTURE: &[u8] = &[
    0x10, 0x10, 0x00, 0x04, 0x4d, 0x51, 0x54, 0x54, 0x05, 0x02, 0x00, 0x3c, 0x03, 0x21, 0x00, 0x14,
    0x00, 0x00, 0x32, 0x22, 0x00, 0x0c, 0x70, 0x6c, 0x61, 0x6e, 0x74, 0x2f, 0x62, 0x6f, 0x69, 0x6c,
    0x65, 0x72, 0x00, 0x01, 0x0d, 0x03, 0x00, 0x0a, 0x74, 0x65, 0x78, 0x74, 0x2f, 0x70, 0x6c, 0x61,
    0x69, 0x6e, 0x37, 0x31, 0x2e, 0x33, 0xe0, 0x00,
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let capture = match arguments.next() {
        Some(path) => std::fs::read(path)?,
        None => CAPTURE.to_vec(),
    };
    // Until a CONNECT says otherwise.
    let mut version = match arguments.next().as_deref() {
        Some("3") => Version::V3_1,
        Some("5") => Version::V5,
        _ => Version::V3_1_1,
    };

    let mut rest = capture.as_slice();
    let mut len = rest.len();
    while let Some(packet) = Packet::decode_next(&mut rest, version, PACKET_SIZE_MAX)? {
        if let Packet::Connect(connect) = &packet {
            version = connect.version;
        }
        println!("{:>6} bytes  {packet:?}", len - rest.len());
        len = rest.len();
    }
    if !rest.is_empty() {
        println!("{:>6} bytes of an incomplete packet", rest.len());
    }
    Ok(())
}
