//! Monitors: what probes members, and the board on which the data path reads who may be used.
//!
//! [`Board`] is the meeting point: the monitor thread writes, workers read one atomic per member.
//! It outlives configurations, so that a reload forgets nothing of a member that stays.
//! [`Monitors`] is that thread: one event loop beside the data path, which drives a
//! [`hitless_core::health::Prober`] per member and does what it says. It takes no decision of its
//! own.

mod board;
mod driver;
mod probe;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hitless_types::site::Site;

pub use board::{Board, MemberHealth, MemberKey, MemberState};

/// The running monitors. Dropping it stops them and waits for their thread.
#[derive(Debug)]
pub struct Monitors {
    board: Board,
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is told. Only the latest configuration counts, so one place is enough.
#[derive(Debug)]
struct Mailbox {
    order: Mutex<Option<Order>>,
    waker: mio::Waker,
}

#[derive(Debug)]
enum Order {
    Watch(driver::Plan),
    Stop,
}

impl Monitors {
    /// Starts the thread that probes the members of `site`. What the board knows of them from
    /// before stays.
    ///
    /// # Errors
    /// If there is no descriptor or no thread to be had.
    pub fn start(board: Board, site: &Site) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), driver::WAKE)?;
        let mailbox = Arc::new(Mailbox {
            order: Mutex::new(None),
            waker,
        });
        let driver = driver::Driver::new(poll, Arc::clone(&mailbox));
        let thread = std::thread::Builder::new()
            .name("monitors".to_owned())
            .spawn(move || driver.run())?;
        let monitors = Self {
            board,
            mailbox,
            thread: Some(thread),
        };
        monitors.reload(site);
        Ok(monitors)
    }

    /// Changes to another configuration. Members that stay keep their health; members that are gone
    /// leave the board.
    pub fn reload(&self, site: &Site) {
        self.board.keep_only(site);
        self.send(Order::Watch(driver::plan(&self.board, site)));
    }

    fn send(&self, order: Order) {
        let mut place = self
            .mailbox
            .order
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(order);
        drop(place);
        if let Err(error) = self.mailbox.waker.wake() {
            tracing::error!(%error, "cannot wake the monitors");
        }
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.send(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the monitors' thread had panicked");
        }
    }
}

#[cfg(test)]
mod tests;
