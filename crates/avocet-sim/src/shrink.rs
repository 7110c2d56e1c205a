//! Makes a failing plan short: leaves operations out while the same invariant still fails.

use crate::plan::{Op, Plan};
use crate::run::{Outcome, run_plan};

/// Runs that a shrink may take.
const RUNS_MAX: usize = 400;

/// What is left of a failing plan.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The operations, in order.
    pub ops: Vec<String>,
    /// How many the whole plan has.
    pub of: usize,
    /// The shortest run that fails, with its history.
    pub outcome: Outcome,
}

/// Shrinks the plan of a seed; none if it does not fail.
#[must_use]
pub fn shrink(seed: u64) -> Option<Shrunk> {
    let mut plan = Plan::new(seed);
    let of = plan.ops.len();
    let invariant = run_plan(&plan, false).invariant?;
    let mut runs = 0;
    let mut fails = |ops: &[Op]| {
        runs += 1;
        let mut shorter = plan.clone();
        shorter.ops = ops.to_vec();
        runs <= RUNS_MAX && run_plan(&shorter, false).invariant == Some(invariant)
    };
    // Halves, quarters, and so on down to single operations.
    let mut ops = plan.ops.clone();
    let mut size = ops.len().div_ceil(2);
    loop {
        let before = ops.len();
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(ops.len()));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += size;
            }
        }
        if size == 1 && ops.len() == before {
            break;
        }
        size = (size / 2).max(1);
    }
    plan.ops = ops;
    Some(Shrunk {
        ops: plan.ops.iter().map(ToString::to_string).collect(),
        of,
        outcome: run_plan(&plan, true),
    })
}
