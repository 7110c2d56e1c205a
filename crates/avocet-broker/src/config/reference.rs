//! The reference of all settings, as Markdown.

use std::fmt::Write;

use super::Config;
use super::settings::settings;

/// One entry per setting: key, default, what is allowed, environment variable and meaning.
/// `docs/configuration.md` holds this text.
pub fn reference() -> String {
    let mut defaults = Config::default();
    let mut text = String::new();
    let mut section = "";
    for setting in settings() {
        let (table, key) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if table != section {
            section = table;
            let _ = write!(text, "### `[{table}]`\n\n");
        }
        let default = (setting.get)(&mut defaults);
        let variable = setting.variable();
        let _ = write!(text, "**`{key} = {default}`**");
        let _ = write!(
            text,
            " · {} · `{variable}`\n\n{}\n\n",
            setting.kind, setting.about
        );
    }
    text
}
