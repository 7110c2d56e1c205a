"""A paho-mqtt client that publishes to itself over TCP or WebSocket, with TLS if there is a file of
authorities: HOST PORT (tcp|websockets) [CAFILE]."""

import queue
import sys

import paho.mqtt.client as mqtt

host, port, transport, *files = sys.argv[1:]
connected, received = queue.Queue(), queue.Queue()
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=mqtt.MQTTv5, transport=transport
)
client.on_connect = lambda c, u, flags, reason, p: connected.put(str(reason))
client.on_subscribe = lambda c, u, mid, codes, p: connected.put("subscribed")
client.on_message = lambda c, u, message: received.put(message.payload)
if transport == "websockets":
    client.ws_set_options(path="/mqtt")
if files:
    client.tls_set(ca_certs=files[0])
client.connect(host, int(port))
client.loop_start()
assert connected.get(timeout=60) == "Success"
client.subscribe("echo", 2)
assert connected.get(timeout=60) == "subscribed"
for qos, size in enumerate([5, 70_000, 1_000_000]):
    payload = bytes(range(250)) * (size // 250) + b"end"
    client.publish("echo", payload, qos)
    assert received.get(timeout=60) == payload, f"{size} bytes"
client.disconnect()
client.loop_stop()
print("echoed")
