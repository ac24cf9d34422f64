//! Aligned columns without borders, which a person reads and `awk` splits.
//!
//! Text columns are shortened in their middle where a terminal is too narrow; in a file or pipe nothing is. Pure.

use super::screen::{Look, Paint};

/// Between two columns.
const GAP: &str = "  ";
/// A column is not shortened below this; a wider table wraps.
const NARROWEST: usize = 12;
const CUT: char = '…';

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// Control characters, which a terminal would obey, become question marks.
    pub(super) fn painted(text: &str, paint: Paint) -> Self {
        let text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Self { text, paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::painted(&text, Paint::Plain)
    }
}

#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    align: [Align; N],
    heads: [Cell; N],
    rows: Vec<[Cell; N]>,
    indent: &'static str,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [(&str, Align); N]) -> Self {
        Self {
            align: columns.map(|(_, align)| align),
            heads: columns.map(|(title, _)| Cell::painted(title, Paint::Heading)),
            rows: Vec::new(),
            indent: "",
        }
    }

    pub(super) fn indented(mut self, indent: &'static str) -> Self {
        self.indent = indent;
        self
    }

    pub(super) fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    pub(super) fn text(&self, look: Look) -> String {
        let widths = self.widths(look.width);
        let mut text = String::new();
        for cells in std::iter::once(&self.heads).chain(&self.rows) {
            let mut line = self.indent.to_owned();
            let columns = cells.iter().zip(self.align).zip(widths).enumerate();
            for (place, ((cell, align), width)) in columns {
                if place > 0 {
                    line.push_str(GAP);
                }
                line.push_str(&padded(cell, align, width, look));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self, limit: Option<usize>) -> [usize; N] {
        let mut widths = [0; N];
        for cells in std::iter::once(&self.heads).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.width().max(*width);
            }
        }
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len() * N.saturating_sub(1) + self.indent.len();
        let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        while over > 0 {
            let widest = widths.iter_mut().zip(self.align).filter(|(_, align)| *align == Align::Left);
            match widest.map(|(width, _)| width).max() {
                Some(width) if *width > NARROWEST => *width -= 1,
                _ => break,
            }
            over -= 1;
        }
        widths
    }
}

fn padded(cell: &Cell, align: Align, width: usize, look: Look) -> String {
    let text = shortened(&cell.text, width);
    let space = " ".repeat(width.saturating_sub(text.chars().count()));
    let painted = look.paint(cell.paint, &text);
    match align {
        Align::Left => painted + &space,
        Align::Right => space + &painted,
    }
}

/// The beginning and the end of a text, which tell addresses and paths apart.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return text.to_owned();
    }
    let end = (width - 1) / 2;
    let start = width - 1 - end;
    let mut short: String = text.chars().take(start).collect();
    short.push(CUT);
    short.extend(text.chars().skip(length - end));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table = Table::new([("NAME", Align::Left), ("STATE", Align::Left), ("N", Align::Right)]);
        table.row(["unix:/run/a-very-long-name-of-a/socket.sock".into(), Cell::painted("up", Paint::Good), "1".into()]);
        table.row(["b".into(), Cell::painted("down", Paint::Bad), "1,000".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            table().text(Look::default()),
            "\
NAME                                         STATE      N
unix:/run/a-very-long-name-of-a/socket.sock  up         1
b                                            down   1,000
"
        );
    }

    #[test]
    fn a_narrow_terminal_shortens_the_widest_text_in_its_middle() {
        assert_eq!(
            table().text(Look { colour: false, width: Some(36) }),
            "\
NAME                    STATE      N
unix:/run/a…ocket.sock  up         1
b                       down   1,000
"
        );
    }

    #[test]
    fn colour_does_not_move_columns() {
        let look = Look { colour: true, width: None };
        let plain: String = table().text(look).replace("\x1b[0m", "");
        let plain = ["1", "31", "32"].iter().fold(plain, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
        assert_eq!(plain, table().text(Look::default()));
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let mut table = Table::new([("A", Align::Left)]);
        table.row(["\x1b[2J\n".into()]);
        assert_eq!(table.text(Look::default()), "A\n?[2J?\n");
    }
}
