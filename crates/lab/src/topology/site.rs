//! The site that a lab gives its cluster, checked before anything is built.
//!
//! What a user adds to it stands in the topology, so its errors are told by the topology's lines.

use anyhow::{Result, bail};
use hitless_types::problem::Problem;
use hitless_types::site::Site;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Topology;

/// A topology's file, or a script's around one.
#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    site: Option<Spanned<String>>,
    #[serde(default)]
    topology: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    site: Option<Spanned<String>>,
}

/// Where the text's first line is, from 1, and by how much it is indented there. The indentation is
/// none where the text is not written line by line.
struct Place {
    line: usize,
    indent: Option<usize>,
}

impl Topology {
    /// Checks the site that this lab would give its cluster; `source` is the text of the file that
    /// it was read from.
    pub(crate) fn check_site(&self, source: &str) -> Result<()> {
        let text = self.site_text();
        let Err(problems) = Site::parse("site", text.as_bytes()) else {
            return Ok(());
        };
        let own = self.site.as_deref().unwrap_or_default();
        // What the lab wrote itself stands above.
        let above = text[..text.len() - own.len()].matches('\n').count();
        let place = place(source, own);
        let lines = problems.problems.iter().map(|problem| {
            let line = problem.line.checked_sub(above).filter(|line| *line > 0);
            let at = match (line, &place) {
                (
                    Some(line),
                    Some(Place {
                        line: first,
                        indent: Some(indent),
                    }),
                ) => {
                    format!(
                        "line {} column {}: ",
                        first + line - 1,
                        problem.column + indent
                    )
                }
                (_, Some(Place { line: first, .. })) => format!("line {first}: "),
                (_, None) => String::new(),
            };
            format!("{at}site: {}", sentence(problem))
        });
        bail!("{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

/// An error in one line.
fn sentence(problem: &Problem) -> String {
    let mut text = problem.message.clone();
    for (label, value) in [
        (", found ", &problem.found),
        ("; allowed: ", &problem.allowed),
        ("; ", &problem.hint),
    ] {
        if let Some(value) = value {
            text.push_str(label);
            text.push_str(value);
        }
    }
    text
}

fn place(source: &str, own: &str) -> Option<Place> {
    let read: Source = serde_saphyr::from_str(source).ok()?;
    let inner = read.topology.and_then(|topology| topology.site);
    let at = usize::try_from(read.site.or(inner)?.referenced.line()).ok()?;
    // Of a block the first line that has something is found again below its key.
    let (skipped, first) = own
        .lines()
        .enumerate()
        .find(|(_, line)| !line.trim().is_empty())?;
    let found = source
        .lines()
        .enumerate()
        .skip(at.saturating_sub(1))
        .find(|(_, line)| line.trim() == first.trim());
    Some(match found {
        None => Place {
            line: at,
            indent: None,
        },
        Some((index, line)) => {
            let blanks = |line: &str| line.len() - line.trim_start().len();
            Place {
                line: index + 1 - skipped,
                indent: Some(blanks(line).saturating_sub(blanks(first))),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;

    const LAB: &str = "\
id: t
nodes: [n1]
guests: { g1: n1 }
# Two errors, and what is right between them.
site: |

  timeouts:
    idel: 5s
  limits:
    connections: 9
    headers: 1
";

    #[test]
    fn errors_of_the_site_bear_the_topology_s_lines() {
        let text = Topology::parse(LAB).unwrap_err().to_string();
        let expected = "\
line 8 column 5: site: the timeouts have no field `idel`; allowed: connect, request_head, \
keep_alive, response, idle; did you mean `idle`?
line 11 column 14: site: the limit `headers` is too small, found `1`; allowed: 8 to 1024";
        assert_eq!(text, expected);
        let good = LAB
            .replace("idel", "idle")
            .replace("headers: 1", "headers: 9");
        Topology::parse(&good).unwrap();
    }

    #[test]
    fn a_text_in_one_line_has_that_line_and_one_in_a_script_the_script_s() {
        let (head, _) = LAB.split_once("site:").unwrap();
        let one_line = format!("{head}site: 'timeouts: 5s'\n");
        let text = Topology::parse(&one_line).unwrap_err().to_string();
        let expected = "line 5: site: the timeouts must be a mapping, found `5s`; ";
        assert!(text.starts_with(expected), "{text}");

        let indented: String = LAB.lines().map(|line| format!("  {line}\n")).collect();
        let script = format!(
            "topology:\n{indented}workloads:\n  s: {{ kind: stream, count: 1, interval_ms: 9 }}\n\
             steps:\n  - {{ name: s, kind: steady, actions: [] }}\n"
        );
        let text = Script::parse(&script).unwrap_err().to_string();
        assert!(text.starts_with("line 9 column 7: site: "), "{text}");
    }

    #[test]
    fn what_the_lab_writes_itself_may_not_be_written_again() {
        let twice = LAB.replace("timeouts:\n    idel: 5s", "pools: {}");
        let text = Topology::parse(&twice).unwrap_err().to_string();
        assert!(
            text.starts_with("line 7 column 3: site: `pools` is written twice"),
            "{text}"
        );
    }
}
