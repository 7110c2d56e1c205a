//! `avocet passwd` and `avocet acl`, as people and scripts call them.
#![allow(clippy::unwrap_used, reason = "what fails here is to fail the test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn avocet(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_avocet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn users_are_made_checked_changed_and_removed() {
    let folder = Folder::new("passwd_users");
    let file = folder.file("passwd");
    assert_eq!(code(&avocet(&["passwd", &file, "ann"], "red\n")), 0);
    assert_eq!(
        code(&avocet(&["passwd", "-b", &file, "bob", "blue"], "")),
        0
    );
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2);
    for (user, password, expected) in [
        ("ann", "red", 0),
        ("ann", "blue", 2),
        ("bob", "blue\r\n", 0),
        ("eve", "red", 2),
    ] {
        let output = avocet(&["passwd", "--check", &file, user], password);
        assert_eq!(code(&output), expected, "{user}: {}", said(&output));
    }
    assert_eq!(code(&avocet(&["passwd", &file, "ann"], "green")), 0);
    assert_eq!(
        code(&avocet(&["passwd", "--check", &file, "ann"], "red")),
        2
    );
    assert_eq!(
        code(&avocet(&["passwd", "--check", &file, "ann"], "green")),
        0
    );
    assert_eq!(code(&avocet(&["passwd", "-D", &file, "ann"], "")), 0);
    let output = avocet(&["passwd", "-D", &file, "ann"], "");
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("no user \"ann\""));
    assert_eq!(
        said(&avocet(&["passwd", "--list", &file], "")),
        "bob: argon2id\n"
    );
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn a_password_file_of_mosquitto_is_read_and_kept() {
    let folder = Folder::new("passwd_mosquitto");
    let file = folder.file("passwd");
    let line = "ann:$7$101$+/oXCXIFu9tWauw1$8UY1YgcfHMW5+iRUCzNGUq1Ew7t7q//Kd3NizIjAEvFDkd+Hgg7Gf0JFflnWIU0CXfVuYq9BC4DmimsTWcm6Eg==\n";
    fs::write(&file, line).unwrap();
    let list = said(&avocet(&["passwd", "--list", &file], ""));
    assert_eq!(
        list,
        "ann: PBKDF2-SHA512, outdated: set the password anew\n"
    );
    assert_eq!(
        code(&avocet(&["passwd", "--check", &file, "ann"], "pencil ☃")),
        0
    );
    assert_eq!(code(&avocet(&["passwd", &file, "bob"], "x")), 0);
    assert!(fs::read_to_string(&file).unwrap().starts_with(line));
    // Setting a password anew is what makes its hash a stronger one.
    assert_eq!(code(&avocet(&["passwd", &file, "ann"], "pencil ☃")), 0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("ann:$argon2id$v=19$"), "{text}");
    assert_eq!(text.lines().count(), 2);
    let check = avocet(&["passwd", "--check", &file, "ann"], "pencil ☃");
    assert_eq!(code(&check), 0);
    let list = said(&avocet(&["passwd", "--list", &file], ""));
    assert_eq!(list, "ann: argon2id\nbob: argon2id\n");
}

