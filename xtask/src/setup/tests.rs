use super::*;

fn report(names: &[&str]) -> Report {
    let missing = PACKAGES
        .iter()
        .filter(|package| names.contains(&package.name))
        .copied()
        .collect();
    Report { missing }
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
