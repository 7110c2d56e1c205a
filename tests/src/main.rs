//! Installs what the interop tests need, says what it installs, and builds the binaries under test.

use avocet_tests::provision;

fn main() -> anyhow::Result<()> {
    provision::provision()?;
    provision::avocet_broker()?;
    provision::avocet()?;
    provision::examples()?;
    provision::rumqttd()?;
    Ok(())
}
