//! One run, from a seed to its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::coverage::Coverage;
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
    /// What happened, by kind.
    pub coverage: Coverage,
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

pub(crate) fn run_plan(plan: &Plan, readable: bool) -> Outcome {
    run_world(World::new(plan, readable))
}

/// Runs a plan and looks at one invariant alone.
#[cfg(feature = "planted")]
pub(crate) fn run_watching(plan: &Plan, invariant: &'static str) -> Outcome {
    let mut world = World::new(plan, false);
    world.watch_only(invariant);
    run_world(world)
}

pub(crate) fn run_world(mut world: World) -> Outcome {
    if let Some(lines) = &mut world.lines {
        lines.push(format!("{:?}", world.plan.system));
        for (index, client) in world.plan.clients.iter().enumerate() {
            lines.push(format!("client {index}: {client:?}"));
        }
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    let mut failure = world.failure.take();
    if panicked {
        failure = Some(Failure {
            invariant: "no panic",
            problem: "it is printed above".into(),
        });
    }
    Outcome {
        seed: world.plan.seed,
        digest: world.digest.0,
        events: world.events(),
        coverage: world.coverage().clone(),
        invariant: failure.as_ref().map(|it| it.invariant),
        failure: failure.map(|it| format!("{}: {}", it.invariant, it.problem)),
        history: world.lines.take().unwrap_or_default(),
    }
}
