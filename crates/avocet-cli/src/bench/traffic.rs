//! Publishers and subscribers, from the first connection to the result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use mio::Waker;

use crate::bench::check::Faults;
use crate::bench::open::{Server, allow_files};
use crate::bench::plan::{Load, Plan, Shape};
use crate::bench::report::{Outcome, Point, Progress, number};
use crate::bench::usage::{self, Moment};
use crate::bench::worker::{Ended, Interval, Report, Shared, Worker};
use crate::bench_args::Workload;
use crate::clock::Stopwatch;
use crate::exit::Failure;
use crate::signal;

/// From when all clients are there until messages flow, in nanoseconds.
const RUN_UP: u64 = 20_000_000;

/// How often it is looked whether everything has arrived.
const LOOK: Duration = Duration::from_millis(5);

/// How long nothing more may come once everything has, in nanoseconds.
const QUIET: u64 = 20_000_000;

/// How often it is looked whether the process was asked to end, in nanoseconds.
const SIGNAL: u64 = 100_000_000;

/// Runs a load of publishers and subscribers.
///
/// # Errors
///
/// What kept it from running to its end.
pub(crate) fn run(workload: &Workload) -> Result<Outcome, Failure> {
    let args = workload.run();
    let plan = Plan::new(workload)?;
    let server = Server::new(&args.server)?;
    let clients = u64::from(plan.publishers) + u64::from(plan.subscribers);
    allow_files(clients)?;
    let progress = Progress::new(args.server.quiet);
    progress.say(&format!(
        "{}: {} publishers, {} subscribers, {} at MQTT {}, seed {}",
        plan.workload,
        number(plan.publishers.into()),
        number(plan.subscribers.into()),
        server.address,
        server.version,
        plan.names.seed
    ));
    let pids = &args.broker_pid;
    let resident_before = usage::resident(pids)?;
    let clock = Stopwatch::start();
    let (sender, reports) = channel();
    let shared = Arc::new(Shared::new(plan, server, clock));
    let (mut reactors, mut wakers) = (Vec::new(), Vec::new());
    for _ in 0..shared.plan.threads {
        let (reactor, waker) = Worker::reactor(&shared)?;
        reactors.push(reactor);
        wakers.push(waker);
    }
    let wakers = Arc::new(wakers);
    for (number, reactor) in (0..).zip(reactors) {
        let (shared, wakers, sender) = (Arc::clone(&shared), Arc::clone(&wakers), sender.clone());
        thread::Builder::new()
            .name(format!("bench-{number}"))
            .spawn(move || Worker::run(shared, number, reactor, wakers, sender))
            .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
    }
    drop(sender);
    let mut control = Control {
        shared: Arc::clone(&shared),
        reports,
        wakers,
        ended: Vec::new(),
        open: BTreeMap::new(),
        outcome: Outcome::new(&shared),
        progress,
    };
    control.connect()?;
    control.outcome.resident = (resident_before, usage::resident(pids)?, 0);
    control.start();
    control.measure(pids)?;
    control.finish()?;
    control.outcome.resident.2 = usage::resident(pids)?;
    Ok(control.outcome)
}

/// The main thread's view of a run.
struct Control {
    shared: Arc<Shared>,
    reports: Receiver<Report>,
    wakers: Arc<Vec<Waker>>,
    ended: Vec<Ended>,
    /// Intervals that some threads have told of: how many, and their sum, by when they begin.
    open: BTreeMap<u64, (u32, Interval)>,
    outcome: Outcome,
    progress: Progress,
}

impl Control {
    /// Waits until all clients are there.
    fn connect(&mut self) -> Result<(), Failure> {
        let mut ready = 0;
        while ready < self.shared.plan.threads {
            match self.reports.recv() {
                Ok(Report::Ready) => ready += 1,
                Ok(other) => self.take(other)?,
                Err(_) => return Err(Failure::new("a thread of the load has failed")),
            }
        }
        Ok(())
    }

    fn start(&self) {
        let start = self.shared.clock.nanoseconds() + RUN_UP;
        self.shared.start.store(start, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        for waker in &*self.wakers {
            // A thread that is not woken looks for itself soon.
            let _ = waker.wake();
        }
    }

    /// Follows the run until nothing more is to come.
    fn measure(&mut self, pids: &[u32]) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let (begin, end) = shared.measured();
        let drain_max = plan.drain.saturating_mul(10);
        self.wait_until(begin)?;
        let before = Moment::now(pids)?;
        let mut after = None;
        let (mut progress, mut progress_at) = (0, begin);
        let (mut everything, mut everything_at) = (0, 0);
        if end != u64::MAX {
            self.wait_until(end)?;
            progress_at = shared.clock.nanoseconds().min(end);
            // A run that was cut short is over when what was sent has arrived.
            if !signal::is_interrupted() {
                after = Some((Moment::now(pids)?, end));
            }
        }
        loop {
            if signal::is_interrupted() {
                shared.stopped.store(true, Relaxed);
            }
            self.wait_a_moment()?;
            let now = shared.clock.nanoseconds();
            let is_finished = shared.workers.iter().all(|w| w.finished.load(Relaxed));
            let acked = shared.sum(|worker| &worker.acked);
            let delivered = shared.sum(|worker| &worker.delivered);
            let sent = shared.sum(|worker| &worker.sent);
            let received = shared.sum(|worker| &worker.received) + acked;
            if received != progress {
                (progress, progress_at) = (received, now);
            }
            let is_acked = plan.qos == avocet_codec::QoS::AtMostOnce || acked >= sent;
            if is_finished && is_acked && delivered >= sent * plan.fan_out() {
                // The end of a run of a certain count is when everything is there.
                if everything_at == 0 || everything != received {
                    (everything, everything_at) = (received, now);
                    after = after.or_else(|| Some((Moment::now(pids).ok()?, progress_at)));
                }
                if now - everything_at >= QUIET {
                    break;
                }
            }
            let may_be_silent = matches!(plan.load, Load::Open { .. }) && !is_finished;
            let is_silent = now.saturating_sub(progress_at) > plan.drain && !may_be_silent;
            let is_late = end != u64::MAX && now.saturating_sub(end) > drain_max;
            if is_silent || is_late {
                break;
            }
        }
        let (after, until) = match after {
            Some(after) => after,
            None => (Moment::now(pids)?, progress_at),
        };
        self.outcome.measured = until.saturating_sub(begin);
        self.outcome.used = after.since(&before);
        Ok(())
    }

