//! Clients that connect, stay and leave.

use avocet_codec::Packet;

use crate::bench::histogram::Histogram;
use crate::bench::open::{Pace, Server, Wanted, allow_files};
use crate::bench::phases::Phases;
use crate::bench::plan::Names;
use crate::bench::reactor::{Handler, Reactor};
use crate::bench_args::ConnectArgs;
use crate::clock::Stopwatch;
use crate::exit::Failure;

/// Clients that ask for nothing.
struct Silent;

impl Handler for Silent {
    fn on_packet(
        &mut self,
        client: usize,
        packet: &Packet<'_>,
        _out: &mut Vec<u8>,
        _now: u64,
    ) -> Result<(), Failure> {
        if matches!(packet, Packet::Pingresp) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "client {client}: the server sent {}, which nobody asked for",
            packet.packet_type()
        )))
    }
}

/// Runs the workload.
///
/// # Errors
///
/// What kept it from running to its end.
pub(crate) fn run(args: &ConnectArgs) -> Result<Phases, Failure> {
    let clients = args.clients.get();
    let server = Server::new(&args.run.server)?;
    allow_files(clients.into())?;
    let (names, clock) = (Names::new(&args.run), Stopwatch::start());
    let settings = vec![("clients", u64::from(clients))];
    let mut phases = Phases::new("connect", &server, names, settings, &args.run, clock)?;
    let done = load(args, server, names, clock, &mut phases);
    phases.finish(done)
}

fn load(
    args: &ConnectArgs,
    server: Server,
    names: Names,
    clock: Stopwatch,
    phases: &mut Phases,
) -> Result<(), Failure> {
    let clients = args.clients.get();
    let mut reactor = Reactor::new(server, clock, 0)?;
    let wanted = (0..clients)
        .map(|index| Wanted::new(format!("client {index}"), names.client_id('c', index)))
        .collect();
    let pace = Pace {
        interval: args.rate.map_or(0, |rate| (1e9 / rate) as u64),
        index: 0,
    };
    let mut times = Histogram::default();
    phases.begin("connected", "connections")?;
    reactor.open(wanted, pace, &mut times, &mut Silent)?;
    phases.end(clock.nanoseconds(), clients.into(), times)?;
    reactor.stay(args.hold, clients.into(), &mut Silent, phases)?;
    phases.begin("left", "connections")?;
    reactor.leave()?;
    phases.end(clock.nanoseconds(), clients.into(), Histogram::default())
}
