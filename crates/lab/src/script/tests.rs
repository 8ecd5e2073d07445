//! Scripts as users write them, and the machine's answer to what is too large.

use super::*;
use crate::machine::{Capacity, check};

const DEMO: &str = include_str!("../../demo.yaml");

#[test]
fn the_demo_is_a_good_script_and_has_the_promised_steps() {
    // The second build's path comes from the environment: any file will do here.
    let text = DEMO.replace("${HITLESS_SECOND_BUILD}", "/proc/self/exe");
    let script = Script::parse(&text).unwrap();
    assert_eq!(
        (script.topology.nodes.len(), script.topology.guests.len()),
        (3, 4)
    );
    assert_eq!(script.workloads["streams"].count, 500);
    let kinds: Vec<StepKind> = script.steps.iter().map(|step| step.kind).collect();
    use StepKind::*;
    assert_eq!(
        kinds,
        [
            AddGuest,
            DrainGuest,
            CallBack,
            AddNode,
            RebootNode,
            UpgradeTrafficManagers,
            ReplacePrograms,
            KillControl,
            KillWorkers,
            KillGuest
        ]
    );
    let kills = |action: &Action| match action {
        Action::KillGuest {
            with_controller, ..
        } => Some(*with_controller),
        _ => None,
    };
    let mut deaths = script.steps.iter().flat_map(|step| &step.actions);
    assert_eq!(
        deaths.find_map(kills),
        Some(false),
        "a death without a controller"
    );
    let again: Script = serde_json::from_str(&serde_json::to_string(&script).unwrap()).unwrap();
    assert_eq!(again, script);
}

#[test]
fn what_a_machine_lacks_is_said_with_figures() {
    let text = DEMO.replace("${HITLESS_SECOND_BUILD}", "/proc/self/exe");
    let script = Script::parse(&text).unwrap();
    let needed = script.size().need();
    assert_eq!(script.size().guests, 4 + 3, "with those that steps add");
    check(needed, needed).unwrap();
    let none = Capacity {
        memory_bytes: 1 << 20,
        descriptors: 100,
        processes: 3,
        ports: 9,
    };
    let text = check(needed, none).unwrap_err().to_string();
    for part in [
        "MiB of memory, and has 1",
        "descriptors in one process, and allows 100",
        "room for 3",
        "one virtual server, and has 9",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
