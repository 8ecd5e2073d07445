//! `cargo xtask tidy --wrap`: comments of Rust files wrapped anew where a line is too long.
//!
//! Only paragraphs of plain text with an overlong line are touched; tables, headings, fenced blocks
//! and comments behind code stay as they are. A list item is a paragraph with its indent.

use super::File;
use super::files::COLUMNS_MAX;

/// The file's text with its comments wrapped, or `None` if nothing changes.
pub(super) fn wrapped(file: &File) -> Option<String> {
    if !file.has_extension(&["rs"]) {
        return None;
    }
    let mut text = String::with_capacity(file.text.len());
    let mut paragraph: Option<Paragraph<'_>> = None;
    let mut is_fenced = false;
    for line in file.text.lines() {
        let comment = Comment::parse(line);
        if comment
            .as_ref()
            .is_some_and(|comment| comment.text.trim_start().starts_with("```"))
        {
            is_fenced = !is_fenced;
        } else if comment.is_none() {
            is_fenced = false;
        }
        let plain = comment.filter(|comment| !is_fenced && comment.is_plain());
        if let (Some(open), Some(comment)) = (&mut paragraph, &plain)
            && open.takes(comment)
        {
            open.lines.push(line);
            open.words.extend(comment.text.split_whitespace());
            continue;
        }
        if let Some(open) = paragraph.take() {
            open.write(&mut text);
        }
        match plain {
            Some(comment) => paragraph = Some(Paragraph::new(line, &comment)),
            None => {
                text += line;
                text.push('\n');
            }
        }
    }
    if let Some(open) = paragraph.take() {
        open.write(&mut text);
    }
    (text != file.text).then_some(text)
}

/// A line that is a comment and nothing else.
struct Comment<'a> {
    /// Indent and comment sign.
    prefix: &'a str,
    /// What follows, without the first space.
    text: &'a str,
}

impl<'a> Comment<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let indent = line.len() - line.trim_start().len();
        let rest = &line[indent..];
        let sign = ["//!", "///", "//"]
            .into_iter()
            .find(|sign| rest.starts_with(sign))?;
        let (prefix, text) = line.split_at(indent + sign.len());
        (text.is_empty() || text.starts_with(' ')).then(|| Self {
            prefix,
            text: text.strip_prefix(' ').unwrap_or(text),
        })
    }

    /// Whether it is text of a paragraph: not blank, no table, heading, drawing or fence.
    fn is_plain(&self) -> bool {
        let text = self.text.trim_start();
        // Deeper indents are code or drawings.
        let is_deep = self.text.len() - text.len() > 3;
        !text.is_empty() && !is_deep && !text.starts_with(['|', '#', '>', '+'])
    }

    /// Columns before the text of a list item, counted from the comment's text.
    fn item_indent(&self) -> Option<usize> {
        let text = self.text.trim_start();
        let indent = self.text.len() - text.len();
        if text.starts_with("- ") || text.starts_with("* ") {
            return Some(indent + 2);
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0 && text[digits..].starts_with(". ")).then_some(indent + digits + 2)
    }
}

/// Consecutive lines that are wrapped together.
struct Paragraph<'a> {
    prefix: &'a str,
    first_indent: usize,
    next_indent: usize,
    lines: Vec<&'a str>,
    words: Vec<&'a str>,
}

impl<'a> Paragraph<'a> {
    fn new(line: &'a str, comment: &Comment<'a>) -> Self {
        let indent = comment.text.len() - comment.text.trim_start().len();
        Self {
            prefix: comment.prefix,
            first_indent: indent,
            next_indent: comment.item_indent().unwrap_or(indent),
            lines: vec![line],
            words: comment.text.split_whitespace().collect(),
        }
    }

    fn takes(&self, comment: &Comment<'_>) -> bool {
        let indent = comment.text.len() - comment.text.trim_start().len();
        comment.prefix == self.prefix
            && comment.item_indent().is_none()
            && indent == self.next_indent
    }

    /// As it was, unless a line is too long.
    fn write(&self, text: &mut String) {
        if self
            .lines
            .iter()
            .all(|line| line.chars().count() <= COLUMNS_MAX)
        {
            for line in &self.lines {
                *text += line;
                text.push('\n');
            }
            return;
        }
        let mut line = format!("{} {}", self.prefix, " ".repeat(self.first_indent));
        let mut is_empty = true;
        for word in &self.words {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
                *text += line.trim_end();
                text.push('\n');
                line = format!("{} {}", self.prefix, " ".repeat(self.next_indent));
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += word;
            is_empty = false;
        }
        *text += &line;
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn wrap(text: &str) -> Option<String> {
        wrapped(&file("crates/core/src/a.rs", text))
    }

    #[test]
    fn only_paragraphs_with_a_long_line_change() {
        let long = "word ".repeat(23);
        let text = format!(
            "//! Short\n//! lines.\n//!\n//! {}\n//! end.\nfn a() {{}}\n",
            long.trim()
        );
        let wrapped = wrap(&text).unwrap();
        assert!(
            wrapped.starts_with("//! Short\n//! lines.\n//!\n//! word"),
            "{wrapped}"
        );
        assert!(wrapped.ends_with("word end.\nfn a() {}\n"), "{wrapped}");
        assert!(
            wrapped.lines().all(|line| line.len() <= COLUMNS_MAX),
            "{wrapped}"
        );
        assert_eq!(wrap(&wrapped), None);
    }

    #[test]
    fn items_keep_their_indent() {
        let text = format!("    /// - {}\n    /// - b\n", "word ".repeat(20).trim());
        let wrapped = wrap(&text).unwrap();
        let lines: Vec<&str> = wrapped.lines().collect();
        assert!(
            lines[0].starts_with("    /// - word") && lines[1].starts_with("    ///   word"),
            "{wrapped}"
        );
        assert_eq!(lines[2], "    /// - b");
    }

    #[test]
    fn tables_drawings_and_code_stay() {
        let long = "word ".repeat(23);
        let text = format!(
            "//! | {long} |\n//! ```text\n//! {long}\n//! ```\n//!      {long}\nlet a = 1; // {long}\n"
        );
        assert_eq!(wrap(&text), None);
    }
}
