//! Exactly one Will Message for each end without DISCONNECT 0x00, none otherwise; after its delay,
//! unless the client is back before [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT5-3.1.3-9]
//! [MQTT311-3.1.2-8] [MQTT311-3.1.2-10].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use avocet_codec::{QoS, ReasonCode};
use avocet_session::CloseReason;

use crate::history::{ConnId, Event, What};
use crate::invariants::Invariant;
use crate::model::{ConnInfo, Model};
use crate::plan::{MILLI, Micros, SECOND, WITNESS};
use crate::wire::{Pkt, Uid};

#[derive(Default)]
pub(crate) struct Wills {
    /// When the witness was sent them.
    published: BTreeMap<Uid, Vec<Micros>>,
}

/// How late a timer may be.
const LATE: Micros = SECOND;

/// How often a will is published, and when.
fn expected(
    model: &Model,
    conn: ConnId,
    info: &ConnInfo,
    delay: u32,
) -> (RangeInclusive<usize>, RangeInclusive<Micros>) {
    let any_time = 0..=Micros::MAX;
    let expiry = info.connect.as_ref().map_or(0, |connect| connect.expiry);
    let delay = u64::from(delay.min(expiry)) * SECOND;
    let next = model
        .conns
        .range(conn + 1..)
        .map(|(_, next)| next)
        .chain(model.conns.range(..conn).map(|(_, earlier)| earlier))
        .filter(|next| next.client == info.client && next.session.is_some())
        .filter(|next| next.accepted_seq > info.accepted_seq)
        .min_by_key(|next| next.accepted_seq);
    let clean = next.is_some_and(|next| next.connect.as_ref().is_some_and(|it| it.clean_start));
    let ended_at = match (info.superseded, info.ended) {
        (Some((_, at)), _) => {
            let published = delay == 0 || clean;
            let times = usize::from(published);
            return (times..=times, at.saturating_sub(MILLI)..=at + LATE);
        }
        (None, Some((_, _, CloseReason::PeerDisconnected(ReasonCode::Success)))) => {
            return (0..=0, any_time);
        }
        (None, Some((_, at, _))) => at,
        (None, None) => return (0..=0, any_time),
    };
    let due = ended_at + delay;
    if delay > 0 && model.jumped {
        return (0..=1, any_time);
    }
    match next {
        Some(next) if next.accepted_at + 10 * MILLI < due => {
            let times = usize::from(clean);
            (times..=times, ended_at..=next.accepted_at + LATE)
        }
        Some(next) if next.accepted_at < due + LATE && delay > 0 => (0..=1, any_time),
        _ => (1..=1, due.saturating_sub(MILLI)..=due + LATE),
    }
}

/// After a crash also what was never sent may have DUP.
fn is_first(event: &Event, model: &Model, conn: ConnId, uid: Uid) -> bool {
    let session = model.session_of(conn);
    let copies = session.and_then(|session| model.copies.get(&(session, uid)));
    copies.is_some_and(|copies| copies.first == Some(event.seq))
}

impl Invariant for Wills {
    fn name(&self) -> &'static str {
        "exactly one Will Message per abnormal end"
    }

    fn check(&mut self, event: &Event, model: &Model) -> Result<(), String> {
        if let What::ServerSent {
            conn,
            pkt: Pkt::Publish(publish),
            ..
        } = &event.what
            && model.conns[conn].client == WITNESS
            && let Some(uid) = publish.uid
            && model.message(publish).is_some_and(|it| it.will.is_some())
            && (!publish.dup || is_first(event, model, *conn, uid))
        {
            self.published.entry(uid).or_default().push(event.at);
        }
        Ok(())
    }

    fn settle(&mut self, model: &Model) -> Result<(), String> {
        // The witness may have missed some.
        if model.system.is_tight() {
            return Ok(());
        }
        for (conn, info) in &model.conns {
            let will = info.connect.as_ref().and_then(|connect| connect.will);
            // The witness sees those of its own.
            let seen = model.clients[info.client].tenant == model.clients[WITNESS].tenant;
            let Some(uid) = will.filter(|_| seen) else {
                continue;
            };
            let delay = model.messages[&uid].will.unwrap_or_default();
            let published = self.published.get(&uid).map_or(&[][..], Vec::as_slice);
            let (times, when) = if info.session.is_some() {
                expected(model, *conn, info, delay)
            } else {
                (0..=0, 0..=0)
            };
            let times = if info.will_uncertain { 0..=1 } else { times };
            // At QoS 1 it may have been sent before it was stored that it was.
            let again = if model.messages[&uid].qos < QoS::ExactlyOnce {
                model.crashes as usize
            } else {
                0
            };
            let times = *times.start()..=*times.end() + again;
            // The witness may have been late.
            let when = if model.system.crashes {
                *when.start()..=Micros::MAX
            } else {
                when
            };
            if !times.contains(&published.len()) {
                return Err(format!(
                    "[{conn}] its will m{uid} was published {} times instead of {times:?}",
                    published.len()
                ));
            }
            if let Some(at) = published.iter().find(|at| !when.contains(at)) {
                return Err(format!(
                    "[{conn}] its will m{uid} was published at {at} instead of {when:?}"
                ));
            }
        }
        Ok(())
    }
}
