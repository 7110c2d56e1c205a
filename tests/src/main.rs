//! Installs what the interop tests need and says what it installed.

fn main() -> anyhow::Result<()> {
    avocet_tests::provision::provision()?;
    Ok(())
}
