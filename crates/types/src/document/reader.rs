//! Reads values out of a document's tree and reports what is wrong with them.
//!
//! Every function that finds something wrong adds a problem to the sink and answers `None`; callers
//! go on, so that one run reports everything. A `None` therefore never means "absent":
//! [`Object::optional`] says that.

use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use super::{Key, Mark, Node, Value};
use crate::problem::{Problem, Sink, quote};
use crate::scalar;
use crate::suggest::closest;

/// A node and the way to it.
#[derive(Clone, Debug)]
pub struct At<'a> {
    pub node: &'a Node,
    pub path: String,
}

/// A mapping whose fields are known by name.
#[derive(Debug)]
pub struct Object<'a> {
    mark: Mark,
    path: String,
    fields: Vec<Field<'a>>,
}

/// A field under the name that it has, or was meant to have.
#[derive(Debug)]
struct Field<'a> {
    name: &'static str,
    key: &'a Key,
    at: At<'a>,
}

/// An entry of a mapping whose keys are names that the user chose.
#[derive(Debug)]
pub struct Entry<'a> {
    pub key: &'a Key,
    pub at: At<'a>,
    /// The name is an earlier entry's: that is reported already, and what it names is to be read
    /// for its errors alone.
    pub is_repeated: bool,
}

impl<'a> At<'a> {
    pub fn root(node: &'a Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    pub fn mark(&self) -> Mark {
        self.node.mark
    }

    /// A problem with this value as a whole.
    pub fn problem(&self, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::at(self.mark(), self.path.clone(), code, message)
    }

    fn wrong_kind(&self, sink: &mut Sink, message: String, allowed: impl Into<String>) {
        let problem = self.problem("wrong-type", message);
        sink.add(problem.found(self.node.describe()).allowed(allowed));
    }

    /// A mapping with the fields `known` and no others. What is wrong in a field whose name is
    /// misspelt is reported as well: it is read as the one that was meant.
    pub fn object(
        &self,
        sink: &mut Sink,
        what: &str,
        known: &[&'static str],
    ) -> Option<Object<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_kind(sink, format!("{what} must be a mapping"), list(known));
            return None;
        };
        let mut fields: Vec<Field<'_>> = Vec::new();
        let mut misspelt = Vec::new();
        for (key, node) in entries {
            let path = join(&self.path, &key.text);
            let Some(name) = known.iter().copied().find(|name| *name == key.text) else {
                let has = if is_plural(what) { "have" } else { "has" };
                let message = format!("{what} {has} no field {}", quote(&key.text));
                let mut problem = Problem::at(key.mark, path.clone(), "unknown-field", message)
                    .allowed(list(known));
                if let Some(name) = closest(&key.text, known.iter().copied()) {
                    problem = problem.hint(format!("did you mean `{name}`?"));
                    let at = At { node, path };
                    misspelt.push(Field { name, key, at });
                }
                sink.add(problem);
                continue;
            };
            if let Some(first) = fields.iter().find(|field| field.name == name) {
                sink.add(duplicate(key, first.key, path));
            } else {
                let at = At { node, path };
                fields.push(Field { name, key, at });
            }
        }
        for field in misspelt {
            if fields.iter().all(|known| known.name != field.name) {
                fields.push(field);
            }
        }
        Some(Object {
            mark: self.mark(),
            path: self.path.clone(),
            fields,
        })
    }

    /// A mapping from names to values; a name that is written twice is reported.
    pub fn entries(&self, sink: &mut Sink, what: &str, max: usize) -> Option<Vec<Entry<'a>>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong_kind(sink, format!("{what} must be a mapping"), "NAME: { ... }");
            return None;
        };
        if entries.len() > max {
            let problem = self.problem("too-many", format!("{what} has too many entries"));
            sink.add(
                problem
                    .found(entries.len().to_string())
                    .allowed(format!("at most {max}")),
            );
            return None;
        }
        let mut named: std::collections::BTreeMap<&str, &Key> = std::collections::BTreeMap::new();
        let mut result = Vec::new();
        for (key, node) in entries {
            let path = join(&self.path, &key.text);
            let first = *named.entry(&key.text).or_insert(key);
            let is_repeated = !core::ptr::eq(first, key);
            if is_repeated {
                sink.add(duplicate(key, first, path.clone()));
            }
            result.push(Entry {
                key,
                at: At { node, path },
                is_repeated,
            });
        }
        Some(result)
    }

    /// A list of 1 to `max` items.
    pub fn items(&self, sink: &mut Sink, what: &str, max: usize) -> Option<Vec<At<'a>>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_kind(sink, format!("the {what} must be a list"), "[ITEM, ...]");
            return None;
        };
        if items.is_empty() || items.len() > max {
            let message = if items.is_empty() {
                "the list is empty"
            } else {
                "the list is too long"
            };
            let problem = self.problem("wrong-length", message);
            let found = format!("{} {what}", items.len());
            sink.add(problem.found(found).allowed(format!("1 to {max} {what}")));
            return None;
        }
        let at = |(position, node)| At {
            node,
            path: format!("{}[{position}]", self.path),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// Any scalar.
    pub fn text(&self, sink: &mut Sink, what: &str, allowed: &str) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.wrong_kind(sink, format!("{what} must be a single value"), allowed);
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, sink: &mut Sink, what: &str, known: &[(&str, T)]) -> Option<T> {
        self.word_or(sink, what, known, |_| None)
    }

    /// One of some words; `hint` says what to do about words that people know from elsewhere.
    pub fn word_or<T: Copy>(
        &self,
        sink: &mut Sink,
        what: &str,
        known: &[(&str, T)],
        hint: impl Fn(&str) -> Option<&'static str>,
    ) -> Option<T> {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let text = self.text(sink, what, &list(&words))?;
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let mut problem = self
            .problem(
                "unknown-word",
                format!("this is no {}", without_article(what)),
            )
            .found(quote(text))
            .allowed(list(&words));
        if let Some(hint) = hint(text) {
            problem = problem.hint(hint);
        } else if let Some(meant) = closest(text, words.iter().copied()) {
            problem = problem.hint(format!("did you mean `{meant}`?"));
        }
        sink.add(problem);
        None
    }

    /// A whole number, written without quotes.
    pub fn number(&self, sink: &mut Sink, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let allowed = format!("{} to {}", range.start(), range.end());
        let number = match &self.node.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        };
        self.in_range(sink, what, number, &range, allowed)
    }

    /// A length of time with its unit.
    pub fn duration(
        &self,
        sink: &mut Sink,
        what: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (start, end) = (scalar::show(*range.start()), scalar::show(*range.end()));
        let allowed = format!("{start} to {end}, for example `500ms`, `2s`, `1m`");
        let text = self.text(sink, what, &allowed)?;
        match scalar::duration(text) {
            Ok(duration) => self.in_range(sink, what, Some(duration), &range, allowed),
            Err(error) => {
                let problem = self.problem("duration", format!("{what} {error}"));
                let mut problem = problem.found(quote(text)).allowed(allowed);
                if error == scalar::DurationError::NoUnit {
                    problem = problem.hint(format!("did you mean `{text}s`?"));
                }
                sink.add(problem);
                None
            }
        }
    }

    /// A number of bytes, with or without a unit.
    pub fn bytes(&self, sink: &mut Sink, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let allowed = format!(
            "{} to {} bytes, for example `65536`, `64KiB`",
            range.start(),
            range.end()
        );
        let text = self.text(sink, what, &allowed)?;
        match scalar::bytes(text) {
            Some(bytes) => self.in_range(sink, what, Some(bytes), &range, allowed),
            None => {
                let message = format!("{what} must be a number of bytes");
                let problem = self.problem("wrong-type", message);
                sink.add(problem.found(quote(text)).allowed(allowed));
                None
            }
        }
    }

    /// An IP address with its port. One that is written wrongly and plain all the same is reported
    /// and answered, so that its other faults show too.
    pub fn address(&self, sink: &mut Sink, what: &str) -> Option<SocketAddr> {
        let allowed = "address:port, for example `192.0.2.1:80` or `[2001:db8::1]:80`";
        let text = self.text(sink, what, allowed)?;
        match scalar::address(text) {
            Ok(address) => Some(address),
            Err(error) => {
                let problem = self.problem("address", format!("{what} {error}"));
                let mut problem = problem.found(quote(text)).allowed(allowed);
                if let Some(hint) = error.hint(text) {
                    problem = problem.hint(hint);
                }
                sink.add(problem);
                error.meant(text)
            }
        }
    }

    fn in_range<T: PartialOrd + Kind>(
        &self,
        sink: &mut Sink,
        what: &str,
        value: Option<T>,
        range: &RangeInclusive<T>,
        allowed: String,
    ) -> Option<T> {
        let (code, message) = match value {
            Some(value) if range.contains(&value) => return Some(value),
            Some(value) if value < *range.start() => {
                ("out-of-range", format!("{what} is too small"))
            }
            Some(_) => ("out-of-range", format!("{what} is too large")),
            None => ("wrong-type", format!("{what} must be {}", T::KIND)),
        };
        let mut found = self.node.describe();
        if let Value::Scalar { plain: false, .. } = self.node.value {
            found.push_str(" in quotes");
        }
        sink.add(self.problem(code, message).found(found).allowed(allowed));
        None
    }
}

