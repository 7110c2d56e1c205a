//! Will Messages: kept with the session, published when its connection ends without a DISCONNECT
//! of 0x00 [MQTT5-3.1.2.5] [MQTT311-3.1.2-8].

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use avocet_access::Action;
use avocet_session::{Message, Now, UnixTime};

use crate::access::Judged;
use crate::counters::DropReason;
use crate::publish::Origin;
use crate::record::Record;
use crate::session_table::SessionHandle;
use crate::timer::Deadline;
use crate::{Durability, Engine};

/// The Will Message of a session.
pub(crate) struct Will {
    /// Without expiry: its Message Expiry Interval runs from the publication.
    pub(crate) message: Message,
    /// Seconds.
    pub(crate) message_expiry_interval: Option<u32>,
    /// Seconds.
    pub(crate) delay_interval: u32,
    /// When it is published; none while the connection lasts.
    pub(crate) publish_at: Option<UnixTime>,
    /// The driver made it of the client's, for which rules hold.
    pub(crate) is_changed: bool,
}

impl Engine {
    /// Replaces the will of a session.
    pub(crate) fn set_will(&mut self, handle: SessionHandle, will: Option<Box<Will>>) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let had = slot.will.is_some();
        if let Some(at) = slot.will.as_ref().and_then(|will| will.publish_at) {
            self.timers.clear_session(handle, Deadline::Will, at);
        }
        slot.will = will;
        if let Some(at) = slot.will.as_ref().and_then(|will| will.publish_at) {
            self.timers.set_session(handle, Deadline::Will, at);
        }
        // A restart publishes it, even if the session does not survive.
        if self.config.durability == Durability::Memory {
            return;
        }
        let session = Arc::clone(&slot.key);
        match &slot.will {
            Some(will) => {
                let record = Record::WillPut {
                    session,
                    message: will.message.clone(),
                    message_expiry_interval: will.message_expiry_interval,
                    delay_interval: will.delay_interval,
                    publish_at: will.publish_at,
                };
                self.record(record);
            }
            None if had => self.record(Record::WillDeleted { session }),
            None => {}
        }
    }

    /// The connection ended in a way that publishes the will: at once, or after the Will Delay
    /// Interval unless the session ends first [MQTT5-3.1.2-8].
    pub(crate) fn begin_will(&mut self, handle: SessionHandle, now: Now) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let Some(will) = &slot.will else {
            return;
        };
        let delay = will.delay_interval.min(slot.expiry_interval);
        if delay == 0 {
            self.publish_will(handle, now);
            return;
        }
        if let Some(mut will) = slot.will.take() {
            will.publish_at = Some(self.clock.unix() + Duration::from_secs(delay.into()));
            self.set_will(handle, Some(will));
        }
    }

    /// Publishes the will of a session, if it has one.
    pub(crate) fn publish_will(&mut self, handle: SessionHandle, now: Now) {
        let Some(slot) = self.sessions.get_mut(handle) else {
            return;
        };
        let key = Arc::clone(&slot.key);
        let Some(will) = &slot.will else {
            return;
        };
        let message = will.message.clone();
        let message = message.with_expiry(will.message_expiry_interval, now.unix);
        let (topic_name, qos) = (message.topic_name(), message.qos());
        // Its client was let in with it; rules may have changed since.
        let access = slot.access.as_mut().filter(|_| !will.is_changed);
        let judged =
            access.map(|it| it.judge_publish(&self.rules, topic_name, qos, message.retain()));
        if let Some(Judged::Refused(_, by)) = judged {
            let topic = topic_name.as_str();
            self.count_refusal_of(Some(handle), Action::Publish, topic, by, now);
            self.set_will(handle, None);
            self.count_dropped(DropReason::NotAuthorized);
            return;
        }
        // Removing and publishing it are one batch.
        if !planted!(WillTwice) {
            self.set_will(handle, None);
        }
        self.counters.wills_published += 1;
        let origin = Origin {
            session: Some(handle),
            recorded: self.config.durability == Durability::Stored,
            ..Origin::SERVER
        };
        let mut published = self.published(message, Some(key));
        if origin.recorded && published.message.retain() && published.id.is_none() {
            // It must not be lost on its way to the owner of its topic, whatever its QoS.
            published.id = Some(self.new_message_id());
        }
        self.publish(&origin, &mut published, now);
    }
}
