//! Bytes that a connection keeps because they are stuck, in either direction. Memory is owned only
//! meanwhile.

/// Moves stuck input to the start of `scratch`, as much as it has room for. Returns its length.
pub(crate) fn take_into(stuck: &mut Vec<u8>, scratch: &mut [u8]) -> usize {
    if stuck.is_empty() {
        return 0;
    }
    let count = stuck.len().min(scratch.len());
    scratch[..count].copy_from_slice(&stuck[..count]);
    take_front(stuck, count);
    count
}

/// Keeps input that was not consumed: it comes before anything that is still stuck.
pub(crate) fn keep_before(stuck: &mut Vec<u8>, rest: &[u8]) {
    if !rest.is_empty() {
        stuck.splice(..0, rest.iter().copied());
    }
}

/// The first `count` bytes are done with. The memory goes back when all of them are.
pub(crate) fn take_front(bytes: &mut Vec<u8>, count: usize) {
    match count == bytes.len() {
        true => *bytes = Vec::new(),
        false => drop(bytes.drain(..count)),
    }
}