/// What a value is called in messages.
trait Kind {
    const KIND: &'static str;
}

impl Kind for u64 {
    const KIND: &'static str = "a whole number";
}

impl Kind for Duration {
    const KIND: &'static str = "a length of time";
}

impl<'a> Object<'a> {
    /// `None` if the field is not written.
    pub fn optional(&self, name: &str) -> Option<&At<'a>> {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name == name)
            .map(|field| &field.at)
    }

    /// A field that must be written; `what` and `allowed` say what is missing.
    pub fn required(
        &self,
        sink: &mut Sink,
        name: &str,
        what: &str,
        allowed: &str,
    ) -> Option<&At<'a>> {
        let field = self.optional(name);
        if field.is_none() {
            let message = format!("{what} needs the field `{name}`");
            let problem = Problem::at(self.mark, self.path.clone(), "missing-field", message);
            sink.add(problem.allowed(allowed));
        }
        field
    }

    /// The place of a field's name.
    pub fn key_mark(&self, name: &str) -> Mark {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name == name)
            .map_or(self.mark, |field| field.key.mark)
    }

    /// A problem with the mapping as a whole.
    pub fn problem(&self, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::at(self.mark, self.path.clone(), code, message)
    }
}

fn duplicate(key: &Key, first: &Key, path: String) -> Problem {
    let message = format!("{} is written twice", quote(&key.text));
    let first = format!("the first one is in line {}", first.mark.line);
    Problem::at(key.mark, path, "duplicate", message).hint(first)
}

fn join(path: &str, key: &str) -> String {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    if path.is_empty() {
        shown
    } else {
        format!("{path}.{shown}")
    }
}

fn list(words: &[&str]) -> String {
    words.join(", ")
}

/// `the timeouts`, but not `a site` or `the address`.
fn is_plural(what: &str) -> bool {
    what.starts_with("the ") && what.ends_with('s') && !what.ends_with("ss")
}

fn without_article(what: &str) -> &str {
    what.trim_start_matches("a ").trim_start_matches("an ")
}
