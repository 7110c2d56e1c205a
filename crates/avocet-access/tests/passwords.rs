//! Password files, and hashes that other programs wrote.

#![cfg(feature = "passwords")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use avocet_access::{
    Cost, HashError, PasswordError, PasswordFile, PasswordFileProblem, PasswordHash,
    PasswordVerdict, ScramClient, ScramServer, UserError,
};
use proptest::prelude::*;

/// Written by mosquitto_passwd 2.0.11 for the password `pencil ☃`.
const SHA512: &str = "$6$cjyI+X6FuIi7aKv9$1DlrJLK09RH+4Vzfgv0WUF3TAEySQTASEHaZtmOmK1pQk2QDYQaozzB4LWOwoBswmK35ws7Px2i5a8HLXoy/Dg==";
const PBKDF2: &str = "$7$101$+/oXCXIFu9tWauw1$8UY1YgcfHMW5+iRUCzNGUq1Ew7t7q//Kd3NizIjAEvFDkd+Hgg7Gf0JFflnWIU0CXfVuYq9BC4DmimsTWcm6Eg==";
const MOSQUITTO: &str = "pencil ☃";

/// Of the tests of argon2's reference implementation, for the password `password`.
const ARGON2ID: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn cheap() -> Cost {
    let mut cost = Cost::default();
    (cost.memory_kib, cost.passes) = (64, 1);
    cost
}

fn hash(password: &str) -> PasswordHash {
    PasswordHash::argon2id(password.as_bytes(), [7; 16], cheap()).unwrap()
}

#[test]
fn hashes_of_other_programs_verify() {
    for (text, password, algorithm) in [
        (SHA512, MOSQUITTO, "SHA-512"),
        (PBKDF2, MOSQUITTO, "PBKDF2-SHA512"),
        (ARGON2ID, "password", "argon2id"),
    ] {
        let hash: PasswordHash = text.parse().unwrap();
        assert_eq!(hash.algorithm(), algorithm);
        assert!(hash.verify(password.as_bytes()));
        assert!(!hash.verify(b"other"));
        assert!(!hash.verify(b""));
        assert!(hash.is_outdated());
        assert_eq!(hash.to_string(), text);
    }
}

