//! The thread that keeps a node's guests as they are ordered.
//!
//! It owns the driver of the hypervisor, whose calls take their time. Four times a second, and
//! whenever orders change, it looks at what runs: what is not ordered is destroyed, what is dead is
//! destroyed and made anew, what is missing is made, and a program that died is started again. It
//! reports all that runs, and what does not work.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use super::Event;
use crate::message::Orders;
use crate::plane::Way;

/// How often it looks: a dead ingress is started again within this.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A guest that is to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestPlan {
    pub name: String,
    /// Addresses that it serves.
    pub vips: Vec<IpAddr>,
    /// The program of its traffic manager; none: the agent's own.
    pub manager: Option<String>,
    /// The site configuration that it starts with.
    pub site: String,
}

impl GuestPlan {
    pub(super) fn all(orders: &Orders) -> Vec<Self> {
        if orders.is_leaving {
            return Vec::new();
        }
        let plan = |name: &String| Self {
            name: name.clone(),
            vips: orders.cluster.vips.clone(),
            manager: orders.programs.manager.clone(),
            site: orders.site.text.clone(),
        };
        orders.guests.keys().map(plan).collect()
    }
}

/// A guest that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    pub name: String,
    pub boot: u64,
    pub addresses: Vec<IpAddr>,
    /// The guest's end of its link: name and Ethernet address.
    pub interface: String,
    pub mac: [u8; 6],
    /// The node's end.
    pub node_mac: [u8; 6],
    pub ifindex: u32,
    pub mtu: u16,
    pub ingress_pid: Option<u32>,
    pub keeper_pid: Option<u32>,
    /// Its link is down, as when a machine has lost its power: it is gone for good.
    pub is_dead: bool,
}

impl Running {
    /// How this node's director reaches it.
    pub(super) const fn way(&self, source: IpAddr, destination: IpAddr) -> Way {
        Way {
            source,
            destination,
            mac: self.mac,
            source_mac: self.node_mac,
            ifindex: self.ifindex,
            mtu: self.mtu,
        }
    }
}

/// What runs guests, as far as an agent needs it.
pub trait GuestRunner: Send {
    /// All that runs, whoever started it.
    fn list(&self) -> Result<Vec<Running>, String>;

    /// Makes the guest if it is missing, and starts what of it does not run.
    fn ensure(&self, plan: &GuestPlan) -> Result<(), String>;

    /// Ends it at once. No error if there is none.
    fn destroy(&self, name: &str) -> Result<(), String>;
}

/// Starts the thread; plans go into what it returns.
pub(super) fn keep(
    runner: Box<dyn GuestRunner>,
    events: SyncSender<Event>,
) -> Sender<Vec<GuestPlan>> {
    let (sender, plans) = channel();
    std::thread::spawn(move || {
        // Nothing is touched before somebody said what is wanted.
        let mut plan: Option<Vec<GuestPlan>> = None;
        let mut last = None;
        loop {
            match plans.recv_timeout(LOOK_EVERY) {
                Ok(newest) => plan = Some(plans.try_iter().last().unwrap_or(newest)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(plan) = &plan else { continue };
            let looked = look(&*runner, plan);
            if last.as_ref() != Some(&looked) {
                let (running, faults) = looked.clone();
                if events.send(Event::Guests { running, faults }).is_err() {
                    return;
                }
                last = Some(looked);
            }
        }
    });
    sender
}

/// All that runs (none: that could not be found out), and what does not work.
type Looked = (Option<Vec<Running>>, BTreeMap<String, String>);

fn look(runner: &dyn GuestRunner, plan: &[GuestPlan]) -> Looked {
    let mut faults = BTreeMap::new();
    let running = match runner.list() {
        Ok(running) => running,
        Err(error) => {
            // A guest that is not seen is not gone: to call it so would give its connections up.
            faults.insert("guests".to_owned(), error);
            return (None, faults);
        }
    };
    for guest in &running {
        let is_wanted = plan.iter().any(|plan| plan.name == guest.name);
        if (!is_wanted || guest.is_dead)
            && let Err(error) = runner.destroy(&guest.name)
        {
            tracing::warn!(guest = guest.name, error, "cannot destroy the guest");
            faults.insert(guest.name.clone(), error);
        }
    }
    for plan in plan {
        if let Err(error) = runner.ensure(plan) {
            tracing::warn!(guest = plan.name, error, "cannot run the guest");
            faults.insert(plan.name.clone(), error);
        }
    }
    match runner.list() {
        Ok(running) => (Some(running), faults),
        Err(error) => {
            faults.insert("guests".to_owned(), error);
            (None, faults)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Fails to list when it is told to.
    struct Forgetful(Mutex<bool>);

    impl GuestRunner for Forgetful {
        fn list(&self) -> Result<Vec<Running>, String> {
            if *self.0.lock().unwrap() {
                return Err("no descriptor is left".to_owned());
            }
            let address = IpAddr::from([10, 0, 0, 9]);
            Ok(vec![Running {
                name: "g1".to_owned(),
                boot: 7,
                addresses: vec![address],
                interface: "eth0".to_owned(),
                mac: [2; 6],
                node_mac: [2; 6],
                ifindex: 5,
                mtu: 1_500,
                ingress_pid: None,
                keeper_pid: None,
                is_dead: false,
            }])
        }

        fn ensure(&self, _: &GuestPlan) -> Result<(), String> {
            assert!(
                !*self.0.lock().unwrap(),
                "nobody knows whether it is missing"
            );
            Ok(())
        }

        fn destroy(&self, name: &str) -> Result<(), String> {
            panic!("{name} is wanted")
        }
    }

    #[test]
    fn guests_that_cannot_be_listed_are_not_gone() {
        let plan = [GuestPlan {
            name: "g1".to_owned(),
            vips: Vec::new(),
            manager: None,
            site: String::new(),
        }];
        let runner = Forgetful(Mutex::new(false));
        let (running, faults) = look(&runner, &plan);
        assert_eq!(running.unwrap().len(), 1);
        assert!(faults.is_empty());
        *runner.0.lock().unwrap() = true;
        let (running, faults) = look(&runner, &plan);
        assert_eq!(running, None);
        assert_eq!(faults["guests"], "no descriptor is left");
    }
}
