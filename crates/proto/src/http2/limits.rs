//! Every bound of the HTTP/2 codec, by name.

use super::budget::Rates;

/// Bounds of one connection. What it holds of its own: two tables of 4 KiB at most, a field block
/// of 32 KiB while one is interrupted, the output that the peer does not take (64 KiB of data and
/// heads, 64 KiB of replies), and 72 bytes a stream. The bodies' bytes lie with whoever takes them,
/// at most the connection's window in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Streams that the peer may have open at once. Beyond: REFUSED_STREAM.
    pub streams_max: u32,
    /// A head's names and values with 32 bytes a field. Beyond: 431.
    pub header_list_bytes_max: u32,
    /// The same, where decoding stops and the connection ends: what small blocks can grow to.
    pub header_work_bytes_max: u32,
    /// Fields in a head. Beyond: 431.
    pub fields_max: usize,
    /// A path with its query. Beyond: 414.
    pub path_bytes_max: usize,
    /// A field block as it comes, over all its frames. Beyond: the connection ends.
    pub block_bytes_max: usize,
    /// Frames that continue one field block. Beyond: the connection ends.
    pub continuations_max: u16,
    /// Table of the decoder, as announced.
    pub decoder_table_bytes: usize,
    /// Table of the encoder, however large the peer's may be.
    pub encoder_table_bytes: usize,
    /// Body bytes that a stream may have on the way to whoever takes them.
    pub stream_window_bytes: u32,
    /// The same for all streams of the connection together: room for 16 streams that stall.
    pub connection_window_bytes: u32,
    /// Body of a request. Beyond: 413, or the stream is reset.
    pub request_body_bytes_max: u64,
    /// Body of a response. Beyond: the stream is reset.
    pub response_body_bytes_max: u64,
    /// Interim (1xx) responses before the final one. Beyond: the stream is reset.
    pub interim_max: u8,
    /// Output that waits for the peer before no more data, and no further request, is taken.
    pub unsent_bytes_max: usize,
    /// Replies to the peer's frames that wait for it: settings, pings, resets. Beyond: the connection
    /// ends.
    pub unsent_replies_bytes_max: usize,
    /// Streams that were reset here whose late frames are known and ignored, 4 bytes each.
    pub reset_streams_max: usize,
    /// Frames per second.
    pub rates: Rates,
    /// Extended CONNECT (RFC 8441) is announced and taken.
    pub has_extended_connect: bool,
    /// Time without a stream, µs. Then the connection is closed.
    pub idle_time_us: u64,
    /// Time from the start to the peer's settings and to its acknowledgement of ours, µs.
    pub settings_time_us: u64,
    /// Time from the first frame of a field block to its last, µs.
    pub head_time_us: u64,
    /// Time without progress inside a body, whichever side it waits for, µs.
    pub body_time_us: u64,
    /// Time from the end of the request to the head of the final response, µs.
    pub response_time_us: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams_max: 100,
            header_list_bytes_max: 16_384,
            header_work_bytes_max: 262_144,
            fields_max: 100,
            path_bytes_max: 8_192,
            block_bytes_max: 32_768,
            continuations_max: 8,
            decoder_table_bytes: 4_096,
            encoder_table_bytes: 4_096,
            stream_window_bytes: 65_535,
            connection_window_bytes: 1_048_576,
            request_body_bytes_max: u64::MAX,
            response_body_bytes_max: u64::MAX,
            interim_max: 8,
            unsent_bytes_max: 65_536,
            unsent_replies_bytes_max: 65_536,
            reset_streams_max: 256,
            rates: Rates::default(),
            has_extended_connect: false,
            idle_time_us: 60_000_000,
            settings_time_us: 10_000_000,
            head_time_us: 10_000_000,
            body_time_us: 30_000_000,
            response_time_us: 60_000_000,
        }
    }
}
