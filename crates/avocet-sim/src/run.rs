//! One run, from a seed to its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plan::Plan;
use crate::world::{Failure, World};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A hash of the whole history.
    pub digest: u64,
    /// How many events it has.
    pub events: u64,
    /// Which invariant does not hold.
    pub invariant: Option<&'static str>,
    /// The same, and why.
    pub failure: Option<String>,
    /// Every event, if asked for.
    pub history: Vec<String>,
}

/// Runs a seed; `readable` keeps its history.
#[must_use]
pub fn run(seed: u64, readable: bool) -> Outcome {
    run_plan(&Plan::new(seed), readable)
}

/// Runs a plan whose choices are bytes, as a fuzzer makes them.
#[must_use]
pub fn run_bytes(bytes: &[u8], readable: bool) -> Outcome {
    run_plan(&Plan::from_bytes(bytes), readable)
}

/// Plants each bug in turn, and runs seeds until one fails: the bug, the seed and the invariant.
#[cfg(feature = "planted")]
pub fn find_planted(
    from: u64,
    seeds: u64,
) -> impl Iterator<Item = (String, Option<(u64, &'static str)>)> {
    use avocet_session::planted::{Bug, plant};
    Bug::ALL.iter().map(move |bug| {
        plant(*bug);
        let found = (from..from + seeds).find_map(|seed| Some((seed, run(seed, false).invariant?)));
        plant(Bug::None);
        (format!("{bug:?}"), found)
    })
}

pub(crate) fn run_plan(plan: &Plan, readable: bool) -> Outcome {
    let mut world = World::new(plan, readable);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    let mut failure = world.failure.take();
    if panicked {
        failure = Some(Failure {
            invariant: "no panic",
            problem: "it is printed above".into(),
        });
    }
    Outcome {
        seed: plan.seed,
        digest: world.digest.0,
        events: world.events(),
        invariant: failure.as_ref().map(|it| it.invariant),
        failure: failure.map(|it| format!("{}: {}", it.invariant, it.problem)),
        history: world.lines.take().unwrap_or_default(),
    }
}
