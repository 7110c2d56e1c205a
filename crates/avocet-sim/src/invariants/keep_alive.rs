//! The broker closes a silent connection after one and a half Keep Alive, and no earlier
//! [MQTT5-3.1.2-22] [MQTT311-3.1.2-24].

use avocet_session::CloseReason;

use crate::history::{Event, What};
use crate::invariants::Invariant;
use crate::model::Model;
use crate::plan::MILLI;

#[derive(Default)]
pub(crate) struct KeepAlive;

impl Invariant for KeepAlive {
    fn name(&self) -> &'static str {
        "Keep Alive"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        let What::Ended {
            conn,
            reason: CloseReason::KeepAliveTimeout,
        } = &event.what
        else {
            return Ok(());
        };
        let info = &model.conns[conn];
        let keep_alive = info
            .connect
            .as_ref()
            .map_or(0, |connect| connect.keep_alive);
        let silence = event.at - info.read_at;
        if silence < u64::from(keep_alive) * 1_500 * MILLI {
            return Err(format!(
                "[{conn}] closed after {} s, Keep Alive is {keep_alive} s",
                silence as f64 / 1e6
            ));
        }
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        for (conn, info) in &model.conns {
            let keeps = info.connect.as_ref().is_some_and(|it| it.keep_alive > 0);
            if keeps && info.left && info.ended.is_none() && info.session.is_some() {
                return Err(format!(
                    "[{conn}] its client is gone, and the broker never noticed"
                ));
            }
        }
        Ok(())
    }
}
