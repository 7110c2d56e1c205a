//! Bugs on purpose, to see that the invariants find them.

use avocet_session::planted::{Bug, plant};

use crate::plan::Plan;
use crate::run::{run, run_watching};

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The bug.
    pub bug: Bug,
    /// The first seed that fails, and by which invariant.
    pub first: Option<(u64, &'static str)>,
    /// The invariant that the bug breaks, whatever else it breaks before.
    pub named: &'static str,
    /// The first seed that this one finds.
    pub by_name: Option<u64>,
}

/// The invariant that a bug breaks.
const fn named(bug: Bug) -> &'static str {
    match bug {
        Bug::ResentWithAnotherPacketId | Bug::DupMissing | Bug::DupAtFirst => "Packet Identifiers",
        Bug::PubrelBeforeStored => "acknowledged means stored",
        // Identifiers come in turn, so that one which is free too early is not taken at once.
        Bug::FreedAtPubrec | Bug::ReceiveMaximumOffByOne => "Receive Maximum",
        Bug::AliasSurvives => "Topic Names and Topic Aliases",
        Bug::SubackTooEarly => "after SUBACK nothing is missed",
        Bug::RetainedTooLate | Bug::RetainHandlingIgnored => {
            "the last message delivered is the one retained"
        }
        Bug::RetainOvertaken | Bug::InboxReordered => "order by publisher, topic and QoS",
        Bug::WillAfterDisconnect | Bug::WillTwice => "exactly one Will Message per abnormal end",
        Bug::SessionNeverExpires => "Session Present if and only if the session was kept",
        Bug::NoLocalInverted | Bug::NoLocalOutdated => "No Local",
        Bug::ExpiryFromDelivery => "Message Expiry Interval",
        Bug::SharedQos2Moves => "one member for each message",
        Bug::KeepAliveTooShort => "Keep Alive",
        Bug::AckBeforeStored => "acknowledged means stored",
        Bug::PublishBeforeStored => "QoS 2 exactly once",
        // What comes again is taken again.
        Bug::PubrecForgotten => "no more copies than publications",
        Bug::SubscriptionIdLost | Bug::RetainAsPublishedLost | Bug::TenantForgotten => {
            "nothing without a matching subscription"
        }
        Bug::GroupUnbounded => "queues within their limits",
        Bug::AckOfDeadConnection => "acknowledgements leave in order",
        _ => "no panic",
    }
}

/// Plants each bug in turn, and runs seeds until it is found: at all, and by its own invariant.
pub fn find_planted(from: u64, seeds: u64) -> impl Iterator<Item = Found> {
    Bug::ALL.iter().map(move |bug| {
        plant(*bug);
        let end = from + seeds;
        let mut seeds = from..end;
        let first = seeds.find_map(|seed| Some((seed, run(seed, false).invariant?)));
        let named = named(*bug);
        // What its own invariant finds, some invariant finds.
        let by_name = first.and_then(|(first, _)| {
            (first..end).find(|seed| {
                let outcome = run_watching(&Plan::new(*seed), named);
                outcome.invariant.is_some()
            })
        });
        plant(Bug::None);
        Found {
            bug: *bug,
            first,
            named,
            by_name,
        }
    })
}
