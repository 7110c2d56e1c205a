"""A client of MQTT 5.0 over aioquic that publishes to itself: HOST PORT CAFILE."""

import asyncio
import sys

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14


def text(value):
    return len(value).to_bytes(2, "big") + value


def packet(kind, flags, body):
    length, rest = b"", len(body)
    while True:
        rest, digit = rest >> 7, rest & 0x7F
        length += bytes([digit | (0x80 if rest else 0)])
        if not rest:
            return bytes([kind << 4 | flags]) + length + body


async def receive(reader):
    """The type of the next packet, and what is behind its length."""
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return first >> 4, await reader.readexactly(length)


async def main(host, port, authorities):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"])
    configuration.load_verify_locations(cafile=authorities)
    async with connect(host, int(port), configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        writer.write(packet(CONNECT, 0, text(b"MQTT") + b"\x05\x02\0\x3c\0" + text(b"aioquic")))
        kind, body = await receive(reader)
        assert kind == CONNACK and body[:2] == b"\0\0", body
        writer.write(packet(SUBSCRIBE, 2, b"\0\x01\0" + text(b"all/echo") + b"\0"))
        kind, body = await receive(reader)
        assert kind == SUBACK and body[-1] == 0, body
        for size in (5, 70_000, 1_000_000):
            payload = bytes(range(250)) * (size // 250) + b"end"
            writer.write(packet(PUBLISH, 2, text(b"all/echo") + b"\0\x01\0" + payload))
            # The acknowledgement and the message come in either order.
            answers = dict([await receive(reader), await receive(reader)])
            assert answers[PUBACK][:2] == b"\0\x01", answers[PUBACK]
            assert answers[PUBLISH].endswith(payload), f"{size} bytes"
        writer.write(packet(DISCONNECT, 0, b""))
        # The server ends its direction when it has read the last packet.
        assert await reader.read() == b""
    print("echoed")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 120))
