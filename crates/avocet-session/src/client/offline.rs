//! A client's Session between its Network Connections.

use alloc::sync::Arc;
use alloc::vec::Vec;
use avocet_codec::{QoS, Version};

use crate::client::{ClientConfig, ClientNotice, NotPublished, PublishError, PublishId};
use crate::{DropReason, Enqueued, Message, Now, Outgoing, Session};

impl Session {
    /// Puts a message behind the others, to leave on the next connection of this client; QoS 0
    /// only where [`Limits::queue_qos0`](crate::Limits::queue_qos0) allows it. Older messages that
    /// went for it are told through `notices`.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing changed. What only the next server refuses is told when its
    /// CONNACK comes.
    pub fn publish(
        &mut self,
        message: Arc<Message>,
        config: &ClientConfig,
        now: Now,
        notices: &mut Vec<ClientNotice>,
    ) -> Result<Option<PublishId>, PublishError> {
        check_version(&message, config.version)?;
        let qos = message.qos();
        let mut outgoing = Outgoing::new(message);
        // Asks for a report of its end.
        outgoing.tag = 1;
        match self.enqueue(outgoing, &config.limits, now) {
            Enqueued::Queued { sequence } | Enqueued::Stored { sequence } => {
                Ok(publish_id(qos, sequence))
            }
            Enqueued::Displaced { sequence, oldest } => {
                let told = oldest
                    .into_iter()
                    .map(|dropped| ClientNotice::NotPublished {
                        id: publish_id(dropped.qos, dropped.sequence),
                        reason: NotPublished::Dropped(dropped.reason),
                    });
                notices.extend(told);
                Ok(publish_id(qos, sequence))
            }
            Enqueued::Refused(reason) => Err(match reason {
                DropReason::Offline => PublishError::NotConnected,
                DropReason::Expired => PublishError::Expired,
                DropReason::QueueFull | DropReason::TooLarge => PublishError::QueueFull,
            }),
        }
    }
}

/// Only messages of QoS 1 and 2 have one.
pub(super) fn publish_id(qos: QoS, sequence: u64) -> Option<PublishId> {
    (qos != QoS::AtMostOnce).then_some(PublishId(sequence))
}

pub(super) fn check_version(message: &Message, version: Version) -> Result<(), PublishError> {
    let needs_5_0 = !message.properties_bytes().is_empty() || message.expires_at().is_some();
    if version != Version::V5 && needs_5_0 {
        return Err(PublishError::PropertiesNotInVersion);
    }
    Ok(())
}
