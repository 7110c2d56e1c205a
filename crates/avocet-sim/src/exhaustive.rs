//! Small histories with a crash at every event, and a loss of power at every step of the disk.

use avocet_codec::{QoS, RetainHandling, SubscriptionOptions};
use avocet_engine::Level;

use crate::plan::{
    Action, Crash, Cut, MILLI, Micros, Op, Plan, Profile, Role, SECOND, System, WillPlan,
};
use crate::rng::Rng;
use crate::run::run_world;
use crate::world::World;

const PUBLISHER: usize = 2;
const SUBSCRIBER: usize = 3;

/// When the small history ends.
const CALM: Micros = SECOND;

fn connect(client: usize) -> (usize, Action) {
    let clean_start = false;
    let will = None;
    (client, Action::Connect { clean_start, will })
}

fn publish(qos: QoS, retain: bool, padding: Option<usize>) -> (usize, Action) {
    let action = Action::Publish {
        topic: "a",
        qos,
        retain,
        padding,
        expiry: None,
    };
    (PUBLISHER, action)
}

fn subscribe(qos: QoS) -> (usize, Action) {
    let mut options = SubscriptionOptions::new(qos);
    options.retain_handling = RetainHandling::DoNotSend;
    let filters = vec![("a", options)];
    (SUBSCRIBER, Action::Subscribe { filters, id: None })
}

fn unsubscribe() -> (usize, Action) {
    (SUBSCRIBER, Action::Unsubscribe { filter: "a" })
}

fn cut() -> (usize, Action) {
    let cut = Cut {
        arrives: (100, 100),
        client_learns: Some(MILLI),
        server_learns: Some(MILLI),
    };
    (SUBSCRIBER, Action::Cut(cut))
}

/// A message for a client that is there, and one for a client that is gone and comes back.
fn deliveries(qos: QoS) -> Vec<(usize, Action)> {
    vec![
        connect(PUBLISHER),
        connect(SUBSCRIBER),
        subscribe(qos),
        publish(qos, false, Some(0)),
        (SUBSCRIBER, Action::Disconnect { with_will: false }),
        publish(qos, false, Some(0)),
        connect(SUBSCRIBER),
        unsubscribe(),
    ]
}

/// One value after the other, and none.
fn retained(last: Option<usize>) -> Vec<(usize, Action)> {
    vec![
        connect(PUBLISHER),
        publish(QoS::AtLeastOnce, true, Some(0)),
        publish(QoS::ExactlyOnce, true, Some(0)),
        publish(QoS::AtLeastOnce, true, last),
    ]
}

/// A session with a message is discarded.
fn discard() -> Vec<(usize, Action)> {
    let clean_start = true;
    let will = None;
    vec![
        connect(PUBLISHER),
        connect(SUBSCRIBER),
        subscribe(QoS::ExactlyOnce),
        (SUBSCRIBER, Action::Disconnect { with_will: false }),
        publish(QoS::ExactlyOnce, false, Some(0)),
        (SUBSCRIBER, Action::Connect { clean_start, will }),
    ]
}

fn will(delay: u32) -> Vec<(usize, Action)> {
    let will = Some(WillPlan {
        topic: "a",
        qos: QoS::ExactlyOnce,
        retain: true,
        delay,
    });
    let clean_start = false;
    let connect = Action::Connect { clean_start, will };
    vec![(SUBSCRIBER, connect.clone()), cut(), (SUBSCRIBER, connect)]
}

fn histories() -> Vec<(&'static str, Vec<(usize, Action)>)> {
    vec![
        ("QoS 1", deliveries(QoS::AtLeastOnce)),
        ("QoS 2", deliveries(QoS::ExactlyOnce)),
        ("a retained value", retained(Some(0))),
        ("no retained value", retained(None)),
        ("a discarded session", discard()),
        ("a will", will(0)),
        ("a will with a delay", will(1)),
    ]
}

fn plan(history: &[(usize, Action)], shards: u16, log: bool, level: Level) -> Plan {
    let seed = 1;
    let mut system = System::draw(seed, &mut Rng::new(seed, "exhaustive", 0));
    system.shards = shards;
    system.stored = true;
    system.crashes = true;
    system.log = log;
    system.level = level;
    system.commit_max = MILLI;
    system.echoes = 0;
    system.receive_maximum = u16::MAX;
    system.queued_messages_max = 1_000;
    system.total_max = 1_000;
    system.turn_max = 100;
    system.access.asked = false;
    let profile = |role, client_id: &str| Profile {
        client_id: client_id.to_owned(),
        expiry: u32::MAX,
        ..Profile::reliable(role)
    };
    let mut checker = profile(Role::Checker, "checker");
    checker.expiry = 0;
    let clients = vec![
        profile(Role::Witness, "witness"),
        checker,
        profile(Role::Plain, "publisher"),
        profile(Role::Plain, "subscriber"),
    ];
    let ops = (1..).zip(history).map(|(number, (client, action))| Op {
        number,
        at: Micros::from(number) * 5 * MILLI,
        client: *client,
        action: action.clone(),
    });
    Plan {
        seed,
        system,
        clients,
        ops: ops.collect(),
        calm_at: CALM,
        end_at: CALM + 40 * SECOND,
    }
}

fn crash_after(plan: &Plan, after: u32, power: bool, shards: u16) -> Plan {
    let mut plan = plan.clone();
    let crash = Crash {
        after,
        power,
        again: after.is_multiple_of(3),
        ..Crash::power(shards)
    };
    let op = Op {
        number: 1_000,
        at: 0,
        client: PUBLISHER,
        action: Action::Crash(crash),
    };
    plan.ops.insert(0, op);
    plan
}

fn check(plan: &Plan, what: &str) {
    let outcome = run_world(World::new(plan, false));
    if let Some(failure) = outcome.failure {
        for line in run_world(World::new(plan, true)).history {
            println!("{line}");
        }
        panic!("{what}: {failure}");
    }
}

/// How many events a history has, and how many steps of the disk it takes.
fn length(plan: &Plan) -> (u32, u64) {
    let mut world = World::new(plan, false);
    world.run();
    assert!(world.failure.is_none(), "{:?}", world.failure);
    let steps = world.store.journal.store().steps();
    (world.marks.events as u32, steps - world.marks.steps)
}

#[test]
fn a_crash_at_any_event_breaks_no_promise() {
    for (name, history) in histories() {
        for shards in [1, 2] {
            for (power, log) in [(false, false), (true, true)] {
                let level = if power { Level::Fsync } else { Level::Os };
                let plan = plan(&history, shards, log, level);
                let (events, _) = length(&plan);
                for after in 0..events {
                    let plan = crash_after(&plan, after, power, 1 + after as u16 % 3);
                    let what = format!("{name}, {shards} shards, power {power}, log {log}");
                    check(&plan, &format!("{what}, after {after} events"));
                }
            }
        }
    }
}

#[test]
fn a_loss_of_power_at_any_step_of_the_disk_breaks_no_promise() {
    for (name, history) in histories() {
        for shards in [1, 2] {
            let mut plan = plan(&history, shards, true, Level::Fsync);
            let (_, steps) = length(&plan);
            for after in 0..steps {
                plan.system.power_ends = Some(after);
                let what = format!("{name}, {shards} shards, after {after} steps");
                check(&plan, &what);
            }
        }
    }
}
