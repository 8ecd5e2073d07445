//! The driver `netns` on the real kernel. The tests need root and say so where there is none.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hitless_harness::needs;
use hitless_net::{Namespace, Netlink, Prefix};
use rustix::process::Signal;

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A node of the test's own: a namespace and a folder, gone with all guests when the test ends.
struct Node {
    namespace: Namespace,
    folder: tempfile::TempDir,
    prefix: String,
}

impl Node {
    /// None without root.
    #[track_caller]
    fn new() -> Option<Self> {
        if !needs::root() {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("hl-hvtest-{}-{number}-", std::process::id());
        Some(Self {
            namespace: Namespace::create(&format!("{prefix}node")).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            prefix,
        })
    }

    /// As an agent that starts anew.
    fn driver(&self) -> NetnsDriver {
        let options = NetnsOptions {
            run: self.folder.path().join("run"),
            prefix: self.prefix.clone(),
        };
        self.namespace
            .run(|| NetnsDriver::open(options))
            .unwrap()
            .unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for guest in self.driver().list().unwrap() {
            self.driver().destroy(&guest.spec.name).unwrap();
        }
        Namespace::delete(&format!("{}node", self.prefix)).unwrap();
    }
}

fn name(text: &str) -> GuestName {
    GuestName::new(text).unwrap()
}

fn spec(guest: &str) -> GuestSpec {
    let program = |name: &str, script: &str| Program {
        name: name.to_owned(),
        binary: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![("GREETING".to_owned(), "hello".to_owned())],
        is_limited: name != "ingress",
    };
    GuestSpec {
        name: name(guest),
        addresses: vec![
            "10.1.0.9/32".parse().unwrap(),
            "fd00:1::9/128".parse().unwrap(),
        ],
        vips: vec![
            "203.0.113.7".parse().unwrap(),
            "2001:db8::7".parse().unwrap(),
        ],
        gateways: Gateways {
            v4: Some("10.1.0.1".parse().unwrap()),
            v6: Some("fe80::1".parse().unwrap()),
        },
        mtu: 1_500,
        advertised_mss_v4: Some(1_404),
        advertised_mss_v6: Some(1_364),
        limits: Limits {
            processes_max: Some(64),
            ..Limits::default()
        },
        programs: vec![
            program("ingress", "echo $GREETING; exec sleep 300"),
            program("tm", "sleep 301 & exec sleep 302"),
        ],
    }
}

fn pids(guest: &Guest) -> Vec<Option<u32>> {
    let pid = |program: &ProgramState| program.process.map(|process| process.pid);
    guest.programs.iter().map(pid).collect()
}

fn is_child_of_ours(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat[stat.rfind(')').unwrap() + 1..]
        .split_ascii_whitespace()
        .nth(1);
    parent == Some(std::process::id().to_string().as_str())
}

/// In a container the session began outside: getsid(2) says 0 there.
#[test]
fn nobody_leads_a_session_from_outside_the_process_namespace() {
    const INSIDE: &str = "HITLESS_TEST_INSIDE";
    let own = Process::own().unwrap();
    if std::env::var_os(INSIDE).is_some() {
        assert_eq!(own.pid, 1);
        assert!(!own.leads_session());
        return;
    }
    if !needs::root() {
        return;
    }
    let inside = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::nobody_leads_a_session_from_outside_the_process_namespace",
        ])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(
        inside.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
fn names() {
    for good in ["a", "tm-1", "0"] {
        assert!(GuestName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a/b", "..", &"a".repeat(41)] {
        assert!(GuestName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_process_is_told_from_a_later_one_with_its_number() {
    let mut child = std::process::Command::new("sleep")
        .arg("300")
        .spawn()
        .unwrap();
    let process = Process::find(child.id()).unwrap();
    let other = Process {
        started_ticks: process.started_ticks + 1,
        ..process
    };
    assert!(process.is_alive() && !other.is_alive());
    other.signal(Signal::KILL).unwrap();
    assert!(!process.wait_gone(Duration::from_millis(1)).unwrap());
    assert!(other.wait_gone(Duration::ZERO).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.pid");
    process.write_file(&file).unwrap();
    assert_eq!(Process::from_file(&file), Some(process));
    other.write_file(&file).unwrap();
    assert_eq!(Process::from_file(&file), None);

    process.signal(Signal::KILL).unwrap();
    assert!(process.wait_gone(Duration::from_secs(10)).unwrap());
    // Dead, but nobody has asked for its end yet: as good as gone.
    assert!(!process.is_alive());
    child.wait().unwrap();
    assert!(process.wait_gone(Duration::ZERO).unwrap());
}

#[test]
fn specifications_that_cannot_be_are_refused() {
    let Some(node) = Node::new() else {
        return;
    };
    let driver = node.driver();
    let changes: [fn(&mut GuestSpec); 5] = [
        |spec| spec.gateways.v4 = None,
        |spec| spec.gateways.v6 = Some("2001:db8::1".parse().unwrap()),
        |spec| spec.mtu = 1_000,
        |spec| spec.programs[0].binary = "sh".into(),
        |spec| spec.programs[1].name = "ingress".to_owned(),
    ];
    for change in changes {
        let mut spec = spec("one");
        change(&mut spec);
        let error = driver.create(&spec).unwrap_err();
        assert!(matches!(error, Error::BadSpec { .. }), "{error}");
    }
    assert!(matches!(driver.start(&name("one")), Err(Error::NoGuest(_))));
    assert_eq!(driver.list().unwrap(), []);
}

#[test]
fn root_a_guest_lives_on_and_is_found_again() {
    let Some(node) = Node::new() else {
        return;
    };
    let asked = spec("a-guest-with-a-long-name");
    let made = node.driver().create(&asked).unwrap();
    let guest = made.spec.name.clone();
    assert!(!made.is_running());
    assert_ne!(made.mac, made.node_mac);
    eprintln!("limits that are not kept here: {:?}", made.degraded);
    let started = node.driver().start(&guest).unwrap();
    assert!(started.is_running());
    for (program, pid) in asked.programs.iter().zip(pids(&started)) {
        let pid = pid.unwrap();
        assert!(!is_child_of_ours(pid));
        if made.degraded.is_empty() {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let is_counted = groups.contains("/hitless/hl-hvtest-");
            assert_eq!(is_counted, program.is_limited, "{groups}");
        }
    }

    // The agent is gone; another one finds all as it is, starts nothing twice and repairs what is
    // missing.
    let found = node.driver().list().unwrap();
    assert_eq!(pids(&found[0]), pids(&started));
    assert_eq!(pids(&node.driver().start(&guest).unwrap()), pids(&started));
    node.driver().kill_program(&guest, "ingress").unwrap();
    assert!(node.driver().kill_program(&guest, "nothing").is_err());
    let after = node.driver().list().unwrap().remove(0);
    assert_eq!(after.programs[0].process, None);
    assert_eq!(pids(&after)[1], pids(&started)[1]);
    let repaired = node.driver().start(&guest).unwrap();
    assert_ne!(pids(&repaired)[0], pids(&started)[0]);
    assert_eq!(pids(&repaired)[1], pids(&started)[1]);

    // The agent died between starting a program and writing its pid file.
    let pid_file = node
        .folder
        .path()
        .join("run/guests/a-guest-with-a-long-name/tm.pid");
    fs::remove_file(&pid_file).unwrap();
    assert_eq!(pids(&node.driver().start(&guest).unwrap()), pids(&repaired));
    assert!(pid_file.exists());

    // The second program may not have come to its first word yet.
    let log = pid_file.with_file_name("ingress.log");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(&log).unwrap() != "hello\nhello\n" {
        assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(&log));
        thread::sleep(Duration::from_millis(10));
    }

    // The same again changes nothing; another VIP takes the old one's place under the running
    // guest.
    let mut changed = spec("a-guest-with-a-long-name");
    assert_eq!(
        pids(&node.driver().create(&changed).unwrap()),
        pids(&repaired)
    );
    changed.vips = vec!["203.0.113.8".parse().unwrap()];
    assert_eq!(
        pids(&node.driver().create(&changed).unwrap()),
        pids(&repaired)
    );
    let inside = Namespace::open(&made.namespace).unwrap();
    let addresses = Netlink::open(&inside).unwrap().addresses("lo").unwrap();
    assert!(addresses.contains(&Prefix::host("203.0.113.8".parse().unwrap())));
    assert!(!addresses.contains(&Prefix::host("203.0.113.7".parse().unwrap())));
    changed.gateways.v4 = Some("10.1.0.2".parse().unwrap());
    assert!(matches!(
        node.driver().create(&changed),
        Err(Error::NeedsDestroy { .. })
    ));

    node.driver().stop(&guest, Duration::from_secs(5)).unwrap();
    assert_eq!(pids(&node.driver().list().unwrap()[0]), [None, None]);
    assert_eq!(inside.processes().unwrap(), [0_u32; 0]);
    drop(inside);
    node.driver().destroy(&guest).unwrap();
    node.driver().destroy(&guest).unwrap();
    assert_eq!(node.driver().list().unwrap(), []);
    assert!(!Path::new("/run/netns").join(made.namespace).exists());
}

#[test]
fn root_a_guest_serves_and_is_destroyed_in_silence() {
    let Some(node) = Node::new() else {
        return;
    };
    let driver = node.driver();
    let guest = name("one");
    driver.create(&spec("one")).unwrap();
    let namespace = driver.start(&guest).unwrap().namespace;
    let inside = Namespace::open(&namespace).unwrap();
    let pairs: Vec<(TcpListener, TcpStream)> = ["10.1.0.9:0", "[fd00:1::9]:0"]
        .iter()
        .map(|address| {
            let listener = inside.run(|| TcpListener::bind(address)).unwrap().unwrap();
            let to = listener.local_addr().unwrap();
            let stream = node
                .namespace
                .run(|| TcpStream::connect(to))
                .unwrap()
                .unwrap();
            (listener, stream)
        })
        .collect();
    drop(inside);
    driver.destroy(&guest).unwrap();
    for (_listener, stream) in pairs {
        // Neither an end nor a reset: the machine is simply gone.
        stream.set_nonblocking(true).unwrap();
        let error = stream.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    }
}

#[test]
fn root_a_program_that_cannot_start_is_named() {
    let Some(node) = Node::new() else {
        return;
    };
    let mut broken = spec("one");
    broken.programs[1].binary = "/nonexistent/program".into();
    let driver = node.driver();
    driver.create(&broken).unwrap();
    let error = driver.start(&name("one")).unwrap_err();
    assert!(
        matches!(&error, Error::Start { program, .. } if program == "tm"),
        "{error}"
    );
    // The first one runs, and is started no second time.
    let before = pids(&driver.list().unwrap()[0]);
    driver.create(&spec("one")).unwrap();
    assert_eq!(pids(&driver.start(&name("one")).unwrap())[0], before[0]);
}

#[test]
fn what_somebody_left_is_no_guest_of_ours_root() {
    let Some(node) = Node::new() else {
        return;
    };
    let driver = node.driver();
    driver.create(&spec("g")).unwrap();
    let left = driver.start(&name("g")).unwrap();
    let cookie = Namespace::open(&left.namespace).unwrap().cookie().unwrap();
    fs::remove_dir_all(node.folder.path().join("run/guests/g")).unwrap();
    driver.create(&spec("g")).unwrap();
    let ours = driver.start(&name("g")).unwrap();
    assert_ne!(
        Namespace::open(&ours.namespace).unwrap().cookie().unwrap(),
        cookie
    );
    for pid in pids(&left).into_iter().flatten() {
        assert!(Process::find(pid).is_none(), "{pid} is still there");
    }
}

#[test]
fn the_ends_of_a_link_have_different_numbers_root() {
    let Some(node) = Node::new() else {
        return;
    };
    // In both namespaces the link's end would be the first interface behind loopback.
    let guest = node.driver().create(&spec("g")).unwrap();
    let inside = Namespace::open(&guest.namespace).unwrap();
    let inside = Netlink::open(&inside)
        .unwrap()
        .link(GUEST_INTERFACE)
        .unwrap();
    assert_ne!(inside.index, guest.node_interface_index);
}
