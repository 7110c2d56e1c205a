//! What neither the compiler nor clippy looks at.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::workspace::{Workspace, output};

/// Longer files need a line that starts with [`LONG`] and says why, among their first twenty.
const LINES_MAX: usize = 1_500;
const LONG: &str = "// Long because ";

/// The files whose rules are about text that people write.
const TEXTS: &[&str] = &["rs", "md", "toml", "py", "js", "sh", "yml"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = workspace.root();
    // Files that git would take but does not know yet are checked too.
    let listed = output(
        &mut workspace.line("git ls-files --cached --others --exclude-standard --deduplicate"),
    )?;
    let mut problems = Vec::new();
    let mut files = 0;
    for name in listed.lines() {
        let extension = Path::new(name)
            .extension()
            .and_then(|extension| extension.to_str());
        // A file deleted and not yet committed is listed without being there.
        if !extension.is_some_and(|extension| TEXTS.contains(&extension))
            || !root.join(name).is_file()
        {
            continue;
        }
        files += 1;
        problems.extend(check_text(name, &fs::read_to_string(root.join(name))?));
    }
    problems.extend(check_decisions(&root.join("docs/decisions"))?);
    if !problems.is_empty() {
        bail!("\n{}", problems.join("\n"));
    }
    println!("{files} files");
    Ok(())
}

/// Every record in `docs/decisions` is linked from the index there.
fn check_decisions(folder: &Path) -> Result<Vec<String>> {
    let index = fs::read_to_string(folder.join("README.md"))?;
    let mut problems = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "README.md" && !index.contains(&format!("({name})")) {
            problems.push(format!("docs/decisions/README.md lacks a link to {name}"));
        }
    }
    Ok(problems)
}

/// The problems of one file, each as `name:line: what`.
fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |line: usize, what: &str| problems.push(format!("{name}:{line}: {what}"));

    let lines = text.lines().count();
    if lines > LINES_MAX && !text.lines().take(20).any(|line| line.starts_with(LONG)) {
        problem(lines, "longer than 1,500 lines, without a reason");
    }
    let compared = CONSTANT_TIME.iter().find(|(file, _)| *file == name);
    if let Some((_, times)) = compared
        && text.matches(".ct_eq(").count() != *times
    {
        problem(
            1,
            "secrets are compared with `ct_eq`; say how often in xtask/src/tidy.rs",
        );
    }
    let rust = name.ends_with(".rs");
    let mut in_tests = is_test_file(name);
    for (number, line) in (1..).zip(text.lines()) {
        if LEFTOVERS.iter().any(|word| has_word(line, word)) {
            problem(number, "a leftover; do it, or open an issue");
        }
        if MACHINE_PATHS.iter().any(|path| has_path(line, path)) {
            problem(number, "a path of one machine");
        }
        if let Some(tag) = unknown_tag(line) {
            problem(number, &format!("{tag} is no statement of a known version"));
        }
        let line = line.trim_start();
        if ignores_example(line) {
            problem(number, "an example that is not compiled");
        }
        in_tests |= line.starts_with("#[cfg(test)]");
        let code = line.split("//").next().unwrap_or_default();
        if in_tests && code.contains(SLEEP) {
            problem(
                number,
                "a test that sleeps; wait for an event, with a deadline",
            );
        }
        if rust && code.starts_with(IGNORE) {
            problem(number, "an ignored test");
        }
        if rust && line.strip_prefix("//").is_some_and(is_code) {
            problem(number, "commented-out code; git remembers");
        }
    }
    problems
}

/// Where secrets are compared in a time that says nothing of them, and how often: no test can tell that
/// from `==`.
const CONSTANT_TIME: &[(&str, usize)] = &[
    ("crates/avocet-access/src/password/hash.rs", 1),
    ("crates/avocet-access/src/scram.rs", 2),
];

// Spelled in two halves where this file would otherwise trip over itself.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
];
const SLEEP: &str = concat!("sle", "ep(");
const IGNORE: &str = concat!("#[ig", "nore");

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// Whether `word` stands in the line with no letter or digit at either end.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Whether an absolute path starts with `path`.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "./_-$+#}".contains(before))
    })
}

