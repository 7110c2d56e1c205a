//! A QoS 2 message that a session receives at QoS 2 reaches its application exactly once
//! [MQTT5-4.3.3-1].

use std::collections::BTreeMap;

use avocet_codec::QoS;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::{Model, SessionId};
use crate::wire::Uid;

#[derive(Default)]
pub(crate) struct ExactlyOnce {
    delivered: BTreeMap<(SessionId, Uid), (u32, u32)>,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "QoS 2 exactly once"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::Delivered { conn, publish } = &event.what else {
            return Ok(());
        };
        let (Some(session), Some(uid)) = (model.session_of(*conn), publish.uid) else {
            return Ok(());
        };
        if publish.qos != QoS::ExactlyOnce {
            return Ok(());
        }
        let fresh = model
            .copies
            .get(&(session, uid))
            .map_or(0, |copies| copies.fresh);
        let (count, _) = self.delivered.entry((session, uid)).or_default();
        *count += 1;
        if *count > fresh {
            return Err(format!(
                "[{conn}] m{uid} reached its application {count} times, {fresh} times sent anew"
            ));
        }
        Ok(())
    }
}
