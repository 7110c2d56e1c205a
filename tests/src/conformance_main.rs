//! `avocet-conformance HOST:PORT [PART OF A NAME]`: does that server conform to the standards?

use std::net::ToSocketAddrs as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use avocet_tests::conformance::{GROUPS, run};

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments
        .next()
        .context("usage: avocet-conformance HOST:PORT [PART OF A NAME]")?;
    let address = server
        .to_socket_addrs()
        .with_context(|| server.clone())?
        .next()
        .with_context(|| format!("{server} has no address"))?;
    let filter = arguments.next().unwrap_or_default();
    let reports = run(address, GROUPS, &filter, |report| println!("{report}"));
    let failed = reports.iter().filter(|report| report.failure.is_some());
    let failed = failed.count();
    println!("{} passed, {failed} failed", reports.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
