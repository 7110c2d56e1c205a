//! One run, from a seed to its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plan::Plan;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A hash of the whole history.
    pub digest: u64,
    /// How many events it has.
    pub events: u64,
    /// Which invariant does not hold, and why.
    pub failure: Option<String>,
    /// Every event, if asked for.
    pub history: Vec<String>,
}

/// Runs a seed; `readable` keeps its history.
#[must_use]
pub fn run(seed: u64, readable: bool) -> Outcome {
    run_plan(&Plan::new(seed), readable)
}

pub(crate) fn run_plan(plan: &Plan, readable: bool) -> Outcome {
    let mut world = World::new(plan, readable);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    let failure = if panicked {
        Some("a panic, which is printed above".into())
    } else {
        let failure = world.failure.as_ref();
        failure.map(|it| format!("{}: {}", it.invariant, it.problem))
    };
    Outcome {
        seed: plan.seed,
        digest: world.digest.0,
        events: world.events(),
        failure,
        history: world.lines.take().unwrap_or_default(),
    }
}
