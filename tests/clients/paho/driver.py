"""Drives a paho-mqtt client: one JSON command a line in, one JSON event a line out.

The values are `Command` and `Event` of tests/src/client.rs.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

# Name in a Message, name in paho, to paho, from paho.
PROPERTIES = [
    ("content_type", "ContentType", str, str),
    ("response_topic", "ResponseTopic", str, str),
    ("correlation_data", "CorrelationData", bytes.fromhex, bytes.hex),
    ("payload_format", "PayloadFormatIndicator", int, int),
    ("message_expiry", "MessageExpiryInterval", int, int),
    ("will_delay", "WillDelayInterval", int, int),
]

output = threading.Lock()


def emit(event, **values):
    line = json.dumps({"event": event, **values})
    with output:
        print(line, flush=True)


def to_paho(packet_type, values):
    properties = Properties(packet_type)
    for ours, theirs, convert, _ in PROPERTIES:
        if values[ours] is not None:
            setattr(properties, theirs, convert(values[ours]))
    if values["user"]:
        properties.UserProperty = [tuple(pair) for pair in values["user"]]
    return properties


def from_paho(properties):
    if properties is None:
        return {}
    values = {
        ours: convert(getattr(properties, theirs))
        for ours, theirs, _, convert in PROPERTIES
        if hasattr(properties, theirs)
    }
    values["user"] = getattr(properties, "UserProperty", [])
    values["subscription_ids"] = getattr(properties, "SubscriptionIdentifier", [])
    return values


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        sys.exit(f"refused: {reason}")
    emit("connected", session_present=flags.session_present)


def on_message(client, userdata, message):
    emit(
        "message",
        topic=message.topic,
        payload=message.payload.hex(),
        qos=message.qos,
        retain=bool(message.retain),
        properties=from_paho(getattr(message, "properties", None)),
    )


def on_disconnect(client, userdata, flags, reason, properties):
    emit("disconnected", code=reason.value if flags.is_disconnect_packet_from_server else None)


class Driver:
    def connect(self, command):
        self.v5 = command["version"] == 5
        version = {3: mqtt.MQTTv31, 4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[command["version"]]
        self.client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=command["client_id"],
            clean_session=None if self.v5 else command["clean"],
            protocol=version,
            reconnect_on_failure=False,
        )
        client.on_connect = on_connect
        client.on_message = on_message
        client.on_disconnect = on_disconnect
        client.on_subscribe = lambda c, u, mid, codes, p: emit("subscribed", code=codes[0].value)
        client.on_unsubscribe = lambda c, u, mid, codes, p: emit("unsubscribed")
        client.on_publish = lambda c, u, mid, code, p: emit("published")
        if (will := command["will"]) is not None:
            properties = to_paho(PacketTypes.WILLMESSAGE, will["properties"]) if self.v5 else None
            client.will_set(
                will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"], properties
            )
        options = {}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = command["session_expiry"]
            options = {"clean_start": command["clean"], "properties": properties}
        client.connect(command["host"], command["port"], command["keep_alive"], **options)
        client.loop_start()

    def subscribe(self, command):
        if not self.v5:
            self.client.subscribe(command["filter"], command["qos"])
            return
        options = SubscribeOptions(
            command["qos"],
            command["no_local"],
            command["retain_as_published"],
            command["retain_handling"],
        )
        properties = Properties(PacketTypes.SUBSCRIBE)
        if command["subscription_id"] is not None:
            properties.SubscriptionIdentifier = command["subscription_id"]
        self.client.subscribe(command["filter"], options=options, properties=properties)

    def unsubscribe(self, command):
        self.client.unsubscribe(command["filter"])

    def publish(self, command):
        properties = to_paho(PacketTypes.PUBLISH, command["properties"]) if self.v5 else None
        self.client.publish(
            command["topic"],
            bytes.fromhex(command["payload"]),
            command["qos"],
            command["retain"],
            properties,
        )

    def disconnect(self, command):
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=command["code"])
        self.client.disconnect(reason if self.v5 else None)


driver = Driver()
for line in sys.stdin:
    command = json.loads(line)
    getattr(driver, command["do"])(command)
