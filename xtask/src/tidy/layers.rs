//! Dependencies point one way: types, then core and proto, then the parts, then tm and lab, then
//! the binary.

use super::Finding;
use crate::metadata::{Graph, Kind};

/// The layers from the ground up. A crate may use those of lower layers, and of its own where that
/// is said.
const LAYERS: &[(&[&str], Peers)] = &[
    (&["hitless-types"], Peers::Refused),
    (&["hitless-core", "hitless-proto"], Peers::Refused),
    (
        &[
            "hitless-sim",
            "hitless-bpf",
            "hitless-carry",
            "hitless-store",
            "hitless-net",
            "hitless-hypervisor",
            "hitless-api",
        ],
        Peers::Allowed,
    ),
    (&["hitless-tm", "hitless-lab"], Peers::Refused),
    // The loops of node, ingress and controller ask traffic managers through tm's control socket.
    (&["hitless-control"], Peers::Refused),
    (&["hitless"], Peers::Refused),
];

/// Whether crates of one layer may use each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    Allowed,
    Refused,
}

/// Crates without input and output.
const PURE: &[&str] = &["hitless-types", "hitless-core", "hitless-proto"];

/// What brings input, output, a clock or threads along.
const IO_CRATES: &[&str] = &[
    "async-std",
    "axum",
    "getrandom",
    "hyper",
    "libbpf-rs",
    "libbpf-sys",
    "libc",
    "mio",
    "nix",
    "rand",
    "redb",
    "reqwest",
    "rtnetlink",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tracing-subscriber",
];

/// The lab starts the product by its path and must not share code with what it judges.
const LAB: &str = "hitless-lab";
const NOT_IN_LAB: &[&str] = &[
    "hitless-tm",
    "hitless-control",
    "hitless-carry",
    "hitless-store",
    "hitless",
];

/// Crates outside the product, which nothing may depend on, but tests on the last.
const TOOLS: &[&str] = &["xtask", "hitless-fuzz", HARNESS];
const HARNESS: &str = "hitless-harness";

pub(super) fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &graph.members {
        let is_tool = TOOLS.contains(&member.as_str());
        let layer = layer(member);
        if layer.is_none() && !is_tool {
            let text = "is in no layer: add it to LAYERS of xtask/src/tidy/layers.rs";
            findings.push(Finding::failure(member, text));
        }
        for (dependency, kind) in graph.edges.get(member).into_iter().flatten() {
            let is_for_tests = dependency == HARNESS && *kind == Kind::Dev;
            if TOOLS.contains(&dependency.as_str()) && !is_for_tests {
                findings.push(Finding::failure(
                    member,
                    format!("uses {dependency}, which is a tool"),
                ));
            }
            // Tests may look upwards.
            let (Some(own), Some(used)) = (layer, self::layer(dependency)) else {
                continue;
            };
            let is_below = used < own || used == own && LAYERS[own].1 == Peers::Allowed;
            if !is_below && *kind != Kind::Dev {
                let text = format!("uses {dependency}, which is not below it");
                findings.push(Finding::failure(member, text));
            }
        }
    }
    for pure in PURE {
        let linked = graph.linked(pure);
        for io in IO_CRATES.iter().filter(|io| linked.contains(**io)) {
            findings.push(Finding::failure(
                pure,
                format!("links {io}, and has no input and output"),
            ));
        }
    }
    let lab = graph.linked(LAB);
    for role in NOT_IN_LAB.iter().filter(|role| lab.contains(**role)) {
        findings.push(Finding::failure(
            LAB,
            format!("links {role}, which it has to judge from outside"),
        ));
    }
    findings
}

fn layer(package: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|(packages, _)| packages.contains(&package))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str, Kind)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to, kind) in edges {
            graph.members.insert((*from).to_owned());
            graph
                .edges
                .entry((*from).to_owned())
                .or_default()
                .insert(((*to).to_owned(), *kind));
        }
        graph
    }

    fn texts(edges: &[(&str, &str, Kind)]) -> Vec<String> {
        check(&graph(edges))
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.text))
            .collect()
    }

    #[test]
    fn the_way_down_is_free() {
        let edges = [
            ("hitless-core", "hitless-types", Kind::Normal),
            ("hitless-hypervisor", "hitless-net", Kind::Normal),
            ("hitless", "hitless-tm", Kind::Normal),
            ("hitless-core", "hitless-sim", Kind::Dev),
        ];
        assert_eq!(texts(&edges), Vec::<String>::new());
    }

    #[test]
    fn the_way_up_and_sideways_is_refused() {
        let up = texts(&[("hitless-core", "hitless-tm", Kind::Normal)]);
        assert_eq!(up, ["hitless-core uses hitless-tm, which is not below it"]);
        let sideways = texts(&[("hitless-core", "hitless-proto", Kind::Build)]);
        assert_eq!(
            sideways,
            ["hitless-core uses hitless-proto, which is not below it"]
        );
    }

    #[test]
    fn io_below_core_is_found_at_any_depth() {
        let found = texts(&[
            ("hitless-core", "some", Kind::Normal),
            ("some", "mio", Kind::Normal),
        ]);
        assert!(
            found
                .iter()
                .any(|text| text.starts_with("hitless-core links mio")),
            "{found:?}"
        );
        let tests_only = texts(&[("hitless-core", "mio", Kind::Dev)]);
        assert!(tests_only.is_empty(), "{tests_only:?}");
    }

    #[test]
    fn the_lab_links_no_role() {
        let found = texts(&[("hitless-lab", "hitless-carry", Kind::Normal)]);
        assert!(
            found.iter().any(|text| text.contains("judge from outside")),
            "{found:?}"
        );
    }

    #[test]
    fn only_tests_use_what_tests_share() {
        assert!(texts(&[("hitless-core", "hitless-harness", Kind::Dev)]).is_empty());
        let found = texts(&[("hitless-core", "hitless-harness", Kind::Normal)]);
        assert_eq!(
            found,
            ["hitless-core uses hitless-harness, which is a tool"]
        );
    }

    #[test]
    fn an_unknown_crate_needs_a_layer() {
        let found = texts(&[("hitless-new", "serde", Kind::Normal)]);
        assert!(found[0].contains("is in no layer"), "{found:?}");
    }
}
