//! The API's calls: questions are answered, orders are taken.

use std::sync::mpsc::SyncSender;

use hitless_api::{Accepted, Answer, ApiError, Call, ErrorCode, Question};

use super::cluster::{self, View};
use super::records::Records;
use super::{CALLS_MAX, Controller, ControllerError, Event};

impl Controller {
    pub(super) fn call(&mut self, call: Call) -> Result<(), ControllerError> {
        let answer = match call.question {
            Question::Order(order) => {
                self.ordered(|records, view| cluster::order(records, view, order))?
            }
            Question::CallBack(name) => {
                self.ordered(|records, view| cluster::call_back(records, view, &name))?
            }
            Question::PutSite(text) => match (self.options.read_site)(&text) {
                Ok(facts) => {
                    self.ordered(|records, view| cluster::apply(records, view, text, facts))?
                }
                Err(problems) => Err(ApiError::new(ErrorCode::Invalid, problems)),
            },
            question => Ok(self.show(&question)),
        };
        // Whoever asked may have gone.
        let _ = call.reply.send(answer);
        Ok(())
    }

    fn ordered(
        &mut self,
        order: impl FnOnce(&mut Records, &View<'_>) -> Result<String, ApiError>,
    ) -> Result<Result<Answer, ApiError>, ControllerError> {
        let mut new = self.records.clone();
        let change = match order(&mut new, &self.view()) {
            Ok(change) => change,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.write(new)?;
        if !self
            .records
            .changes
            .values()
            .any(|known| known.name == change)
        {
            let text = "another controller wrote at the same time; ask again";
            return Ok(Err(ApiError::new(ErrorCode::Unavailable, text)));
        }
        tracing::info!(change, "accepted");
        self.look()?;
        Ok(Ok(Answer::Accepted(Accepted { change })))
    }
}

/// Serves the API in a thread of its own; calls become events.
pub(super) fn serve(
    listener: std::os::unix::net::UnixListener,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the API cannot listen"),
            };
            let (owner, mut calls) = tokio::sync::mpsc::channel(CALLS_MAX);
            tokio::spawn(async move {
                while let Some(call) = calls.recv().await {
                    let events = events.clone();
                    // The loop's queue may be full for the time of a disk's write.
                    let sent =
                        tokio::task::spawn_blocking(move || events.send(Event::Call(call)).is_ok())
                            .await;
                    if !sent.unwrap_or(false) {
                        return;
                    }
                }
            });
            if let Err(error) = hitless_api::serve(listener, owner, std::future::pending()).await {
                tracing::error!(%error, "the API ended");
            }
        });
    });
    Ok(())
}