    /// Takes reports for as long as may pass between two looks.
    fn wait_a_moment(&mut self) -> Result<(), Failure> {
        match self.reports.recv_timeout(LOOK) {
            Ok(report) => self.take(report),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::new("a thread of the load has failed"))
            }
        }
    }

    /// Takes reports until a time, or until the process is asked to end.
    fn wait_until(&mut self, time: u64) -> Result<(), Failure> {
        loop {
            let now = self.shared.clock.nanoseconds();
            if now >= time || signal::is_interrupted() {
                return Ok(());
            }
            let wait = Duration::from_nanos((time - now).min(SIGNAL));
            match self.reports.recv_timeout(wait) {
                Ok(report) => self.take(report)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new("a thread of the load has failed"));
                }
            }
        }
    }

    fn take(&mut self, report: Report) -> Result<(), Failure> {
        match report {
            Report::Ready => {}
            Report::Interval(interval) => self.take_interval(*interval),
            Report::Ended(Ok(ended)) => self.ended.push(*ended),
            Report::Ended(Err(failure)) => {
                self.shared.over.store(true, Relaxed);
                self.wake();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn take_interval(&mut self, interval: Interval) {
        let begin = interval.begin;
        let (count, sum) = self.open.entry(begin).or_default();
        *count += 1;
        if *count == 1 {
            *sum = interval;
        } else {
            sum.sent += interval.sent;
            sum.received += interval.received;
            sum.latency.merge(&interval.latency);
            sum.acknowledged.merge(&interval.acknowledged);
        }
        if *count < self.shared.plan.threads {
            return;
        }
        if let Some((_, whole)) = self.open.remove(&begin) {
            self.close_interval(&whole);
        }
    }

    fn close_interval(&mut self, interval: &Interval) {
        let start = self.shared.start.load(Relaxed);
        let (begin, end) = self.shared.measured();
        let is_drain = start + interval.begin >= end;
        let point = Point::new(interval, begin.saturating_sub(start), is_drain);
        self.progress.show(&point);
        let outcome = &mut self.outcome;
        outcome.sent_in_all += interval.sent;
        outcome.received_in_all += interval.received;
        if interval.is_measured {
            outcome.latency.merge(&interval.latency);
            outcome.acknowledged.merge(&interval.acknowledged);
            if !is_drain {
                outcome.sent += interval.sent;
                outcome.received += interval.received;
            }
        }
        if !is_drain {
            outcome.points.push(point);
        }
    }

    /// Ends the threads and adds up what they saw.
    fn finish(&mut self) -> Result<(), Failure> {
        self.shared.stopped.store(true, Relaxed);
        self.shared.over.store(true, Relaxed);
        self.wake();
        while self.ended.len() < self.shared.plan.threads as usize {
            match self.reports.recv() {
                Ok(report) => self.take(report)?,
                Err(_) => return Err(Failure::new("a thread of the load has failed")),
            }
        }
        let plan = &self.shared.plan;
        let mut sent = vec![0; plan.publishers as usize];
        for (publisher, count) in self.ended.iter().flat_map(|ended| &ended.sent) {
            if let Some(sent) = sent.get_mut(*publisher as usize) {
                *sent = *count;
            }
        }
        let outcome = &mut self.outcome;
        for ended in &self.ended {
            outcome.faults += ended.faults;
            outcome.unsent += ended.unsent;
            outcome.stalls += ended.stalls;
            outcome.lag.merge(&ended.lag);
            if ended.refused_with.is_some() {
                outcome.refused_with.clone_from(&ended.refused_with);
            }
            for (publisher, stream) in (0..).zip(&ended.group) {
                let faults = Faults {
                    lost: stream.lost(sent.get(publisher as usize).copied().unwrap_or(0)),
                    ..Faults::default()
                };
                // The others have no subscribers, and have seen nothing.
                if !ended.subscribers.is_empty() {
                    outcome.add_stream(publisher, None, faults);
                }
            }
            for subscriber in &ended.subscribers {
                for (place, heard) in (0..).zip(&subscriber.streams) {
                    let publisher = plan.publisher_at(subscriber.index, place);
                    let sent = sent.get(publisher as usize).copied().unwrap_or(0);
                    let lost = match plan.shape {
                        // Any of them may get a message.
                        Shape::Shared => 0,
                        Shape::FanIn | Shape::FanOut | Shape::Pairs => heard.stream.lost(sent),
                    };
                    let faults = Faults {
                        lost,
                        ..heard.faults
                    };
                    outcome.add_stream(publisher, Some(subscriber.index), faults);
                }
            }
        }
        // Nobody is to get what was refused.
        let refused = outcome.faults.refused * plan.fan_out();
        outcome.faults.lost = outcome.faults.lost.saturating_sub(refused);
        Ok(())
    }
}
