//! The settings of what a broker, a shard and a client may have.

use std::time::Duration;

use avocet_engine::Overrun;

use super::{Config, Kind, MANY, Number, Setting, TIB, U16, U32, Value, names};

const OVERRUNS: [(&str, Overrun); 2] = [("pause", Overrun::Pause), ("refuse", Overrun::Refuse)];

pub(super) static LIMITS: &[Setting] = &[
    integer!(
        "limits.connections_max",
        1..=MANY,
        |config| &mut config.connections.connections_max,
        "Connections of all shards together. Beyond, CONNECT gets 0x97 (quota exceeded)."
    ),
    integer!(
        "limits.connections_per_address_max",
        0..=U32,
        |config| &mut config.connections.per_address_max,
        "Connections from one address; in IPv6 from one network of 64 bits. Beyond, CONNECT gets \
         0x97. 0: as many as come."
    ),
    integer!(
        "limits.connections_per_user_max",
        0..=U32,
        |config| &mut config.connections.per_user_max,
        "Clients of one user that are connected at a time. Beyond, CONNECT gets 0x97. 0: as many as \
         come."
    ),
    integer!(
        "limits.connects_per_address",
        0..=U32,
        |config| &mut config.connections.connects_per_address,
        "Connections that come from one address in a second. Beyond, CONNECT gets 0x9F (connection \
         rate exceeded). 0: as fast as they come."
    ),
    integer!(
        "limits.flapping_connects",
        0..=U32,
        |config| &mut config.flapping.connects_max,
        "How often a client may connect within `limits.flapping_window`. Beyond, it is banned for \
         `limits.flapping_ban`: CONNECT gets 0x8A (banned). 0: as often as it wants."
    ),
    duration!(
        "limits.flapping_window",
        86_400 s,
        |config| &mut config.flapping.window,
        "How long the connections of a client are counted."
    ),
    duration!(
        "limits.flapping_ban",
        31_536_000 s,
        |config| &mut config.flapping.ban,
        "How long a client is banned that connects too often."
    ),
    bytes!(
        "limits.memory_max",
        0..=TIB,
        |config| &mut config.memory_max,
        "Memory of the process beyond which no new load is taken, until it is a tenth below: clients \
         without a session get 0x89 (server busy), messages of QoS 1 and 2 get 0x97 (quota \
         exceeded), others are dropped unless they leave at once. 0: four fifths of what the machine \
         or its container has. Only Linux tells."
    ),
    integer!(
        "limits.handshakes_max",
        1..=MANY,
        |config| &mut config.handshakes_max,
        "Connections of each shard that are on their way through TLS, WebSocket or the PROXY \
         protocol. Beyond, the one that has least time left of those that wait for their clients is closed, \
         or else the new one."
    ),
    duration!(
        "limits.packet_timeout",
        86_400 s,
        |config| &mut config.packet_timeout,
        "How long a packet may take to come as a whole, once its first byte is there, also where a client has \
         no Keep Alive. Beyond, the client is disconnected with 0x8D (keep alive timeout). 0: as long as \
         it takes."
    ),
    integer!(
        "limits.sessions_max",
        1..=MANY,
        |config| &mut config.engine.limits.sessions_max,
        "Sessions of each shard, with and without a connection. Beyond, CONNECT gets 0x97."
    ),
    integer!(
        "limits.tenants_max",
        0..=MANY,
        |config| &mut config.engine.limits.tenants_max,
        "Tenants that something was heard of since the start, those included of which something is \
         stored. A CONNECT of another one gets 0x97."
    ),
    integer!(
        "limits.sessions_disconnected_told",
        0..=MANY,
        |config| &mut config.engine.limits.sessions_disconnected_told,
        "Sessions of a shard without a connection from which on the log says whose most of them are, \
         and again each time they have doubled. 0: it does not."
    ),
    integer!(
        "limits.client_id_bytes_max",
        1..=U16,
        |config| &mut config.engine.limits.client_id_bytes_max,
        "Bytes of a Client Identifier. Beyond, CONNECT gets 0x85 (client identifier not valid)."
    ),
    integer!(
        "limits.user_properties_max",
        0..=U32,
        |config| &mut config.engine.limits.user_properties.count_max,
        "User Properties of a message, of a Will or of CONNECT. Beyond: 0x97. 0: as many as its \
         packet has room for."
    ),
    bytes!(
        "limits.user_properties_bytes_max",
        0..=U32,
        |config| &mut config.engine.limits.user_properties.bytes_max,
        "Bytes of these, names and values; the outcome is the same."
    ),
    integer!(
        "limits.publish_messages_per_second",
        0..=U32,
        |config| &mut config.engine.limits.publish_rate.messages_per_second,
        "Messages that one client may publish in a second; as many may come at once. What happens \
         beyond says `limits.publish_overrun`. 0: as fast as it can."
    ),
    bytes!(
        "limits.publish_bytes_per_second",
        0..=U32,
        |config| &mut config.engine.limits.publish_rate.bytes_per_second,
        "Bytes that one client may publish in a second. 0: as fast as it can."
    ),
    choice!(
        "limits.publish_overrun",
        OVERRUNS,
        |config| &mut config.engine.limits.publish_overrun,
        "What happens to a client that publishes too fast. `pause`: it is not read for a while, so \
         that the network slows it. `refuse`: its messages are refused with 0x97 (quota exceeded), \
         and dropped where that cannot be told: with QoS 0, and in 3.x."
    ),
    integer!(
        "limits.delivery_messages_per_second",
        0..=U32,
        |config| &mut config.engine.limits.delivery_rate.messages_per_second,
        "Messages that one client is sent in a second. The others wait in its queue. 0: as fast as \
         it reads."
    ),
    bytes!(
        "limits.delivery_bytes_per_second",
        0..=U32,
        |config| &mut config.engine.limits.delivery_rate.bytes_per_second,
        "Bytes that one client is sent in a second. 0: as fast as it reads."
    ),
    integer!(
        "limits.subscriptions_per_session_max",
        1..=MANY,
        |config| &mut config.engine.limits.subscriptions_per_session_max,
        "Subscriptions of one client. Beyond, the SUBACK says 0x97."
    ),
    integer!(
        "limits.shapes_per_session_max",
        0..=MANY,
        |config| &mut config.engine.limits.shapes_per_session_max,
        "Different places for wildcards among the Topic Filters of one client. Beyond, the SUBACK \
         says 0x97."
    ),
    integer!(
        "limits.topic_levels_max",
        1..=U16,
        |config| &mut config.engine.limits.topics.levels_max,
        "Levels of a topic. Beyond: 0x90 (topic name invalid) or 0x8F (topic filter invalid)."
    ),
    integer!(
        "limits.topic_bytes_max",
        1..=U16,
        |config| &mut config.engine.limits.topics.bytes_max,
        "Bytes of a topic; the outcome is the same."
    ),
    integer!(
        "limits.plus_levels_max",
        0..=255,
        |config| &mut config.engine.limits.topics.plus_levels_max,
        "`+` levels of one Topic Filter; the outcome is the same."
    ),
    integer!(
        "limits.wildcard_level_min",
        0..=U16,
        |config| &mut config.engine.limits.wildcard_level_min,
        "Levels that a Topic Filter has before its first wildcard, at least: 1 refuses `#` and `+/a`. \
         Those with fewer get 0x8F (topic filter invalid)."
    ),
    integer!(
        "limits.filter_shapes_max",
        1..=U16,
        |config| &mut config.engine.limits.filters.shapes_max,
        "Different places for wildcards among all Topic Filters: each one costs every message a \
         little time."
    ),
    integer!(
        "limits.filter_overflow_max",
        0..=U16,
        |config| &mut config.engine.limits.filters.overflow_max,
        "Topic Filters with wildcards in yet other places. Beyond, the SUBACK says 0x97."
    ),
    integer!(
        "limits.retained_messages_max",
        0..=MANY,
        |config| &mut config.engine.limits.retained_messages_max,
        "Retained messages of each shard. Beyond, a message is delivered and not retained."
    ),
    bytes!(
        "limits.retained_bytes_max",
        0..=TIB,
        |config| &mut config.engine.limits.retained_bytes_max,
        "Bytes of the retained messages of each shard; the outcome is the same."
    ),
    duration!(
        "limits.retained_age_max",
        315_360_000 s,
        |config| &mut config.engine.limits.retained_age_max,
        "How long a message is retained at most, counted anew when the broker starts. 0: until it is \
         replaced or expires."
    ),
    integer!(
        "limits.queued_messages_max",
        0..=MANY,
        |config| &mut config.engine.limits.queued_messages_max,
        "Messages that wait for all clients of a shard. Beyond, a message is dropped."
    ),
    bytes!(
        "limits.queued_bytes_max",
        0..=TIB,
        |config| &mut config.engine.limits.queued_bytes_max,
        "Bytes of these; a message that waits for several clients counts for each."
    ),
    integer!(
        "limits.group_messages_max",
        0..=MANY,
        |config| &mut config.engine.limits.group_messages_max,
        "Messages that wait for a shared subscription none of whose members can take them. \
         Beyond, `queue.overflow` says which one is dropped."
    ),
    integer!(
        "limits.group_window",
        1..=MANY,
        |config| &mut config.engine.limits.group_window,
        "Unacknowledged messages that a shared subscription gives to one member."
    ),
    integer!(
        "limits.forwards_max",
        1..=MANY,
        |config| &mut config.engine.limits.forwards_max,
        "Messages of one client on their way to other shards. Beyond, it is not read."
    ),
    bytes!(
        "limits.forwards_bytes_max",
        1..=TIB,
        |config| &mut config.engine.limits.forwards_bytes_max,
        "Bytes of these; the outcome is the same."
    ),
    bytes!(
        "limits.uncommitted_bytes_max",
        1..=TIB,
        |config| &mut config.engine.limits.uncommitted_bytes_max,
        "Bytes that a shard waits for the disk to store. Beyond, clients that publish what must be \
         stored are not read."
    ),
    integer!(
        "limits.slice_packets",
        1..=MANY,
        |config| &mut config.engine.limits.slice_packets,
        "Packets read from one client before others have their turn. All but messages and \
         acknowledgements count as 16, messages as more the more filters of different shapes there are."
    ),
    bytes!(
        "limits.slice_bytes",
        1..=TIB,
        |config| &mut config.engine.limits.slice_bytes,
        "Bytes read from one client, or a sixty-fourth of the bytes queued for its messages, before \
         others have their turn."
    ),
    integer!(
        "limits.retained_page_messages",
        1..=MANY,
        |config| &mut config.engine.limits.retained_page_messages,
        "Retained messages that a shard asks another one for at once."
    ),
    bytes!(
        "limits.retained_page_bytes",
        1..=TIB,
        |config| &mut config.engine.limits.retained_page_bytes,
        "Bytes of these."
    ),
];