#[test]
fn a_new_hash_is_argon2id_of_the_default_cost() {
    let hash = PasswordHash::argon2id(b"pencil", [1; 16], Cost::default()).unwrap();
    let text = hash.to_string();
    assert!(
        text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    let again: PasswordHash = text.parse().unwrap();
    assert!(again.verify(b"pencil") && !again.verify(b"pencils"));
    assert!(!again.is_outdated());
    assert!(!format!("{again:?}").contains('$'));
}

#[test]
fn a_password_has_a_byte_and_fits_a_packet() {
    let hashed = |password: &[u8]| PasswordHash::argon2id(password, [0; 16], cheap());
    assert_eq!(hashed(b""), Err(PasswordError::Empty));
    assert_eq!(hashed(&[b'a'; 65_536]), Err(PasswordError::TooLong));
    let mut cost = cheap();
    cost.memory_kib = 1;
    assert_eq!(
        PasswordHash::argon2id(b"a", [0; 16], cost),
        Err(PasswordError::Cost)
    );
}

#[test]
fn broken_and_costly_hashes_are_refused() {
    for (text, error) in [
        ("", HashError::Unknown),
        ("pencil", HashError::Unknown),
        ("$5$rounds=1$a$b", HashError::Unknown),
        (
            "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65",
            HashError::Unknown,
        ),
        ("$6$c29tZXNhbHQ", HashError::Broken("SHA-512")),
        ("$6$c29tZXNhbHQ=$bm8=", HashError::Broken("SHA-512")),
        ("$7$0$c29tZXNhbHQ=$bm8=", HashError::Broken("PBKDF2-SHA512")),
        ("$7$99999999$a$b", HashError::TooCostly("PBKDF2-SHA512")),
        (
            "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            HashError::Broken("argon2id"),
        ),
        (
            "$argon2id$v=19$m=256,t=2$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            HashError::Broken("argon2id"),
        ),
        (
            "$argon2id$v=19$m=1,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            HashError::Broken("argon2id"),
        ),
        (
            "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            HashError::TooCostly("argon2id"),
        ),
        (
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4$x",
            HashError::Broken("argon2id"),
        ),
    ] {
        assert_eq!(text.parse::<PasswordHash>(), Err(error), "{text}");
    }
}

#[test]
fn a_file_tells_users_apart() {
    let text = format!("# people\n\nann:{}\nbob:{PBKDF2}\n", hash("red"));
    let file = PasswordFile::parse(&text).unwrap();
    assert_eq!(file.to_string(), text);
    assert_eq!(file.users().collect::<Vec<_>>(), ["ann", "bob"]);
    let accepted = PasswordVerdict::Accepted { outdated: true };
    assert_eq!(file.verify("bob", MOSQUITTO.as_bytes()), accepted);
    for (user, password) in [
        ("bob", "red"),
        ("ann", MOSQUITTO),
        ("ann", ""),
        ("", "red"),
        ("eve", "red"),
    ] {
        assert_eq!(
            file.verify(user, password.as_bytes()),
            PasswordVerdict::Refused,
            "{user}"
        );
    }
}

/// Unknown users are compared with the hash of another one, which must not let them in.
#[test]
fn the_password_of_another_user_lets_no_unknown_user_in() {
    let text = format!("ann:{}\n", hash("red"));
    let file = PasswordFile::parse(&text).unwrap();
    for user in ["b", "ann ", "Ann", "# people", "x"] {
        assert_eq!(file.verify(user, b"red"), PasswordVerdict::Refused);
    }
    let empty = PasswordFile::default();
    assert_eq!(empty.verify("ann", b"red"), PasswordVerdict::Refused);
}

#[test]
fn a_wrong_line_is_named_and_not_shown() {
    for (text, line, problem) in [
        ("\nann secret", 2, PasswordFileProblem::NoColon),
        (":x", 1, PasswordFileProblem::User(UserError::Empty)),
        (
            "ann:secret",
            1,
            PasswordFileProblem::Hash(HashError::Unknown),
        ),
        (
            &format!("a:{PBKDF2}\n#\na:{PBKDF2}"),
            3,
            PasswordFileProblem::Duplicate(1),
        ),
    ] {
        let error = PasswordFile::parse(text).unwrap_err();
        assert_eq!((error.line, error.problem), (line, problem), "{text}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn users_are_added_changed_and_removed_in_place() {
    let mut file = PasswordFile::parse(&format!("# top\nann:{PBKDF2}\n# end\n")).unwrap();
    assert_eq!(file.set("bob", hash("b")), Ok(false));
    assert_eq!(file.set("ann", hash("a")), Ok(true));
    assert_eq!(file.set("a:b", hash("a")), Err(UserError::Reserved));
    assert_eq!(file.set(" a", hash("a")), Err(UserError::Reserved));
    assert_eq!(
        file.to_string(),
        format!("# top\nann:{}\n# end\nbob:{}\n", hash("a"), hash("b"))
    );
    assert!(file.remove("ann"));
    assert!(!file.remove("ann"));
    assert_eq!(
        file.to_string(),
        format!("# top\n# end\nbob:{}\n", hash("b"))
    );
    assert!(matches!(
        file.verify("bob", b"b"),
        PasswordVerdict::Accepted { .. }
    ));
}

proptest! {
    #[test]
    fn what_is_read_is_written_again(
        text in "(# ?[a-z]{0,3}\n|\n|[a-c]:\\$(6|7\\$1)\\$[A-Za-z]{12,16}={0,2}\\$[A-Za-z]{85,86}={0,2}\n){0,4}",
    ) {
        if let Ok(file) = PasswordFile::parse(&text) {
            let written = file.to_string();
            let again = PasswordFile::parse(&written).unwrap();
            prop_assert_eq!(again.to_string(), written);
            prop_assert_eq!(again.len(), file.len());
        }
    }
}

/// One hash of a user is for both ways to authenticate.
#[test]
fn a_hash_for_scram_verifies_plain_passwords_and_gives_its_keys() {
    let mut file = PasswordFile::default();
    let hash = PasswordHash::scram(b"pencil", [3; 16]).unwrap();
    assert_eq!(hash.algorithm(), "SCRAM-SHA-256");
    assert!(!hash.is_outdated());
    assert!(hash.verify(b"pencil"));
    for wrong in [&b"pencils"[..], b"", "pencil ☃".as_bytes()] {
        assert!(!hash.verify(wrong));
    }
    file.set("ann", hash.clone()).unwrap();
    let read = PasswordFile::parse(&file.to_string()).unwrap();
    assert_eq!(read.hash("ann"), Some(&hash));
    let keys = hash.scram_keys().unwrap();
    let mut client = ScramClient::new("ann", b"pencil", [1; 18]);
    let server = ScramServer::new(client.first_message().as_bytes()).unwrap();
    let challenge = server.challenge(keys, [2; 18]);
    let proof = client.prove(challenge.message().as_bytes()).unwrap();
    let signature = challenge.verify(proof.as_bytes()).unwrap();
    client.verify(signature.as_bytes()).unwrap();
    let other = PasswordHash::argon2id(b"pencil", [3; 16], Cost::default()).unwrap();
    assert_eq!(other.scram_keys(), None);
}

#[test]
fn a_broken_hash_for_scram_is_refused() {
    let broken = HashError::Broken("SCRAM-SHA-256");
    let whole = PasswordHash::scram(b"pencil", [3; 16]).unwrap().to_string();
    let parse = |text: &str| text.parse::<PasswordHash>().unwrap_err();
    for (from, to) in [
        ("$15000:", "$0:"),
        ("$15000:", "$x:"),
        ("$15000:", "$"),
        ("==$", "$"),
        ("=:", ""),
    ] {
        assert_eq!(
            parse(&whole.replacen(from, to, 1)),
            broken,
            "{from} -> {to}"
        );
    }
    let costly = whole.replacen("15000", "10000001", 1);
    assert_eq!(parse(&costly), HashError::TooCostly("SCRAM-SHA-256"));
}
