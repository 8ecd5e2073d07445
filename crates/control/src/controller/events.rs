//! What is worth an operator's log: how each change ended, and whom it cost a connection.

use hitless_core::ledger::Ledger;

use super::records::{ChangeOutcome, ChangeRecord, Records, Subject};

/// Changes that are under way, by number.
pub(super) fn open_changes(records: &Records) -> Vec<u64> {
    let open = records.changes.iter();
    open.filter(|(_, change)| change.outcome == ChangeOutcome::Open)
        .map(|(number, _)| *number)
        .collect()
}

/// One event for each change that has ended since it was in `before`.
pub(super) fn tell_ended(before: &[u64], records: &Records) {
    for number in before {
        if let Some(change) = records.changes.get(number) {
            tell(change, records);
        }
    }
}

fn tell(change: &ChangeRecord, records: &Records) {
    let ChangeRecord { name, ledger, .. } = change;
    let Ledger { reset, .. } = ledger;
    match &change.outcome {
        ChangeOutcome::Open => return,
        ChangeOutcome::Done => tracing::info!(change = name, reset, %ledger, "done"),
        ChangeOutcome::CalledBack => tracing::info!(change = name, reset, %ledger, "called back"),
        ChangeOutcome::Failed(reason) => {
            tracing::warn!(change = name, reason, reset, %ledger, "failed");
        }
    }
    if let Subject::Died(death) = &change.subject {
        tracing::warn!(
            change = name,
            guest = death.guest,
            node = death.node,
            cut_us = death.cut_us,
            believed_us = death.believed_us.values().max(),
            last_packet_us = death.last_packet_us,
            rows_us = death.rows_us,
            lost = death.held.map(|held| held.connections),
            "a guest died"
        );
    }
    for (guest, closed) in &change.closed {
        for connection in &closed.named {
            let virtual_server = records.site.names.get(&connection.server);
            tracing::info!(
                change = name,
                guest,
                client = %connection.client,
                server = %connection.server,
                virtual_server,
                "closed at the deadline"
            );
        }
        let left_out = closed.total.saturating_sub(closed.named.len() as u64);
        if left_out > 0 {
            tracing::info!(
                change = name,
                guest,
                left_out,
                "closed at the deadline, not named"
            );
        }
    }
}
