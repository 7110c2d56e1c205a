//! SUBSCRIBE and UNSUBSCRIBE.

use alloc::vec::Vec;
use avocet_codec::{
    List, Packet, RetainHandling, Subscribe, SubscribeFilter, SubscriptionId, SubscriptionOptions,
    TopicFilter, Unsubscribe, UserProperty, Version,
};

use crate::client::{ClientConnection, RequestId, SubscribeError};

impl ClientConnection {
    /// Asks for messages of these Topic Filters.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; nothing changed. What the server refuses stands in its SUBACK.
    pub fn subscribe(
        &mut self,
        filters: &[SubscribeFilter<'_>],
        subscription_id: Option<SubscriptionId>,
        user_properties: &[UserProperty<'_>],
    ) -> Result<RequestId, SubscribeError> {
        let server = self.server();
        if !self.is_connected() {
            return Err(SubscribeError::NotConnected);
        }
        if filters.is_empty() {
            return Err(SubscribeError::NoTopicFilters);
        }
        if self.config().version != Version::V5 {
            let plain = |options: SubscriptionOptions| {
                !options.no_local
                    && !options.retain_as_published
                    && options.retain_handling == RetainHandling::default()
            };
            if subscription_id.is_some()
                || !user_properties.is_empty()
                || !filters.iter().all(|filter| plain(filter.options))
            {
                return Err(SubscribeError::OptionsNotInVersion);
            }
        }
        for filter in filters.iter().map(|filter| filter.topic_filter) {
            if filter.has_wildcard() && !server.wildcard_subscription_available {
                return Err(SubscribeError::WildcardNotSupported);
            }
            if matches!(filter.share(), Ok(Some(_))) && !server.shared_subscription_available {
                return Err(SubscribeError::SharedNotSupported);
            }
        }
        if subscription_id.is_some() && !server.subscription_ids_available {
            return Err(SubscribeError::SubscriptionIdsNotSupported);
        }
        self.request(|packet_id| {
            Packet::Subscribe(Subscribe {
                dup: false,
                packet_id,
                subscription_id,
                user_properties: List::from_slice(user_properties),
                filters: List::from_slice(filters),
            })
        })
    }

    /// Asks for no more messages of these Topic Filters.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; nothing changed.
    pub fn unsubscribe(
        &mut self,
        filters: &[TopicFilter<'_>],
        user_properties: &[UserProperty<'_>],
    ) -> Result<RequestId, SubscribeError> {
        if !self.is_connected() {
            return Err(SubscribeError::NotConnected);
        }
        if filters.is_empty() {
            return Err(SubscribeError::NoTopicFilters);
        }
        if self.config().version != Version::V5 && !user_properties.is_empty() {
            return Err(SubscribeError::OptionsNotInVersion);
        }
        self.request(|packet_id| {
            Packet::Unsubscribe(Unsubscribe {
                dup: false,
                packet_id,
                user_properties: List::from_slice(user_properties),
                filters: List::from_slice(filters),
            })
        })
    }

    fn request<'p>(
        &mut self,
        packet: impl FnOnce(avocet_codec::PacketId) -> Packet<'p>,
    ) -> Result<RequestId, SubscribeError> {
        let version = self.config().version;
        let maximum = self.server().maximum_packet_size;
        let maximum = usize::try_from(maximum).unwrap_or(usize::MAX);
        let sender = self
            .exchange_mut()
            .map(|exchange| &mut exchange.session.sender);
        let sender = sender.ok_or(SubscribeError::NotConnected)?;
        let packet_id = sender
            .take_request_id()
            .ok_or(SubscribeError::TooManyRequests)?;
        let mut bytes = Vec::new();
        let written = match packet(packet_id).encode(version, &mut bytes) {
            Ok(()) if bytes.len() <= maximum => Ok(()),
            Ok(()) => {
                let size = bytes.len();
                Err(SubscribeError::PacketTooLarge { size, maximum })
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            sender.return_request_id(packet_id);
            return Err(error);
        }
        self.put_control(&bytes);
        Ok(RequestId(packet_id))
    }
}
