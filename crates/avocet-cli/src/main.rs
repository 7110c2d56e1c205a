//! `avocet`: publish, subscribe, request and decode MQTT from the command line.

mod args;
mod date;
mod exit;
mod format;
mod property;
mod url;

fn main() {}
