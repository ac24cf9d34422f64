//! The paths that a source names, in imports and in expressions alike, with `crate`, `self` and `super` resolved.

use std::path::Path;

use super::lexer::{Kind, Token};

/// One path, written out: groups are taken apart, so `use a::{b, c::d}` gives two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl Named {
    /// The segments after `crate`, when it is a path into our own crate.
    pub(crate) fn inside_crate(&self) -> Option<&[String]> {
        let (first, rest) = self.segments.split_first()?;
        (first == "crate").then_some(rest)
    }

    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }

    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let mut own = self.segments.iter();
        prefix.split("::").all(|part| own.next().is_some_and(|segment| segment == part))
    }

    pub(crate) fn ends_with(&self, suffix: &str) -> bool {
        let mut own = self.segments.iter().rev();
        suffix.rsplit("::").all(|part| own.next().is_some_and(|segment| segment == part))
    }
}

/// All paths of two segments or more. `inside` is the file's path under `src`.
pub(crate) fn named(tokens: &[Token], inside: &Path) -> Vec<Named> {
    let module = module_of(inside);
    let mut found = Vec::new();
    let mut rest = tokens;
    while let Some(token) = rest.first() {
        let mut reader = Reader { rest, found: Vec::new() };
        if token.word().is_some() {
            reader.path(&[]);
            found.append(&mut reader.found);
        } else {
            reader.skip();
        }
        rest = reader.rest;
    }
    found.iter().filter(|path| path.segments.len() > 1).map(|path| resolved(path, &module)).collect()
}

struct Reader<'a> {
    rest: &'a [Token],
    found: Vec<Named>,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// A path that stands here, behind `prefix`.
    fn path(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let mut line = 0;
        while let Some(token) = self.rest.first() {
            let Some(word) = token.word() else { break };
            segments.push(word.to_owned());
            line = token.line;
            self.skip();
            if !self.rest.first().is_some_and(|next| next.kind == Kind::Separator) {
                break;
            }
            self.skip();
            if self.rest.first().is_some_and(|next| next.is('{')) {
                return self.group(&segments);
            }
        }
        self.found.push(Named { line, segments });
    }

    fn group(&mut self, prefix: &[String]) {
        self.skip();
        while let Some(token) = self.rest.first() {
            if token.is('}') {
                return self.skip();
            }
            if token.is_word("as") {
                // The new name is no path.
                self.skip();
                self.skip();
            } else if token.is_word("self") {
                self.found.push(Named { line: token.line, segments: prefix.to_vec() });
                self.skip();
            } else if token.word().is_some() {
                self.path(prefix);
            } else {
                self.skip();
            }
        }
    }
}

/// `a/b.rs` is the module `a::b`; `a/mod.rs`, `main.rs` and `lib.rs` are their directory's.
fn module_of(inside: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["main"] || module == ["lib"] {
        module.pop();
    }
    module
}

fn resolved(path: &Named, module: &[String]) -> Named {
    let mut base: Option<Vec<String>> = None;
    let mut segments = path.segments.iter().peekable();
    while let Some(segment) = segments.peek() {
        match segment.as_str() {
            "self" => base = base.or_else(|| Some(module.to_vec())),
            "super" => {
                let mut up = base.take().unwrap_or_else(|| module.to_vec());
                up.pop();
                base = Some(up);
            }
            _ => break,
        }
        segments.next();
    }
    let rest = segments.cloned();
    let segments = match base {
        Some(base) => std::iter::once("crate".to_owned()).chain(base).chain(rest).collect(),
        None => rest.collect(),
    };
    Named { line: path.line, segments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::lexer::Source;

    fn texts(code: &str, inside: &str) -> Vec<String> {
        named(&Source::read(code).tokens, Path::new(inside)).iter().map(Named::text).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let code = "use crate::{h1::{self, Head as H}, net}; use std::time::Instant;";
        assert_eq!(texts(code, "a.rs"), ["crate::h1", "crate::h1::Head", "crate::net", "std::time::Instant"]);
    }

    #[test]
    fn expressions_count_too() {
        assert_eq!(
            texts("fn a() { let x = crate::net::open::<u8>(Instant::now()); }", "a.rs"),
            ["crate::net::open", "Instant::now"]
        );
    }

    #[test]
    fn super_and_self_are_resolved() {
        assert_eq!(texts("use super::b::C; use self::d::E;", "a/x.rs"), ["crate::a::b::C", "crate::a::x::d::E"]);
        assert_eq!(texts("use super::net;", "a/mod.rs"), ["crate::net"]);
    }
}
