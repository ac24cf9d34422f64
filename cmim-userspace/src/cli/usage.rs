//! Wrong usage in one line: what is wrong, what was probably meant, and where the help is.
//!
//! What is wrong is the first paragraph of clap's own text, which has the expected values and the missing arguments;
//! the rest of that text repeats the usage.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The line for stderr. `None`: help or the version is shown, because it was asked for or a command's name alone says
/// too little.
#[must_use]
pub fn wrong_usage(error: &clap::Error) -> Option<String> {
    let shown =
        [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if shown.contains(&error.kind()) {
        return None;
    }
    let text = error.render().to_string();
    Some(format!("cmim: {}{} (see `{} --help`)", complaint(&text), meant(error), command(&text)))
}

/// The first paragraph; what it lists is listed behind it.
fn complaint(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or("wrong usage");
    let listed: Vec<&str> = lines.collect();
    if listed.is_empty() { first.to_owned() } else { format!("{first} {}", listed.join(", ")) }
}

/// The nearest right name, else clap's tips.
fn meant(error: &clap::Error) -> String {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let mut names: Vec<String> = Vec::new();
    for suggested in kinds.into_iter().filter_map(|kind| error.get(kind)) {
        match suggested {
            ContextValue::String(name) => names.push(format!("'{name}'")),
            ContextValue::Strings(several) => names.extend(several.iter().map(|name| format!("'{name}'"))),
            _ => {}
        }
    }
    if !names.is_empty() {
        return format!("; did you mean {}?", names.join(" or "));
    }
    match error.get(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips.iter().map(|tip| format!("; {tip}")).collect(),
        _ => String::new(),
    }
}

/// The command that was used wrongly, as far as clap says: `cmim servers` of `Usage: cmim servers [OPTIONS] [COMMAND]`.
fn command(text: &str) -> String {
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("cmim");
    let words = usage.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::wrong_usage;
    use crate::cli::Cli;

    fn line(words: &str) -> Option<String> {
        wrong_usage(&Cli::try_parse_from(words.split(' ')).expect_err("wrong usage"))
    }

    #[test]
    fn wrong_usage_is_one_line_with_the_way_out() {
        for (words, expected) in [
            ("cmim statsu", "cmim: unrecognized subcommand 'statsu'; did you mean 'status'? (see `cmim --help`)"),
            (
                "cmim run --lisen 127.0.0.1:80",
                "cmim: unexpected argument '--lisen' found; did you mean '--listen'? (see `cmim run --help`)",
            ),
            ("cmim status one", "cmim: unexpected argument 'one' found (see `cmim status --help`)"),
            (
                "cmim run --listen 127.0.0.1:80",
                "cmim: the following required arguments were not provided: --server <ADDRESS> (see `cmim run --help`)",
            ),
            (
                "cmim servers add app a:1 --weight 0",
                "cmim: invalid value '0' for '--weight <N>': 0 is not in 1..=256 (see `cmim --help`)",
            ),
            (
                "cmim completions bas",
                "cmim: invalid value 'bas' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]; \
                 did you mean 'bash'? (see `cmim --help`)",
            ),
            (
                "cmim servers drain app",
                "cmim: the following required arguments were not provided: <ADDRESS> (see `cmim servers drain --help`)",
            ),
        ] {
            assert_eq!(line(words).as_deref(), Some(expected), "{words}");
        }
    }

    #[test]
    fn a_line_break_in_an_argument_makes_no_second_line() {
        let error = Cli::try_parse_from(["cmim", "one\ntwo"]).expect_err("wrong usage");
        let line = wrong_usage(&error).expect("an error");
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[test]
    fn help_and_the_version_are_no_errors() {
        for words in ["cmim", "cmim --help", "cmim --version", "cmim run --help", "cmim help run", "cmim deny"] {
            assert_eq!(line(words), None, "{words}");
        }
    }
}