/// The first citation in the line that names no version or another than 3.1, 3.1.1 and 5.0, or
/// what is neither a statement, `[MQTT5-3.1.0-1]`, nor a section, `[MQTT5-3.1]`.
fn unknown_tag(line: &str) -> Option<&str> {
    line.match_indices("[MQTT").find_map(|(at, _)| {
        let rest = &line[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
        let tag = &rest[..end.unwrap_or(rest.len())];
        // Code that writes or reads citations spells only their beginning.
        let (version, place) = tag.split_once('-').filter(|(_, place)| !place.is_empty())?;
        let (section, statement) = place.split_once('-').unwrap_or((place, "1"));
        let known = match version {
            "MQTT5" | "MQTT311" => is_number(statement),
            // The sections of 3.1 have no numbered statements.
            "MQTT31" => section == place,
            _ => false,
        };
        (!known || !section.split('.').all(is_number)).then_some(tag)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the line opens a Rust example that rustdoc would not compile.
fn ignores_example(line: &str) -> bool {
    let line = line.trim_start_matches(['/', '!', ' ']);
    line.strip_prefix("```")
        .is_some_and(|info| info.split(',').any(|word| word.trim() == "ignore"))
}

/// Whether the text of a comment reads like a statement, an attribute or the end of a block.
fn is_code(comment: &str) -> bool {
    if comment.starts_with(['/', '!']) {
        return false;
    }
    let comment = comment.trim();
    let is_end = !comment.is_empty() && comment.chars().all(|c| "{}();,".contains(c));
    let is_attribute = comment.starts_with("#[") || comment.starts_with("#![");
    let is_call = comment.ends_with(");") || comment.ends_with(")?;");
    let is_assignment = comment.ends_with(';') && comment.contains(" = ");
    let starts = |words: &[&str]| words.iter().any(|word| comment.starts_with(word));
    let is_item = comment.ends_with([';', '{', '}'])
        && starts(&[
            "let ", "use ", "fn ", "pub ", "mod ", "impl ", "struct ", "enum ", "return ",
        ]);
    let is_block =
        comment.ends_with('{') && starts(&["if ", "for ", "while ", "match ", "loop ", "} "]);
    is_end || is_attribute || is_call || is_assignment || is_item || is_block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one line in a file, without the place.
    fn problems(name: &str, text: &str) -> Vec<String> {
        let place = |problem: String| problem.split(": ").nth(1).unwrap_or_default().to_owned();
        check_text(name, text).into_iter().map(place).collect()
    }

    #[test]
    fn finds_leftovers_as_whole_words() {
        let leftover = format!("let x = 1; // {} later", LEFTOVERS[0]);
        assert_eq!(
            check_text("src/a.rs", &leftover),
            ["src/a.rs:1: a leftover; do it, or open an issue"]
        );
        assert_eq!(problems("a.md", &format!("{}S.md", LEFTOVERS[0])).len(), 0);
    }

    #[test]
    fn finds_secrets_that_are_compared_otherwise() {
        let (name, times) = CONSTANT_TIME[0];
        assert_eq!(problems(name, &"a.ct_eq(&b);\n".repeat(times)).len(), 0);
        assert_eq!(problems(name, "a == b;").len(), 1);
        assert_eq!(problems("src/a.rs", "a == b;").len(), 0);
    }

    #[test]
    fn finds_code_in_comments() {
        for code in [
            "// let x = 1;",
            "    // self.queue.push(packet);",
            "// }",
            "// });",
            "// #[test]",
            "// if x {",
            "// } else {",
            "//queue = Vec::new();",
            "// pub fn decode(input: &[u8]) -> Packet {",
        ] {
            assert_eq!(
                problems("src/a.rs", code),
                ["commented-out code; git remembers"],
                "{code}"
            );
        }
    }

    #[test]
    fn takes_prose_for_prose() {
        for prose in [
            "// The quota is returned by PUBACK;",
            "// if the peer agreed, and only then",
            "/// let this be documentation;",
            "// Two cases (both rare):",
            "let x = f(); // f is pure",
            "// `{` opens a block",
            "// 0 = none; 1 = one",
        ] {
            assert_eq!(problems("src/a.rs", prose), Vec::<String>::new(), "{prose}");
        }
    }

    #[test]
    fn finds_sleep_in_tests_only() {
        let sleep = format!("thread::{SLEEP}SECOND)");
        assert_eq!(problems("crates/a/src/timer.rs", &sleep).len(), 0);
        assert_eq!(
            problems(
                "crates/a/src/timer.rs",
                &format!("#[cfg(test)]\nmod t {{\n{sleep}")
            )
            .len(),
            1
        );
        assert_eq!(problems("crates/a/tests/story.rs", &sleep).len(), 1);
        assert_eq!(problems("tests/paho/client.py", &sleep).len(), 1);
        assert_eq!(problems("crates/a/src/tests.rs", &sleep).len(), 1);
        assert_eq!(
            problems("crates/a/tests/story.rs", &format!("// never {sleep}")).len(),
            0
        );
    }

    #[test]
    fn finds_ignored_tests() {
        assert_eq!(
            problems("src/a.rs", &format!("    {IGNORE} = \"slow\"]")),
            ["an ignored test"]
        );
    }

    #[test]
    fn finds_examples_that_are_not_compiled() {
        let fence = "```";
        for info in ["ignore", "rust,ignore", "ignore, no_run"] {
            let line = format!("/// {fence}{info}");
            assert_eq!(
                problems("src/a.rs", &line),
                ["an example that is not compiled"],
                "{line}"
            );
        }
        assert_eq!(problems("README.md", &format!("{fence}ignore")).len(), 1);
        assert_eq!(
            problems("README.md", &format!("{fence}rust,no_run")).len(),
            0
        );
    }

    #[test]
    fn knows_the_versions_of_statements() {
        for known in [
            "[MQTT5-3.3.1-2]",
            "[MQTT311-4.7.1-1] [MQTT5-4.7.1-1]",
            "[MQTT31-3.1]",
            "[MQTT5-4.7]",
            "[MQTT]",
            "strip_prefix(\"[MQTT5-\")",
        ] {
            assert_eq!(unknown_tag(known), None, "{known}");
        }
        for unknown in [
            "MQTT-3.3.1-2",
            "MQTT5-3.3.1-",
            "MQTT4-3.3.1-2",
            "MQTT31-3.1-1",
            "MQTT311-a.b-1",
        ] {
            assert_eq!(
                unknown_tag(&format!("see [{unknown}] there")),
                Some(unknown)
            );
        }
    }

    #[test]
    fn finds_paths_of_one_machine() {
        let path = MACHINE_PATHS[0];
        assert!(has_path(&format!("cd {path}main"), path));
        assert!(has_path(&format!("\"{path}main\""), path));
        assert!(!has_path(&format!("home{path}lamp"), path));
        assert!(!has_path(&format!("+{path}lamp"), path));
    }

    #[test]
    fn asks_for_the_reason_of_a_long_file() {
        let long = "\n".repeat(LINES_MAX + 1);
        assert_eq!(check_text("src/a.rs", &long).len(), 1);
        assert_eq!(
            check_text("src/a.rs", &format!("{LONG}it is a table.{long}")).len(),
            0
        );
        assert_eq!(check_text("src/a.rs", &"\n".repeat(LINES_MAX)).len(), 0);
    }
}
