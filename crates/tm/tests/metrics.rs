//! docs/reference/metrics.md lists what `/metrics` has: every name with its type, labels and
//! meaning, and nothing else.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Echo, HttpClient, Instance, own_address};
use hitless_tm::control::Request;

const TABLE: &str = include_str!("../../../docs/reference/metrics.md");

#[test]
fn the_table_of_metrics_is_what_is_served() {
    let http = Echo::http();
    let web = own_address();
    let instance = Instance::start(&format!(
        "pools:\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         web: {{ listen: '{web}', protocol: http, pool: web }}\n",
        http.address
    ));
    HttpClient::connect(web).get(1);
    let served = served(&instance.call(Request::Metrics).body);
    let table: BTreeSet<String> = TABLE
        .lines()
        .filter(|line| line.starts_with("| `hitless_"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = served.difference(&table).collect();
    let stale: Vec<_> = table.difference(&served).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "lines to add:\n{missing:#?}\nlines to take away:\n{stale:#?}"
    );
}

/// An answer that is too long for a packet arrives whole as well.
#[test]
fn many_pools_are_served() {
    use std::fmt::Write as _;

    let member = Echo::start();
    let mut site = "pools:\n".to_owned();
    for pool in 0..400 {
        writeln!(site, "  pool-{pool}: {{ members: ['{}'] }}", member.address).unwrap();
    }
    let listen = own_address();
    let raw = format!("  raw: {{ listen: '{listen}', protocol: tcp, pool: pool-0 }}\n");
    let instance = Instance::start(&format!("{site}virtual_servers:\n{raw}"));
    let text = instance.call(Request::Metrics).body;
    assert!(text.len() > 128 << 10, "{} bytes", text.len());
    assert!(text.contains("pool=\"pool-0\"") && text.contains("pool=\"pool-399\""));
}

/// One line of the table for each family.
fn served(text: &str) -> BTreeSet<String> {
    let mut help = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help.extend(rest.split_once(' '));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kinds.extend(rest.split_once(' '));
        } else {
            let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
            let of_name = labels.entry(name).or_default();
            let list = rest.split_once('}').map_or("", |(list, _)| &list[1..]);
            for pair in list.split(',').filter(|pair| !pair.is_empty()) {
                of_name.insert(format!("`{}`", pair.split_once('=').unwrap().0));
            }
        }
    }
    let line = |name: &str, labels: &BTreeSet<String>| {
        let list: Vec<&str> = labels.iter().map(String::as_str).collect();
        let list = if list.is_empty() {
            "-".to_owned()
        } else {
            list.join(", ")
        };
        format!("| `{name}` | {} | {list} | {} |", kinds[name], help[name])
    };
    labels
        .iter()
        .map(|(name, labels)| line(name, labels))
        .collect()
}
