//! A YAML document (JSON is one too) as a tree in which every node knows its place.
//!
//! Deserialising straight into types would stop at the first error; this tree lets the reader
//! ([`reader`]) report all of them. Bounds hold before memory is used: size of the file, depth,
//! number of nodes with aliases counted as what they stand for. What this deliberately does not
//! have: tags, merge keys, several documents.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use crate::problem::{Problem, Sink};

pub mod reader;

/// What a document may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes_max: usize,
    pub depth_max: usize,
    pub nodes_max: usize,
}

/// A place in the file: line and column from 1, in characters, and how many characters it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
    pub width: usize,
}

impl Mark {
    /// The beginning of the file.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        width: 1,
    };
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub mark: Mark,
    pub value: Value,
    /// Nodes in it, itself included.
    size: usize,
    /// Levels in it, itself included.
    height: usize,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `plain` if it was written without quotes, so that it may be a number.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; keys may repeat, the reader reports that.
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping's entry.
#[derive(Clone, Debug)]
pub struct Key {
    pub mark: Mark,
    pub text: String,
}

impl Node {
    fn new(mark: Mark, value: Value) -> Self {
        let (size, height) = match &value {
            Value::Null | Value::Scalar { .. } => (0, 0),
            Value::List(items) => sum(items.iter()),
            Value::Map(entries) => sum(entries.iter().map(|(_, node)| node)),
        };
        Self {
            mark,
            value,
            size: size + 1,
            height: height + 1,
        }
    }

    /// What it is, for a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => crate::problem::quote(text),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(entries) => match entries.first() {
                None => "an empty mapping".to_owned(),
                Some((key, _)) => {
                    format!(
                        "a mapping with the field {}",
                        crate::problem::quote(&key.text)
                    )
                }
            },
        }
    }
}

fn sum<'a>(nodes: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    nodes.fold((0, 0), |(size, height), node| {
        (size + node.size, height.max(node.height))
    })
}

/// Reads one document. `None` if it cannot be read as one; the sink then has at least one problem.
pub fn parse(bytes: &[u8], bounds: Bounds, sink: &mut Sink) -> Option<Node> {
    if bytes.len() > bounds.bytes_max {
        let message = format!(
            "the file has {} bytes, more than {}",
            bytes.len(),
            bounds.bytes_max
        );
        sink.add(Problem::at(Mark::START, "", "too-large", message));
        return None;
    }
    let text = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            let mark = Mark {
                line,
                column,
                width: 1,
            };
            let found = format!("the byte 0x{:02x}", bytes[error.valid_up_to()]);
            let problem = Problem::at(mark, "", "not-utf8", "the file is not UTF-8 text");
            sink.add(problem.found(found));
            return None;
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match Builder::new(bounds).build(text) {
        Ok(node) => Some(node),
        Err(problem) => {
            sink.add(*problem);
            None
        }
    }
}

