use super::*;

fn report(names: &[&str]) -> Report {
    let missing = PACKAGES
        .iter()
        .filter(|package| names.contains(&package.name))
        .copied()
        .collect();
    Report {
        missing,
        is_root: true,
    }
}

#[test]
fn installed_packages_are_not_missing() {
    let installed = PACKAGES
        .iter()
        .skip(1)
        .map(|package| package.name.to_owned())
        .collect();
    let missing = missing(&PackageState(installed));
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].name, PACKAGES[0].name);
}

#[test]
fn every_package_is_listed_once_and_has_a_reason() {
    for (at, package) in PACKAGES.iter().enumerate() {
        assert!(!package.reason.is_empty(), "{}", package.name);
        assert!(
            !PACKAGES[..at]
                .iter()
                .any(|other| other.name == package.name),
            "{}",
            package.name
        );
    }
}

#[test]
fn a_missing_part_leaves_the_build_alone_and_names_the_command() {
    let report = report(&["nginx-light"]);
    assert!(report.can_build());
    let text = report.shown();
    assert!(
        text.contains("apt-get install --no-install-recommends nginx-light\n"),
        "{text}"
    );
    assert!(text.contains("what still works: the build"), "{text}");
}

#[test]
fn a_missing_compiler_stops_the_build() {
    let report = report(&["clang", "curl"]);
    assert!(!report.can_build());
    assert!(
        report.shown().contains("nothing until"),
        "{}",
        report.shown()
    );
}

#[test]
fn nothing_missing_says_nothing() {
    assert_eq!(report(&[]).shown(), "");
}

#[test]
fn without_root_it_says_what_is_left_out_also_where_every_package_is_there() {
    let report = Report {
        is_root: false,
        ..report(&[])
    };
    assert!(
        report
            .shown()
            .starts_with("without root are left out: lab, demo")
    );
}

/// An apt that knows some packages, as root sees it, and what it was asked for.
fn install_from(known: &[&str], is_online: bool) -> (Vec<String>, Vec<String>) {
    let mut asked = Vec::new();
    let mut apt_get = |args: &[&str]| {
        asked.push(args.join(" "));
        let names = args.iter().skip(1).filter(|arg| !arg.starts_with("--"));
        let unknown: Vec<_> = names.filter(|name| !known.contains(name)).collect();
        if args == ["update"] && !is_online || !unknown.is_empty() {
            bail!("no {unknown:?}");
        }
        Ok(())
    };
    let failures = install(&report(&["curl", "nginx-light"]).missing, &mut apt_get);
    let failures = failures.iter().map(ToString::to_string).collect();
    (asked, failures)
}

#[test]
fn packages_are_installed_together() {
    let (asked, failures) = install_from(&["curl", "nginx-light"], true);
    let together = "install --yes --no-install-recommends nginx-light curl";
    assert_eq!(asked, ["update", together]);
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn a_package_that_cannot_be_had_keeps_no_other_away() {
    let (asked, failures) = install_from(&["curl"], true);
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert_eq!(asked[3], "install --yes --no-install-recommends curl");
    assert_eq!(failures, ["no [\"nginx-light\"]"; 2]);
}

#[test]
fn without_network_all_of_it_is_said_and_nothing_ends() {
    let (_, failures) = install_from(&[], false);
    assert_eq!(failures.len(), 4, "{failures:?}");
}

#[test]
fn the_lab_needs_packages_of_the_list() {
    assert!(report(&["curl", "iproute2"]).lacks(OF_LAB));
    assert!(!report(&["curl", "clang"]).lacks(OF_LAB));
    for name in OF_LAB {
        assert!(PACKAGES.iter().any(|package| package.name == *name));
    }
}
