use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use crate::error::{DecodeError, EncodeError, Field};
use crate::list::List;
use crate::packet::{Front, PacketType, check, check_minimal};
use crate::property::{Properties, Property, UserProperty, user_properties, write_user_properties};
use crate::qos::QoS;
use crate::reader::Reader;
use crate::sink::{Encode, Section, Sink};
use crate::version::Version;
use crate::will::Will;

/// The client requests a connection [MQTT5-3.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Connect<'a> {
    /// The version of this packet and of all that follow on the connection.
    pub version: Version,
    /// True when another broker says that it is a bridge, by the high bit of the Protocol Level;
    /// 3.x only.
    pub bridge: bool,
    /// Clean Start (3.x: Clean Session).
    pub clean_start: bool,
    /// Keep Alive, in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client Identifier; empty when the server is to assign one.
    pub client_id: &'a str,
    /// The will, if the client has one.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub user_name: Option<&'a str>,
    /// Password; in 3.x only with a User Name.
    pub password: Option<&'a [u8]>,
    /// Properties, left out in 3.x.
    pub properties: ConnectProperties<'a>,
}

/// The properties of a CONNECT [MQTT5-3.1.2.11].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval, in seconds; 0 ends the Session with the connection, `u32::MAX`
    /// never.
    pub session_expiry_interval: u32,
    /// Receive Maximum; 65,535 when absent.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum Packet Size, in bytes; no limit when absent.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Topic Alias Maximum; 0 allows no aliases.
    pub topic_alias_maximum: u16,
    /// Request Response Information, false when absent.
    pub request_response_information: bool,
    /// Request Problem Information, true when absent.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: List<'a, UserProperty<'a>>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data; only with an Authentication Method.
    pub authentication_data: Option<&'a [u8]>,
}

impl ConnectProperties<'_> {
    /// What a CONNECT without properties means.
    pub const DEFAULT: Self = Self::new();

    #[inline(always)]
    const fn new() -> Self {
        Self {
            session_expiry_interval: 0,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: List::from_slice(&[]),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The first byte, in all versions but 3.1 the only one.
const CONNECT: u8 = (PacketType::Connect as u8) << 4;

/// What follows in most packets: Protocol Name and Protocol Version.
const MQTT_4: u64 = u64::from_be_bytes(*b"\0\0\x04MQTT\x04");
const MQTT_5: u64 = MQTT_4 + 1;

const BRIDGE: u8 = 0x80;

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

impl<'a> Connect<'a> {
    /// A request for a clean start, without keep alive, will, credentials and properties.
    pub const fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::DEFAULT,
        }
    }

    /// Reads one whole packet, which must be a CONNECT.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        // The version is the packet's own, so that any will do here.
        let front = Front::whole(frame, Version::V5)?.expect(PacketType::Connect)?;
        Self::decode_as(front.minimal, front.first_byte, front.body, |connect| {
            connect
        })
    }

    /// Makes a packet of what is read, at once, so that it is built where it is returned.
    #[inline(never)]
    pub(crate) fn decode_as<T>(
        minimal: bool,
        first_byte: u8,
        mut body: Reader<'a>,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        let (version, bridge) = protocol(&mut body)?;
        if first_byte != CONNECT || !minimal {
            check(first_byte, version)?;
            check_minimal(minimal, version)?;
        }
        if version.has_properties() {
            Self::decode_fields::<true, T>(version, bridge, body, packet)
        } else {
            Self::decode_fields::<false, T>(version, bridge, body, packet)
        }
    }

    /// What is behind the Protocol Version, without a thought of properties in versions that have
    /// none.
    #[inline(never)]
    fn decode_fields<const PROPERTIES: bool, T>(
        version: Version,
        bridge: bool,
        mut body: Reader<'a>,
        packet: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        // In 3.1 the end of the packet takes precedence over the flags of the last two fields.
        let lenient = !PROPERTIES && version == Version::V3_1;
        let flags = body.u8(Field::ConnectFlags)?;
        let will = will_flags(flags, lenient)?;
        if !PROPERTIES && flags & (USER_NAME | PASSWORD) == PASSWORD {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        let keep_alive = body.u16(Field::KeepAlive)?;
        let section = if PROPERTIES { body.properties()? } else { &[] };
        let properties = ConnectProperties::decode(section)?;
        let client_id = body.string(Field::ClientId)?;
        let will = match will {
            Some((qos, retain)) => Some(Will::decode::<PROPERTIES>(&mut body, qos, retain)?),
            None => None,
        };
        let mut user_name = None;
        if flags & USER_NAME != 0 && !(lenient && body.is_empty()) {
            user_name = Some(body.string(Field::UserName)?);
        }
        let mut password = None;
        if flags & PASSWORD != 0 && !(lenient && body.is_empty()) {
            password = Some(body.binary(Field::Password)?);
        }
        body.finish()?;
        Ok(packet(Self {
            version,
            bridge,
            clean_start: flags & CLEAN_START != 0,
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        }))
    }

    /// How many bytes [`encode`](Self::encode) writes, fixed header included.
    pub fn encoded_len(&self) -> usize {
        self.frame_len(self.version)
    }

    /// Writes the whole packet; on an error, nothing.
    #[inline(never)]
    pub fn encode(&self, out: &mut impl BufMut) -> Result<(), EncodeError> {
        self.write(self.version, out)
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        flags
    }
}

