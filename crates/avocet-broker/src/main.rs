//! The broker's binary.

mod arguments;
#[cfg(unix)]
mod control;
mod notify;
mod privileges;
mod reload;
mod store_command;

use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use avocet_broker::{
    Broker, Config, DataErrorReason, Durability, ListenAddress, Listener, LogFormat, StartError,
    reference,
};
use avocet_store::OpenError;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, info};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::arguments::{Action, Arguments};
use crate::notify::Manager;
use crate::reload::Reload;

/// Exit code for what the user asked for wrongly: flags, configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Action::Settings)) {
        print!("{}", reference());
        return ExitCode::SUCCESS;
    }
    if let Some(Action::Store(action)) = &arguments.command {
        return store_command::run(action);
    }
    // A variable that is not Unicode cannot be a setting's value.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = match arguments.settings.load(variables) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("avocet-broker: {error}");
            return ExitCode::from(USAGE);
        }
    };
    if matches!(arguments.command, Some(Action::Check)) {
        if let Err(error) = config.check_files() {
            eprintln!("avocet-broker: {error}");
            return ExitCode::from(USAGE);
        }
        println!("the configuration is fine");
        return ExitCode::SUCCESS;
    }
    if matches!(arguments.command, Some(Action::Reload)) {
        return ask_to_reload(&config);
    }
    start_log(&config);
    privileges::raise_open_files();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the broker is told to read its files again. A service without a data directory has one of systemd.
fn control_socket(config: &Config) -> Option<PathBuf> {
    let of_service = || std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
    let socket = config.control_socket();
    socket.or_else(|| of_service().map(|dir| dir.join("control.sock")))
}

/// Has the broker that runs with this configuration read its files again, and tells what came of it.
fn ask_to_reload(config: &Config) -> ExitCode {
    let Some(path) = control_socket(config) else {
        eprintln!(
            "avocet-broker: a broker without `data_dir` is reached where `control_socket` says; set it"
        );
        return ExitCode::from(USAGE);
    };
    #[cfg(unix)]
    let answer = control::ask(&path);
    #[cfg(not(unix))]
    let answer: anyhow::Result<String> = {
        let _ = path;
        Err(anyhow::anyhow!("this system has no Unix sockets"))
    };
    match answer {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("avocet-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the socket of `avocet-broker reload`. Where nobody has asked for it, the broker does without.
#[cfg(unix)]
fn open_control(config: &Config, reload: Arc<Reload>) -> anyhow::Result<Option<control::Control>> {
    let Some(path) = control_socket(config) else {
        return Ok(None);
    };
    match control::Control::start(&path, reload) {
        Ok(control) => Ok(Some(control)),
        Err(error) if config.control_socket.is_none() => {
            tracing::warn!("`avocet-broker reload` needs `control_socket`: {error}");
            Ok(None)
        }
        Err(error) => anyhow::bail!("control_socket: {error}"),
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let manager = Manager::of_environment();
    let bound = Broker::bind(config.clone()).map_err(advise)?;
    privileges::give_up(&config)?;
    let broker = bound.start().map_err(advise)?;
    describe(&config, &broker);
    let manager = Arc::new(manager);
    let reload = Arc::new(Reload::new(broker.reloader(), Arc::clone(&manager)));
    #[cfg(unix)]
    let _control = open_control(&config, Arc::clone(&reload))?;
    manager.ready();
    Arc::clone(&manager).watch(broker.pulse())?;
    let stopper = broker.stopper();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    // What came of it is in the log.
                    let _ = reload.run();
                    continue;
                }
                if asked {
                    error!("stopped by a second signal, without waiting for clients");
                    std::process::exit(1);
                }
                asked = true;
                manager.stopping();
                info!(
                    "stopping: {}",
                    signal_hook::low_level::signal_name(signal).unwrap_or("signal")
                );
                stopper.stop();
            }
        })?;
    broker.wait()?;
    info!("stopped");
    Ok(())
}

/// Why the broker cannot start, and what helps.
fn advise(error: StartError) -> anyhow::Error {
    if let StartError::Listen(refused) = &error
        && refused.source.kind() == io::ErrorKind::AddrInUse
    {
        return anyhow::anyhow!("{refused}; choose another port with --listen HOST:PORT");
    }
    if let StartError::Data(refused) = &error
        && matches!(refused.reason, DataErrorReason::Open(OpenError::Locked))
    {
        return anyhow::anyhow!("{refused}; stop it, or choose another folder with --data-dir DIR");
    }
    if let StartError::Data(refused) = &error
        && let DataErrorReason::Open(OpenError::Io {
            kind: io::ErrorKind::PermissionDenied,
            ..
        }) = &refused.reason
    {
        return anyhow::anyhow!("{refused}; it must belong to the user that the broker runs as");
    }
    error.into()
}

/// Tells what runs and how to go on.
fn describe(config: &Config, broker: &Broker) {
    let connection = &config.engine.connection;
    let features = [
        ("retained messages", connection.retain_available),
        (
            "shared subscriptions",
            connection.shared_subscription_available,
        ),
        ("$SYS topics", config.engine.sys_interval.is_some()),
        (
            "anonymous access from other machines",
            config.access.anonymous,
        ),
        (
            "users with passwords",
            config.access.password_file.is_some(),
        ),
        ("rules", config.access.rules.is_some()),
        ("durable storage", config.is_durable()),
        ("TLS", config.listen.iter().any(|it| it.tls.is_some())),
        (
            "WebSocket",
            config.listen.iter().any(|it| it.websocket.is_some()),
        ),
    ];
    let those = |wanted: bool| {
        let names = features
            .iter()
            .filter(|(_, on)| *on == wanted)
            .map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    info!(
        "avocet-broker {}: MQTT 3.1, 3.1.1 and 5.0",
        env!("CARGO_PKG_VERSION")
    );
    info!("on: {}", those(true));
    info!("off: {}", those(false));
    if config.is_durable() {
        let level = match config.durability {
            Durability::Memory => "does not wait for the disk",
            Durability::Os => "survives this process, not a loss of power",
            Durability::Fsync | _ => "is on disk",
        };
        let mut levels = config.listen.iter().filter_map(|it| it.durability);
        let others = levels.next().is_some() || !config.topic_durability.is_empty();
        let others = if others {
            "; some listeners or topics have another durability"
        } else {
            ""
        };
        info!("what is acknowledged {level}{others}");
    } else {
        info!("all state is in memory and ends with this process; --data-dir DIR keeps it on disk");
    }
    let is_tcp = |it: &&Listener| matches!(it.address, ListenAddress::Tcp(_));
    let is_plain = |it: &Listener| it.tls.is_none() && it.websocket.is_none() && !it.proxy_protocol;
    let listeners = config.listen.iter().filter(is_tcp);
    let mut plain = listeners.zip(broker.local_addrs());
    if let Some((_, address)) = plain.find(|(listener, _)| is_plain(listener)) {
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        let port = address.port();
        info!("try: avocet sub -h {host} -p {port} -t 'demo/#'");
        info!("and: avocet pub -h {host} -p {port} -t demo/hello -m 'hello'");
    }
}

fn start_log(config: &Config) {
    let filter = config.log.filter.parse();
    let info = Targets::new().with_default(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let lines = match config.log.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(filter.unwrap_or(info))
        .init();
}