#[test]
fn a_wrong_file_or_password_changes_nothing() {
    let folder = Folder::new("passwd_wrong");
    let file = folder.file("passwd");
    let output = avocet(&["passwd", &file, "ann"], "\n");
    assert_eq!(
        (
            code(&output),
            said(&output).contains("the password is empty")
        ),
        (1, true)
    );
    assert!(!Path::new(&file).exists());
    let output = avocet(&["passwd", &file, "a:b"], "x");
    assert_eq!((code(&output), said(&output).contains("`:`")), (1, true));
    fs::write(&file, "# users\nann:secret\n").unwrap();
    let output = avocet(&["passwd", &file, "bob"], "x");
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("passwd:2: not a password hash"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("secret"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# users\nann:secret\n");
}

#[cfg(unix)]
#[test]
fn only_those_who_could_read_it_can_read_a_password_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("passwd_mode");
    let file = folder.file("passwd");
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(code(&avocet(&["passwd", &file, "ann"], "red")), 0);
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(code(&avocet(&["passwd", &file, "bob"], "red")), 0);
    assert_eq!(mode(), 0o640);
}

const RULES: &str = r#"
[[rule]]
name = "own topics"
allow = "publish"
topic = "devices/{client_id}/#"
qos = [0, 1]

[[rule]]
user = "dashboard"
allow = ["subscribe", "deliver"]
"#;

#[test]
fn explain_says_which_rule_decides() {
    let folder = Folder::new("acl_explain");
    let file = folder.file("rules.toml");
    fs::write(&file, RULES).unwrap();
    for (arguments, expected, text) in [
        (
            &["publish", "devices/p/up", "-i", "p"][..],
            0,
            "allow: rule 1 \"own topics\" (line 2)\n",
        ),
        (
            &["publish", "devices/p/up", "-i", "p", "-q", "2", "-r"],
            2,
            "rule 1 \"own topics\" (line 2) is about other QoS\nrule 2 (line 8) is about another user\n\
             deny: the default, since no rule is about it\n",
        ),
        (
            &["subscribe", "devices/#", "-u", "dashboard"],
            0,
            "rule 1 \"own topics\" (line 2) is about other actions\nallow: rule 2 (line 8)\n",
        ),
        (
            &["deliver", "a", "--claim", "role=x"],
            2,
            "rule 1 \"own topics\" (line 2) is about other actions\nrule 2 (line 8) is about another user\n\
             deny: the default, since no rule is about it\n",
        ),
    ] {
        let arguments = [&["acl", "explain", &file], arguments].concat();
        let output = avocet(&arguments, "");
        assert_eq!((code(&output), said(&output)), (expected, text.to_owned()));
    }
    let output = avocet(&["acl", "explain", &file, "publish", "a/#"], "");
    assert_eq!(code(&output), 1);
    assert_eq!(
        said(&avocet(&["acl", "check", &file], "")),
        "2 rules, else deny\n"
    );
}

#[test]
fn the_documentation_shows_what_explain_says() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access.md");
    // A package is tested without its repository.
    let Ok(page) = fs::read_to_string(page) else {
        return;
    };
    let block = |begin: &str| {
        let (_, rest) = page.split_once(begin).unwrap();
        rest.split_once("```").unwrap().0
    };
    let folder = Folder::new("acl_documented");
    let file = folder.file("rules.toml");
    fs::write(&file, format!("#{}", block("```toml\n# rules.toml"))).unwrap();
    let shown = block("$ avocet acl explain rules.toml ");
    let (arguments, expected) = shown.split_once('\n').unwrap();
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = avocet(
        &[&["acl", "explain", &file], arguments.as_slice()].concat(),
        "",
    );
    assert_eq!(said(&output), expected);
    let orders = [
        "acl", "explain", &file, "publish", "orders/1", "-q", "1", "-u", "ann",
    ];
    assert_eq!(code(&avocet(&orders, "")), 0);
}

#[test]
fn a_wrong_file_of_rules_is_named_with_its_line() {
    let folder = Folder::new("acl_wrong");
    let file = folder.file("rules.toml");
    fs::write(&file, "[[rule]]\nallow = \"publihs\"\n").unwrap();
    let output = avocet(&["acl", "check", &file], "");
    assert_eq!(code(&output), 1);
    let said = said(&output);
    assert!(
        said.contains("rules.toml:2: ") && said.contains("\"deliver\""),
        "{said}"
    );
}

#[test]
fn what_is_imported_from_mosquitto_can_be_used() {
    let folder = Folder::new("acl_import");
    let (acl, rules) = (folder.file("acl"), folder.file("rules.toml"));
    fs::write(&acl, "user ann\ntopic read a/#\npattern write up/%c\n").unwrap();
    let output = avocet(&["acl", "import", &acl], "");
    assert_eq!(code(&output), 0);
    fs::write(&rules, &output.stdout).unwrap();
    let explain = |arguments: &[&str]| {
        code(&avocet(
            &[&["acl", "explain", &rules], arguments].concat(),
            "",
        ))
    };
    assert_eq!(explain(&["deliver", "a/b", "-u", "ann"]), 0);
    assert_eq!(explain(&["deliver", "a/b", "-u", "bob"]), 2);
    assert_eq!(explain(&["publish", "up/c", "-i", "c"]), 0);
    let output = avocet(&["acl", "import", "-"], "user ann\ntopic reed a\n");
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("-:2: unknown access \"reed\""),
        "{}",
        said(&output)
    );
}
