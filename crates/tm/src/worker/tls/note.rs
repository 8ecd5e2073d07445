//! HTTP over TLS: what is noted of a connection that waits for a request, and how it goes on after
//! this process.

use hitless_carry::vault::Entry;
use hitless_proto::tls::Role;

use super::kept;
use super::layer::Layer;
use crate::worker::core_of_lane::Core;
use crate::worker::tcp::CLIENT;

/// What no counter of the kernel ever says.
const NEVER: u64 = u64::MAX;

/// Notes the layer as it will be when `unsent` bytes of data are out, sealed together. Returns the
/// bytes of the socket that will have been read and written then; those of nobody, if the
/// connection could not go on from there.
pub(in crate::worker) fn note_http(
    core: &Core,
    slot: u32,
    layer: &Layer,
    unsent: usize,
) -> (u64, u64) {
    let Some(entry) = core.entry(slot) else {
        return (NEVER, NEVER);
    };
    kept::changes(entry);
    let records = &layer.records;
    let is_still = layer.is_still() && records.is_between_messages();
    let Some((bytes, count)) = records.sealed_size(unsent).filter(|_| is_still) else {
        return (NEVER, NEVER);
    };
    let [_, (_, sent)] = records.keys();
    kept::put_layer(entry, CLIENT, records, Some(sent + count));
    kept::now_holds(entry);
    let waiting = records.unsent().len() + bytes;
    (layer.read, layer.written + waiting as u64)
}

/// The layer of a connection that waited for a request when its worker died.
pub(in crate::worker) fn recover_http(entry: &Entry, read: u64, written: u64) -> Option<Layer> {
    let records = kept::holds(entry).then(|| kept::layer(entry, CLIENT, Role::Server))??;
    Some(Layer::new(records, read, written))
}
