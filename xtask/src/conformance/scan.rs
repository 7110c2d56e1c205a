//! Finds the tags of statements in a file, and the tests they belong to.

/// A test, or a file of vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) file: String,
}

/// The statements named in `text`: `MQTT5-3.1.0-1` for its tag in brackets. Sections are none.
pub(super) fn named(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("[MQTT").filter_map(|(at, _)| {
        let (tag, _) = text.get(at + 1..)?.split_once(']')?;
        let (version, place) = tag.split_once('-')?;
        let (section, number) = place.split_once('-')?;
        let is_known = matches!(version, "MQTT5" | "MQTT311")
            && section.split('.').chain([number]).all(is_number);
        is_known.then_some(tag)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The statements that tests in the file check, each with the test.
pub(super) fn tests(file: &str, text: &str) -> Vec<(String, Test)> {
    if file.ends_with(".rs") {
        in_rust(file, text)
    } else if file.ends_with(".txt") {
        in_vectors(file, text)
    } else {
        Vec::new()
    }
}

/// A tag counts in the comment above or inside of a function with `#[test]`, and in the comment
/// above a name in a list of test cases.
fn in_rust(file: &str, text: &str) -> Vec<(String, Test)> {
    let mut found = Vec::new();
    let mut waiting: Vec<&str> = Vec::new();
    let mut has_attribute = false;
    // The test the line is in, and the line that ends it.
    let mut test: Option<(&str, String)> = None;
    for line in text.lines() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let mut add = |name: &str, tag: &str| {
            let (name, file) = (name.to_owned(), file.to_owned());
            found.push((tag.to_owned(), Test { name, file }));
        };
        if let Some((name, end)) = &test {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            named(comment).for_each(|tag| add(name, tag));
            if line == end {
                test = None;
            }
        } else if code.starts_with("//") {
            waiting.extend(named(code));
        } else if code.starts_with("#[") {
            has_attribute |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        } else {
            let function = code.trim_start_matches("async ").strip_prefix("fn ");
            let name = function.and_then(|rest| rest.split(['(', '<']).next());
            if has_attribute && let Some(name) = name {
                waiting.iter().for_each(|tag| add(name, tag));
                test = Some((name, format!("{indent}}}")));
            } else if let Some(name) = code.strip_suffix(',').filter(|name| is_name(name)) {
                waiting.iter().for_each(|tag| add(name, tag));
            }
            waiting.clear();
            has_attribute = false;
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A tag counts in the heading above vectors.
fn in_vectors(file: &str, text: &str) -> Vec<(String, Test)> {
    let mut found = Vec::new();
    let mut waiting = Vec::new();
    let name = file.rsplit('/').next().unwrap_or(file);
    for line in text.lines() {
        if line.starts_with('#') {
            waiting.extend(named(line));
        } else if !line.is_empty() {
            for tag in waiting.drain(..) {
                let (name, file) = (name.to_owned(), file.to_owned());
                found.push((tag.to_owned(), Test { name, file }));
            }
        }
    }
    found
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    /// Names and numbers: tags spelled out would be those of this file's own tests.
    fn found(file: &str, text: &str) -> Vec<String> {
        let text = text
            .replace('@', concat!("[MQT", "T5-3.1.0-"))
            .replace('!', "]");
        let short = |(tag, test): (String, Test)| {
            format!(
                "{} {}",
                test.name,
                tag.rsplit('-').next().unwrap_or_default()
            )
        };
        tests(file, &text).into_iter().map(short).collect()
    }

    #[test]
    fn tells_statements_from_sections_and_other_brackets() {
        let text = "[MQTT5-3.1.0-1 ] [MQTT5-3.1] [MQTT] [MQTT31-3.1] [MQTT311-3.1.0-1].";
        assert_eq!(named(text).collect::<Vec<_>>(), ["MQTT311-3.1.0-1"]);
    }

    #[test]
    fn finds_the_tags_above_and_inside_of_tests() {
        let text = "/// A helper @1!.\nfn helper() {}\n\n\
                    /// @2! @3!: why.\n#[test]\nfn one() {\n    // @4!\n    f(); // @5!\n}\n\
                    // @6!\nconst X: u8 = 1;\n\
                    /// @7!\n#[tokio::test(start_paused = true)]\nasync fn two() {}\n";
        assert_eq!(
            found("a.rs", text),
            ["one 2", "one 3", "one 4", "one 5", "two 7"]
        );
    }

    #[test]
    fn finds_the_tags_of_listed_cases() {
        let text = "cases![\n    /// @1! @2!\n    /// @3!\n    first,\n    second,\n]";
        assert_eq!(found("a.rs", text), ["first 1", "first 2", "first 3"]);
    }

    #[test]
    fn finds_the_tags_of_vectors() {
        let text = "# One @1!.\n5.0: 10 = x\n\n# Two @2!\n# more\n5.0: 11 = y\n# No vectors @3!\n";
        assert_eq!(found("t/a.txt", text), ["a.txt 1", "a.txt 2"]);
        assert_eq!(found("t/a.md", text), [""; 0]);
    }
}
