//! Whether old workers go when new ones have come, seen from outside: by the kernel's own list of a
//! keeper's children.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hitless_hypervisor::Process;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Old workers that are still there so long after the order was done count as ones that stay.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at keepers from a thread of its own while their workers are replaced.
pub(super) struct Takeover {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Option<u64>>,
}

/// One keeper's workers.
struct Pair {
    keeper: u32,
    old: BTreeSet<u32>,
    /// Children that were there before the takeover, workers or not.
    known: BTreeSet<u32>,
    /// When both were seen first.
    since: Option<Instant>,
    took: Option<Duration>,
}

impl Takeover {
    /// Of these keepers with the workers that they have now.
    pub(super) fn watch(keepers: &[(u32, Vec<u32>)]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut pairs: Vec<Pair> = keepers
            .iter()
            .map(|(keeper, workers)| Pair {
                keeper: *keeper,
                old: workers.iter().copied().collect(),
                known: children(*keeper)
                    .into_iter()
                    .chain(workers.clone())
                    .collect(),
                since: None,
                took: None,
            })
            .collect();
        let ordered = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut deadline = None;
            loop {
                pairs.iter_mut().for_each(Pair::look);
                let are_gone = pairs.iter().all(|pair| pair.took.is_some());
                if ordered.load(Ordering::Relaxed) {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if are_gone || Instant::now() >= until {
                        break;
                    }
                }
                std::thread::sleep(LOOK_EVERY);
            }
            let longest = pairs
                .iter()
                .map(|pair| pair.took)
                .try_fold(Duration::ZERO, |longest, took| Some(longest.max(took?)));
            longest.map(|longest| u64::try_from(longest.as_millis()).unwrap_or(u64::MAX))
        });
        Self { is_over, thread }
    }

    /// The order is done: for how long old workers were there beside new ones, at most. None: one
    /// stayed.
    pub(super) fn finish(self) -> Result<Option<u64>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that looks at workers panicked"))
    }
}

impl Pair {
    fn look(&mut self) {
        if self.took.is_some() {
            return;
        }
        let has_new = children(self.keeper)
            .iter()
            .any(|child| !self.known.contains(child));
        if has_new && self.since.is_none() {
            self.since = Some(Instant::now());
        }
        let are_gone = self.old.iter().all(|pid| Process::find(*pid).is_none());
        if are_gone {
            self.took = Some(self.since.map_or(Duration::ZERO, |since| since.elapsed()));
        }
    }
}

/// Children of a process. None are seen where the kernel does not list them.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().filter_map(|task| {
        let path = task.ok()?.path().join("children");
        fs::read_to_string(path).ok()
    });
    let mut all = Vec::new();
    for list in lists {
        all.extend(
            list.split_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Ends when the test does.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn sleeper() -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// This process is the keeper. Only one test of this binary may have children in its thread, so
    /// both cases are one test.
    #[test]
    fn an_old_worker_that_goes_is_timed_and_one_that_stays_is_noticed() {
        let old = sleeper();
        let watch = Takeover::watch(&[(std::process::id(), vec![old.0.id()])]);
        let new = sleeper();
        let came = Instant::now();
        while came.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(old);
        let gone = watch.finish().unwrap();
        assert!(gone.is_some_and(|ms| (50..2_000).contains(&ms)), "{gone:?}");

        let watch = Takeover::watch(&[(std::process::id(), vec![new.0.id()])]);
        assert_eq!(watch.finish().unwrap(), None);
    }
}