/// Protocol Name and Protocol Version [MQTT5-3.1.2-1] [MQTT5-3.1.2-2].
#[inline(always)]
fn protocol(body: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let Some((&[a, b, c, d, e, f, level], rest)) = body.rest().split_first_chunk() else {
        return rare_protocol(body);
    };
    let version = match u64::from_be_bytes([0, a, b, c, d, e, f, level]) {
        MQTT_4 => Version::V3_1_1,
        MQTT_5 => Version::V5,
        _ => return rare_protocol(body),
    };
    *body = Reader::new(rest);
    Ok((version, false))
}

#[inline(never)]
fn rare_protocol(body: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let is_mqtt = match body.binary(Field::ProtocolName)? {
        b"MQTT" => true,
        b"MQIsdp" => false,
        _ => return Err(DecodeError::ProtocolName),
    };
    let level = body.u8(Field::ProtocolVersion)?;
    match (is_mqtt, level & !BRIDGE, level & BRIDGE != 0) {
        (true, 5, false) => Ok((Version::V5, false)),
        (true, 4, bridge) => Ok((Version::V3_1_1, bridge)),
        (false, 3, bridge) => Ok((Version::V3_1, bridge)),
        _ => Err(DecodeError::UnsupportedProtocolVersion(level)),
    }
}

/// QoS and RETAIN of the will, none without one. 3.1, which is lenient, gives the reserved flag, and
/// these without a will, no meaning.
#[inline(always)]
fn will_flags(flags: u8, lenient: bool) -> Result<Option<(QoS, bool)>, DecodeError> {
    if !lenient && flags & 1 != 0 {
        return Err(DecodeError::ConnectFlags);
    }
    let qos = flags >> WILL_QOS_SHIFT & 0b11;
    let retain = flags & WILL_RETAIN != 0;
    if flags & WILL == 0 {
        if !lenient && (qos != 0 || retain) {
            return Err(DecodeError::ConnectFlags);
        }
        return Ok(None);
    }
    let qos = QoS::from_u8(qos).ok_or(DecodeError::QoS3)?;
    Ok(Some((qos, retain)))
}

