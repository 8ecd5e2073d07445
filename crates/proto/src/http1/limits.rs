//! Every bound of the HTTP/1 codec, by name.

/// Most fields that a head can have, whatever [`Limits::fields_max`] says: the size of the table in
/// a thread's [`Head`](super::Head), 128 x 12 bytes.
pub const FIELDS_CAP: usize = 128;

/// Most bytes that a head can have, whatever [`Limits::head_bytes_max`] says: offsets in it are 16
/// bits wide.
pub const HEAD_BYTES_CAP: usize = 65_535;

/// Bounds of one client connection. A connection holds at most one head or trailer section plus
/// what was read with it: with the defaults and reads of 64 KiB at most 80 KiB each way, while
/// bytes are stuck, and 0 otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request or response head, first line to empty line. Beyond: 431, or 414 if the first line
    /// alone fills it.
    pub head_bytes_max: usize,
    /// Fields in a head. Beyond: 431.
    pub fields_max: usize,
    /// Request target. Beyond: 414.
    pub target_bytes_max: usize,
    /// Trailer section behind a chunked body. Beyond: 431.
    pub trailer_bytes_max: usize,
    /// A chunk's size line with its extensions. Beyond: 400.
    pub chunk_line_bytes_max: usize,
    /// All chunk extensions of one body together: they cost us work and carry nothing. Beyond: 400.
    pub chunk_extension_bytes_max: u32,
    /// Body of a request. Beyond: 413.
    pub request_body_bytes_max: u64,
    /// Body of a response. Beyond: 502, or the response is cut.
    pub response_body_bytes_max: u64,
    /// Interim (1xx) responses before the final one. Beyond: 502.
    pub interim_max: u8,
    /// Empty lines before a request line. Beyond: 400.
    pub empty_lines_max: u8,
    /// Request body that is read and dropped to keep a connection whose answer is already complete.
    pub discard_bytes_max: u64,
    /// Time without a request, µs. Then the connection is closed.
    pub idle_time_us: u64,
    /// Time from the first byte of a request head to its last, µs. Then 408.
    pub head_time_us: u64,
    /// Time without progress inside a body, µs. Then 408, or the response is cut.
    pub body_time_us: u64,
    /// Time from the end of the request to the head of the final response, µs. Then 504.
    pub response_time_us: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: 16_384,
            fields_max: 100,
            target_bytes_max: 8_192,
            trailer_bytes_max: 4_096,
            chunk_line_bytes_max: 256,
            chunk_extension_bytes_max: 16_384,
            request_body_bytes_max: u64::MAX,
            response_body_bytes_max: u64::MAX,
            interim_max: 8,
            empty_lines_max: 1,
            discard_bytes_max: 65_536,
            idle_time_us: 60_000_000,
            head_time_us: 10_000_000,
            body_time_us: 30_000_000,
            response_time_us: 60_000_000,
        }
    }
}

impl Limits {
    /// Bytes of a head that are looked at.
    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes_max.min(HEAD_BYTES_CAP)
    }
}
