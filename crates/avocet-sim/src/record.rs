//! The record of long runs: one line for some seeds, and where to go on.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// Seeds per line.
pub(crate) const PAGE: u64 = 500;

/// The first seed that a record does not speak of.
pub(crate) fn next_seed(text: &str) -> u64 {
    let last = |line: &str| -> Option<u64> {
        let seeds = line.strip_prefix("seeds ")?.split_whitespace().next()?;
        seeds.split_once("..=")?.1.parse().ok()
    };
    text.lines().filter_map(last).max().unwrap_or(0) + 1
}

/// Appends the line of a page of seeds.
pub(crate) fn append(path: &Path, from: u64, events: u64, failed: &[u64]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", line(from, events, failed))
}

fn line(from: u64, events: u64, failed: &[u64]) -> String {
    let last = from + PAGE - 1;
    format!("seeds {from}..={last} events {events} failed {failed:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_behind_the_last_seed() {
        assert_eq!(next_seed(""), 1);
        let text = [line(1, 5, &[]), line(PAGE + 1, 7, &[PAGE + 3])].join("\n");
        assert_eq!(next_seed(&text), 2 * PAGE + 1);
    }
}
