//! Tables for people: columns as wide as their content, readable without colour.

/// A cell, with a colour that only repeats what the word says.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Doubtful,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text.to_string(), Tone::Plain)
    }
}

/// Lines of a table with its heading; nothing if there are no rows.
pub(crate) fn render(heading: &[&str], rows: &[Vec<Cell>], coloured: bool) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|word| word.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    let heading: Vec<Cell> = heading.iter().map(Cell::from).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.text.chars().count() + 2);
            line.push_str(&paint(cell, coloured));
            line.push_str(&padding);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn paint(cell: &Cell, coloured: bool) -> String {
    let code = match cell.tone {
        Tone::Plain => None,
        Tone::Good => Some(32),
        Tone::Bad => Some(31),
        Tone::Doubtful => Some(33),
    };
    match code {
        Some(code) if coloured => format!("\u{1b}[{code}m{}\u{1b}[0m", cell.text),
        _ => cell.text.clone(),
    }
}

/// A number that may not be known.
pub(crate) fn number(value: Option<u64>) -> String {
    value.map_or("?".to_owned(), |value| value.to_string())
}

/// A length of time in its two largest units: `3m 20s`, `850ms`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
