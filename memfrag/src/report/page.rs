//! What all texts for the terminal are made of: lines, headings, named fields, colours, wrapped words.

use std::fmt::Write as _;

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// Columns to use; fewer than 60 are taken as 60, more than 100 as 100.
    pub width: usize,
}

/// What a piece of text is, as far as it is shown by colour.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Heading,
    Quiet,
    Good,
    Warning,
}

impl Style {
    pub(super) fn width(self) -> usize {
        self.width.clamp(60, 100)
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Heading => "1",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A text as it grows, line by line.
pub(super) struct Page {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Page {
    /// An empty one.
    pub(super) fn new(style: Style) -> Self {
        Self { text: String::new(), style }
    }

    /// A line, without the blanks at its end.
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A heading, below an empty line.
    pub(super) fn heading(&mut self, text: &str) {
        let painted = self.style.paint(Tone::Heading, text);
        self.line("");
        self.line(&format!("  {painted}"));
    }

    /// The quiet head of a table, below an empty line.
    pub(super) fn head(&mut self, line: &str) {
        let painted = self.style.paint(Tone::Quiet, line);
        self.line("");
        self.line(&painted);
    }

    /// A quiet sentence below a table.
    pub(super) fn remark(&mut self, text: &str) {
        for part in wrap(text, self.style.width() - 2) {
            let part = self.style.paint(Tone::Quiet, &part);
            self.line(&format!("  {part}"));
        }
    }

    /// A named line, its text wrapped and hanging under its beginning.
    pub(super) fn field(&mut self, name: &str, tone: Option<Tone>, text: &str) {
        const INDENT: usize = 13;
        for (number, part) in wrap(text, self.style.width() - INDENT).iter().enumerate() {
            let name = self.style.paint(Tone::Quiet, &format!("{:<11}", if number == 0 { name } else { "" }));
            let part = tone.map_or_else(|| part.clone(), |tone| self.style.paint(tone, part));
            self.line(&format!("  {name}{part}"));
        }
    }
}

/// A text cut to so many columns.
pub(super) fn shorten(text: &str, room: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= room {
        return text;
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// Text from outside: what it may hold of control characters must not reach the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// The words of a text in lines of so many columns.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        // A number and its unit stay together.
        let unit = words.next_if(|unit| word.starts_with(|c: char| c.is_ascii_digit()) && is_unit(unit));
        let word = &unit.map_or_else(|| word.to_owned(), |unit| format!("{word} {unit}"));
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            write!(line, " {word}").expect("a string takes all");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Whether a word is a unit of sizes or times, or a sign that counts as one; a comma or a full stop may follow.
fn is_unit(word: &str) -> bool {
    let word = word.trim_end_matches([',', ';', '.', ')']);
    ["B", "KiB", "MiB", "GiB", "TiB", "ns", "µs", "ms", "s", "%"].contains(&word)
}