impl<'a> ConnectProperties<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not listed here is not allowed in this packet"
    )]
    // Always inlined, so that it stays in registers.
    #[inline(always)]
    fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::new();
        let mut with_user_properties: &[u8] = &[];
        let mut properties = Properties::new(section);
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval(value) => decoded.session_expiry_interval = value,
                Property::ReceiveMaximum(value) => decoded.receive_maximum = Some(value),
                Property::MaximumPacketSize(value) => decoded.maximum_packet_size = Some(value),
                Property::TopicAliasMaximum(value) => decoded.topic_alias_maximum = value,
                Property::RequestResponseInformation(value) => {
                    decoded.request_response_information = value;
                }
                Property::RequestProblemInformation(value) => {
                    decoded.request_problem_information = value;
                }
                Property::UserProperty(_) => with_user_properties = section,
                Property::AuthenticationMethod(value) => {
                    decoded.authentication_method = Some(value);
                }
                Property::AuthenticationData(value) => decoded.authentication_data = Some(value),
                other => return Err(DecodeError::MisplacedProperty(other.id())),
            }
        }
        if decoded.authentication_data.is_some() && decoded.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        decoded.user_properties = user_properties(with_user_properties);
        Ok(decoded)
    }
}

impl Encode for Connect<'_> {
    fn first_byte(&self, _version: Version) -> u8 {
        (PacketType::Connect as u8) << 4
    }

    #[inline(always)]
    fn write_body(&self, version: Version, sink: &mut impl Sink) {
        let bridge = if self.bridge { BRIDGE } else { 0 };
        sink.require(
            !(self.bridge && version == Version::V5),
            EncodeError::NotInVersion {
                packet_type: PacketType::Connect,
                version,
            },
        );
        sink.require(
            version == Version::V5 || self.password.is_none() || self.user_name.is_some(),
            EncodeError::PasswordWithoutUserName,
        );
        let flags = self.flags();
        let [high, low] = self.keep_alive.to_be_bytes();
        let level = version.protocol_level() | bridge;
        if version == Version::V3_1 {
            sink.text(version.protocol_name());
            sink.array([level, flags, high, low]);
        } else {
            sink.array([0, 4, b'M', b'Q', b'T', b'T', level, flags, high, low]);
        }
        if version.has_properties() {
            sink.section(&self.properties);
        }
        sink.string(Field::ClientId, self.client_id);
        if let Some(will) = &self.will {
            will.write(version, sink);
        }
        if let Some(user_name) = self.user_name {
            sink.string(Field::UserName, user_name);
        }
        if let Some(password) = self.password {
            sink.binary(Field::Password, password);
        }
    }
}

impl Section for ConnectProperties<'_> {
    #[inline]
    fn is_plainly_empty(&self) -> bool {
        self.session_expiry_interval == 0
            && self.receive_maximum.is_none()
            && self.maximum_packet_size.is_none()
            && self.topic_alias_maximum == 0
            && !self.request_response_information
            && self.request_problem_information
            && self.user_properties.is_plainly_empty()
            && self.authentication_method.is_none()
            && self.authentication_data.is_none()
    }

    #[inline(always)]
    fn write_properties(&self, sink: &mut impl Sink) {
        if self.session_expiry_interval != 0 {
            sink.property(Property::SessionExpiryInterval(
                self.session_expiry_interval,
            ));
        }
        if let Some(value) = self.receive_maximum {
            sink.property(Property::ReceiveMaximum(value));
        }
        if let Some(value) = self.maximum_packet_size {
            sink.property(Property::MaximumPacketSize(value));
        }
        if self.topic_alias_maximum != 0 {
            sink.property(Property::TopicAliasMaximum(self.topic_alias_maximum));
        }
        if self.request_response_information {
            sink.property(Property::RequestResponseInformation(true));
        }
        if !self.request_problem_information {
            sink.property(Property::RequestProblemInformation(false));
        }
        write_user_properties(self.user_properties, sink);
        if let Some(value) = self.authentication_method {
            sink.property(Property::AuthenticationMethod(value));
        }
        if let Some(value) = self.authentication_data {
            sink.require(
                self.authentication_method.is_some(),
                EncodeError::MissingAuthenticationMethod,
            );
            sink.property(Property::AuthenticationData(value));
        }
    }
}
