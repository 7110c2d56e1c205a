//! Packages every crate that can be published, and builds them from what was packaged.
//!
//! `cargo package` could do the second part too, but where crates need each other, it builds what
//! it unpacked the first time it met this name, version and folder.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use crate::workspace::{Workspace, run};

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    // Uncommitted changes are packaged too: this is about the files, not about the commit.
    let mut package = workspace.cargo("package --no-verify --allow-dirty");
    let members = workspace.metadata.workspace_packages();
    // An empty list of registries means `publish = false`.
    let published: Vec<_> = members
        .iter()
        .filter(|member| member.publish.is_none())
        .collect();
    for member in &published {
        package.args(["--package", &member.name]);
    }
    run(&mut package)?;

    let packages = workspace.target().join("package");
    let unpacked = workspace.target().join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    fs::create_dir_all(&unpacked)?;
    let mut names = Vec::new();
    for member in &published {
        let folder = format!("{}-{}", member.name, member.version);
        let mut unpack = workspace.line("tar --extract --file");
        unpack
            .arg(packages.join(format!("{folder}.crate")))
            .arg("--directory")
            .arg(&unpacked);
        run(&mut unpack)?;
        names.push((member.name.as_str(), folder));
    }
    fs::write(unpacked.join("Cargo.toml"), manifest(&names))?;
    fs::copy(
        workspace.root().join("Cargo.lock"),
        unpacked.join("Cargo.lock"),
    )?;
    let mut check = workspace.cargo("check --workspace --manifest-path");
    run(check
        .arg(unpacked.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(workspace.target()))
}

/// A workspace of the unpacked crates, in which they find each other.
fn manifest(packages: &[(&str, String)]) -> String {
    let mut text = "[workspace]\nresolver = \"3\"\nmembers = [\"avocet-*\"]\n\n".to_owned();
    text.push_str("[patch.crates-io]\n");
    for (name, folder) in packages {
        let _ = writeln!(text, "{name} = {{ path = \"{folder}\" }}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacked_crates_find_each_other() {
        let text = manifest(&[("avocet-topic", "avocet-topic-0.1.0".to_owned())]);
        let last = "[patch.crates-io]\navocet-topic = { path = \"avocet-topic-0.1.0\" }\n";
        assert!(text.ends_with(last), "{text}");
    }
}
