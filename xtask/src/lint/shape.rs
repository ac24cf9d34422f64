//! What every source file is held to, wherever it stands: its length, and no marks of unfinished work.

use super::Place;
use super::finding::Finding;
use super::lexer::{Source, Token};

/// More is a sign of two things in one place.
const MAX_LINES: usize = 400;
const MACROS: [&str; 2] = ["todo", "unimplemented"];
const MARKS: [&str; 2] = ["TODO", "FIXME"];

pub(crate) fn check(place: &Place, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.lines > MAX_LINES && !place.is_test() {
        let what = format!("{} lines without tests, {MAX_LINES} at most", source.lines);
        findings.push(place.finding(MAX_LINES, what, "it holds more than one thing: give each its file"));
    }
    for (line, text) in &source.comments {
        if let Some(mark) =
            MARKS.iter().find(|mark| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == **mark))
        {
            findings.push(place.finding(
                *line,
                format!("{mark} in a comment"),
                "finish it, or file an issue and describe what is",
            ));
        }
    }
    findings.extend(source.tokens.windows(3).filter_map(|three| code(place, three)));
    findings
}

fn code(place: &Place, three: &[Token]) -> Option<Finding> {
    let [first, second, third] = three else { return None };
    if let Some(name) = MACROS.iter().find(|name| first.is_word(name) && second.is('!')) {
        return Some(place.finding(
            first.line,
            format!("{name}!"),
            "it panics where the code is not written yet: write it, or refuse with an error",
        ));
    }
    let attribute = first.is('[') && second.is_word("allow") && third.is('(');
    attribute.then(|| {
        place.finding(
            second.line,
            "#[allow(…)]",
            "#[expect(…, reason = \"…\")] says why, and complains once it is not needed",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str, inside: &str) -> Vec<(usize, String)> {
        let place = Place { shown: inside.to_owned(), inside: inside.into() };
        check(&place, &Source::read(text)).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments() {
        let text = "// TODO: x\nfn a() { todo!() }\n#[allow(dead_code)]\nfn b() { let text = \"TODO\"; }\n";
        let lines: Vec<usize> = whats(text, "a.rs").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 3]);
        assert!(whats("// TODOs of others\n#![expect(dead_code, reason = \"x\")]\n", "a.rs").is_empty());
    }

    #[test]
    fn tests_may_be_long() {
        let long = "fn a() {}\n".repeat(MAX_LINES + 1);
        assert_eq!(whats(&long, "a/b.rs").len(), 1);
        assert!(whats(&long, "a/tests.rs").is_empty());
        assert!(whats(&long, "a/tests/b.rs").is_empty());
        let short = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(whats(&short, "a/b.rs").is_empty());
    }
}
