//! Enough of Rust's lexical grammar to tell code from comments, text and tests.
//!
//! Knows no syntax above tokens but one thing: where an item that is compiled for tests only begins and ends.

use std::iter::Peekable;
use std::str::Chars;

/// A word or a punctuation mark; literals are left out, for no rule asks about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Word(String),
    /// `::`
    Separator,
    Mark(char),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// From 1.
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// A source file without its tests.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    /// Comment text by line.
    pub(crate) comments: Vec<(usize, String)>,
    /// Lines that are not part of a test item.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let mut lexer = Lexer { rest: text.chars().peekable(), line: 1, tokens: Vec::new(), comments: Vec::new() };
        lexer.run();
        let tests = test_items(&lexer.tokens);
        let in_test = |line: usize| tests.iter().any(|&(from, to)| (from..=to).contains(&line));
        lexer.tokens.retain(|token| !in_test(token.line));
        lexer.comments.retain(|(line, _)| !in_test(*line));
        let test_lines: usize = tests.iter().map(|(from, to)| to - from + 1).sum();
        Self { tokens: lexer.tokens, comments: lexer.comments, lines: text.lines().count().saturating_sub(test_lines) }
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    tokens: Vec<Token>,
    comments: Vec<(usize, String)>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(letter) = self.next() {
            match letter {
                '/' if self.rest.peek() == Some(&'/') => self.line_comment(),
                '/' if self.rest.peek() == Some(&'*') => self.block_comment(),
                '"' => self.text(),
                '\'' => self.quote(),
                _ if letter == '_' || letter.is_alphabetic() => self.word(letter),
                _ if letter.is_ascii_digit() => self.skip_while(|c| c == '_' || c.is_alphanumeric()),
                ':' if self.rest.peek() == Some(&':') => {
                    self.next();
                    self.push(Kind::Separator);
                }
                _ if letter.is_whitespace() => {}
                _ => self.push(Kind::Mark(letter)),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        if letter == '\n' {
            self.line += 1;
        }
        Some(letter)
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn skip_while(&mut self, holds: impl Fn(char) -> bool) {
        while self.rest.peek().is_some_and(|&letter| holds(letter)) {
            self.next();
        }
    }

    fn line_comment(&mut self) {
        let mut text = String::new();
        while let Some(&letter) = self.rest.peek() {
            if letter == '\n' {
                break;
            }
            text.push(letter);
            self.next();
        }
        self.comments.push((self.line, text));
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let (mut depth, mut line, mut text, mut last) = (1_usize, self.line, String::new(), ' ');
        self.next();
        while depth > 0 {
            let Some(letter) = self.next() else { break };
            match (last, letter) {
                ('*', '/') => depth -= 1,
                ('/', '*') => depth += 1,
                _ => {}
            }
            if letter == '\n' {
                self.comments.push((line, std::mem::take(&mut text)));
                line = self.line;
            } else {
                text.push(letter);
            }
            last = letter;
        }
        self.comments.push((line, text));
    }

    fn text(&mut self) {
        while let Some(letter) = self.next() {
            match letter {
                '\\' => _ = self.next(),
                '"' => break,
                _ => {}
            }
        }
    }

    /// A character or a lifetime: only the former has a closing quote two characters on, or a backslash.
    fn quote(&mut self) {
        let Some(first) = self.next() else { return };
        if first == '\\' {
            self.next();
            self.skip_while(|letter| letter != '\'' && letter != '\n');
            self.next();
        } else if self.rest.peek() == Some(&'\'') {
            self.next();
        } else {
            self.skip_while(|letter| letter == '_' || letter.is_alphanumeric());
        }
    }

    fn word(&mut self, first: char) {
        let mut word = String::from(first);
        while let Some(&letter) = self.rest.peek() {
            if letter != '_' && !letter.is_alphanumeric() {
                break;
            }
            word.push(letter);
            self.next();
        }
        match (word.as_str(), self.rest.peek()) {
            ("r" | "br" | "cr", Some('"' | '#')) => self.raw(),
            // The quote itself is lexed next, as text or as a character.
            ("b" | "c", Some('"' | '\'')) => {}
            _ => self.push(Kind::Word(word)),
        }
    }

    /// `r"…"`, `r#"…"#`; also a raw name, `r#type`.
    fn raw(&mut self) {
        let mut hashes = 0_usize;
        while self.rest.peek() == Some(&'#') {
            hashes += 1;
            self.next();
        }
        if self.rest.peek() != Some(&'"') {
            return;
        }
        self.next();
        let mut seen: Option<usize> = None;
        while seen != Some(hashes) {
            let Some(letter) = self.next() else { break };
            seen = match (letter, seen) {
                ('"', _) => Some(0),
                ('#', Some(count)) => Some(count + 1),
                _ => None,
            };
        }
    }
}

/// First and last line of each item behind a `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn test_items(tokens: &[Token]) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut rest = tokens;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if !is_test_attribute(first, tail) {
            continue;
        }
        let (last, after) = item_end(tail);
        items.push((first.line, last.unwrap_or(first.line)));
        rest = after;
    }
    items
}

fn is_test_attribute(first: &Token, tail: &[Token]) -> bool {
    let mut words = tail.iter().take(6).filter_map(Token::word);
    first.is('#')
        && tail.first().is_some_and(|token| token.is('['))
        && words.next() == Some("cfg")
        && match words.next() {
            Some("test") => true,
            Some("all") => words.next() == Some("test"),
            _ => false,
        }
}

/// The line on which the item after an attribute ends, and what follows it: its closing brace, or its semicolon.
fn item_end(tokens: &[Token]) -> (Option<usize>, &[Token]) {
    let mut depth = 0_usize;
    let mut import = false;
    for (index, token) in tokens.iter().enumerate() {
        let after = tokens.get(index + 1..).unwrap_or_default();
        match &token.kind {
            Kind::Word(word) if word == "use" => import = true,
            Kind::Mark('{' | '(' | '[') => depth += 1,
            Kind::Mark('}') if depth == 1 && !import => return (Some(token.line), after),
            Kind::Mark('}' | ')' | ']') => depth = depth.saturating_sub(1),
            Kind::Mark(';') if depth == 0 => return (Some(token.line), after),
            _ => {}
        }
    }
    (tokens.last().map(|token| token.line), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::read(text).tokens.iter().filter_map(Token::word).map(str::to_owned).collect()
    }

    #[test]
    fn text_and_comments_are_no_code() {
        let code = "let a = \"tokio \\\" b\"; // tokio\nlet b = r#\"tokio\"#; /* tokio /* x */ tokio */ let c = b'\"'; let d: &'static str = 'x';";
        assert_eq!(words(code), ["let", "a", "let", "b", "let", "c", "let", "d", "str"]);
    }

    #[test]
    fn comments_keep_their_lines() {
        let source = Source::read("fn a() {}\n// one\n/* two\nthree */\n");
        let lines: Vec<usize> = source.comments.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }

    #[test]
    fn test_items_are_left_out_and_not_counted() {
        let text = "fn kept() {}\n#[cfg(test)]\nmod tests {\n    fn gone() { if a { b } }\n}\n#[cfg(test)]\nuse x::{y, z};\nfn also_kept() {}\n";
        assert_eq!(words(text), ["fn", "kept", "fn", "also_kept"]);
        assert_eq!(Source::read(text).lines, 2);
    }
}