struct Builder {
    bounds: Bounds,
    /// Open lists and mappings, the innermost last.
    open: Vec<Open>,
    /// Finished nodes that have an anchor.
    anchored: BTreeMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

struct Open {
    mark: Mark,
    anchor: usize,
    /// The bracket that has to close it. `None` if its indentation ends it.
    bracket: Option<char>,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// The key, once it was read, waits for its value.
    Map(Vec<(Key, Node)>, Option<Key>),
}

impl Builder {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: Vec::new(),
            anchored: BTreeMap::new(),
            nodes: 0,
            root: None,
        }
    }

    fn build(mut self, text: &str) -> Result<Node, Box<Problem>> {
        let mut options = granit_parser::options! {
            flow_nesting_limit: self.bounds.depth_max,
            block_nesting_limit: self.bounds.depth_max,
            disallow_directives: true,
        };
        options.set_emit_comments(false);
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            self.event(event, mark_of(&span))?;
        }
        self.root
            .ok_or_else(|| Problem::at(Mark::START, "", "empty", "the file is empty").into())
    }

    fn event(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Box<Problem>> {
        if event.tag().is_some() {
            let problem = Problem::at(mark, "", "tag", "tags (`!...`) are not used here");
            return Err(problem.hint("write the value without its tag").into());
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let problem = Problem::at(
                    mark,
                    "",
                    "several-documents",
                    "a second document begins here",
                );
                Err(problem
                    .hint("remove the `---` line, or split the file")
                    .into())
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = if plain
                    && !self.expects_key()
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL")
                {
                    Value::Null
                } else {
                    let text = text.into_owned();
                    Value::Scalar { text, plain }
                };
                self.finished(Node::new(mark, value), anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let bracket = (style == StructureStyle::Flow).then_some('[');
                self.opened(mark, anchor, bracket, Content::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => {
                let bracket = (style == StructureStyle::Flow).then_some('{');
                self.opened(mark, anchor, bracket, Content::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Map(entries, _) => Value::Map(entries),
                };
                self.finished(Node::new(open.mark, value), open.anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchored.get(&anchor) else {
                    let message = "an alias stands inside the value that it repeats";
                    return Err(Problem::at(mark, "", "alias", message).into());
                };
                // Counted before it is copied, so that a few lines cannot become gigabytes.
                self.nodes += node.size;
                self.check_bounds(mark, node.height)?;
                let node = node.clone();
                self.placed(node)
            }
            _ => Ok(()),
        }
    }

    fn opened(
        &mut self,
        mark: Mark,
        anchor: usize,
        bracket: Option<char>,
        content: Content,
    ) -> Result<(), Box<Problem>> {
        // A key that is itself a list or a mapping.
        if self.expects_key() {
            return Err(key_problem(mark).into());
        }
        self.open.push(Open {
            mark,
            anchor,
            bracket,
            content,
        });
        self.check_bounds(mark, 0)
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Box<Problem>> {
        self.nodes += 1;
        self.check_bounds(node.mark, 1)?;
        if anchor != 0 {
            // The copy that is kept counts as well.
            self.nodes += node.size;
            self.check_bounds(node.mark, 1)?;
            self.anchored.insert(anchor, node.clone());
        }
        self.placed(node)
    }

    fn placed(&mut self, node: Node) -> Result<(), Box<Problem>> {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(key_problem(node.mark).into());
                    };
                    *key = Some(Key {
                        mark: node.mark,
                        text,
                    });
                }
            },
        }
        Ok(())
    }

    /// Whether the next scalar is the name of a field.
    fn expects_key(&self) -> bool {
        let open = self.open.last().map(|open| &open.content);
        matches!(open, Some(Content::Map(_, None)))
    }

    fn syntax(&self, error: &granit_parser::ScanError) -> Box<Problem> {
        let marker = error.marker();
        let mark = Mark {
            line: marker.line().max(1),
            column: marker.col() + 1,
            width: 1,
        };
        let info = error.info();
        let problem = Problem::at(mark, "", "syntax", format!("this is not YAML: {info}"));
        let opened = self.open.iter().rev();
        let mut opened = opened.filter_map(|open| Some((open.bracket?, open.mark)));
        if info.contains("tab") {
            problem.hint("indent with spaces").into()
        } else if let Some((bracket, at)) = opened.next() {
            let (line, column) = (at.line, at.column);
            let hint = format!("is the `{bracket}` of line {line}, column {column} closed?");
            problem.hint(hint).into()
        } else {
            problem.into()
        }
    }

    fn check_bounds(&self, mark: Mark, height: usize) -> Result<(), Box<Problem>> {
        let Bounds {
            depth_max,
            nodes_max,
            ..
        } = self.bounds;
        if self.open.len() + height > depth_max + 1 {
            let message = format!("lists and mappings nest deeper than {depth_max} levels");
            return Err(Problem::at(mark, "", "too-deep", message).into());
        }
        if self.nodes > nodes_max {
            let message = format!("the file has more than {nodes_max} values, aliases included");
            return Err(Problem::at(mark, "", "too-many", message).into());
        }
        Ok(())
    }
}

fn key_problem(mark: Mark) -> Problem {
    Problem::at(mark, "", "key", "the name of a field must be a word")
}

fn mark_of(span: &Span) -> Mark {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() {
        end.col().saturating_sub(start.col()).max(1)
    } else {
        1
    };
    Mark {
        line: start.line(),
        column: start.col() + 1,
        width,
    }
}
