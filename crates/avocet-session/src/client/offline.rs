//! A client's Session between its Network Connections.

use alloc::vec::Vec;
use avocet_codec::{QoS, Version};

use crate::client::{ClientConfig, ClientNotice, NotPublished, PublishError, PublishId};
use crate::{
    AckToken, CommitId, DropReason, Enqueued, Message, Now, Outgoing, RestoredMessage, Session,
};

impl Session {
    /// Puts a message behind the others, to leave on the next connection of this client; QoS 0
    /// only where [`Limits::queue_qos0`](crate::Limits::queue_qos0) allows it. Older messages that
    /// went for it are told through `notices`.
    ///
    /// With `stored` a store keeps the Session: this is the commit that stores the message, which
    /// does not leave before. Unless it [leaves then](Session::leaves_when_stored), it does not leave
    /// before [`Session::name_gates`](Session::name_gates) either, of which its sequence is the mark:
    /// the store has to know that it may have been sent. [`Session::enqueue`] and
    /// [`ClientNotice::Pubrec`] say what else is to be stored.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing changed. What only the next server refuses is told when its
    /// CONNACK comes.
    pub fn publish(
        &mut self,
        message: Message,
        config: &ClientConfig,
        stored: Option<CommitId>,
        now: Now,
        notices: &mut Vec<ClientNotice>,
    ) -> Result<Option<PublishId>, PublishError> {
        check_version(&message, config.version)?;
        let qos = message.qos();
        let mut outgoing = Outgoing::new(message);
        // Not 0, so it asks for a report of its end.
        outgoing.tag = mark(self.sender.next_sequence());
        outgoing.gate = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce if self.leaves_when_stored(qos) => stored,
            QoS::AtLeastOnce | QoS::ExactlyOnce => stored.map(|_| CommitId::UNNAMED),
        };
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

    /// Whether a message that is published with this QoS leaves as soon as it is stored, so that with
    /// that it is stored that it may have been sent. Of QoS 2 that is stored of its own, as it
    /// decides what becomes of the message when the server loses the Session.
    #[must_use]
    pub fn leaves_when_stored(&self, qos: QoS) -> bool {
        qos == QoS::AtLeastOnce && self.is_connected()
    }

    /// Whether the message of QoS 2 with this token is known, so that its answer has to be stored.
    #[must_use]
    pub fn knows(&self, token: AckToken) -> bool {
        self.receiver.knows(token)
    }

    /// Puts back the messages of an earlier process into an empty Session, by rising sequences.
    pub fn restore_messages(&mut self, messages: impl IntoIterator<Item = RestoredMessage>) {
        let marked = messages.into_iter().map(|mut restored| {
            restored.outgoing.tag = mark(restored.sequence);
            restored
        });
        self.sender.restore_messages(marked);
    }

    /// The messages that are the next to leave, once the store knows that they may have:
    /// their ids. [`Session::name_gates`] names the commit that says so.
    pub fn next_to_leave(&self) -> impl Iterator<Item = PublishId> + '_ {
        self.unnamed_gates().map(|mark| PublishId(mark - 1))
    }
}

/// What tells the message with this sequence.
const fn mark(sequence: u64) -> u64 {
    sequence + 1
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
