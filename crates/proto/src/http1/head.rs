//! Heads of messages: the table of fields, and finding where a head ends.
//!
//! `httparse` cuts a head into tokens; what it tolerates and RFC 9112 does not, this module refuses
//! afterwards. A head is judged only when it is complete or over its limit, so the verdict does not
//! depend on how its bytes were split.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::field::FieldId;
use super::limits::{FIELDS_CAP, Limits};
use super::refusal::Refusal;

/// A part of the head, as 16-bit offsets from its first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// `part` must lie within `whole`, and `whole` be at most 65,535 bytes long.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Span::new(start, start + part.len())
    }

    pub(super) fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= usize::from(u16::MAX));
        Span {
            start: start as u16,
            end: end as u16,
        }
    }

    /// The bytes, from the slice that starts with the head.
    pub fn bytes(self, head: &[u8]) -> &[u8] {
        &head[self.range()]
    }

    pub fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Field {
    pub id: FieldId,
    pub name: Span,
    /// Without white space around it.
    pub value: Span,
}

/// What the codec must know of a method; all others are passed on as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Other,
    Head,
    Options,
    Connect,
    Trace,
}

/// A parsed head. One per thread, reused for every message: no allocation and no initialisation per
/// message. All spans are offsets into the slice that the head was found at the start of.
#[derive(Debug, Clone)]
pub struct Head {
    /// Bytes of the head, empty line included.
    pub(super) len: usize,
    /// 0 or 1: the minor version.
    pub(super) minor: u8,
    pub(super) method: Method,
    pub(super) method_name: Span,
    pub(super) target: Span,
    /// Path and query, without scheme and authority. Empty means `/` (or `*` with OPTIONS).
    pub(super) path: Span,
    /// Host, of the target if it has one, else of the field. None: HTTP/1.0 without one.
    pub(super) host: Option<Span>,
    /// Whether the target named scheme and authority.
    pub(super) is_absolute: bool,
    pub(super) status: u16,
    pub(super) reason: Span,
    /// Where the trailer section that this is stands in the input of the last step.
    pub(super) section: Range<usize>,
    pub(super) count: usize,
    pub(super) fields: [Field; FIELDS_CAP],
    pub(super) facts: super::facts::Facts,
}

impl Default for Head {
    fn default() -> Head {
        Head {
            len: 0,
            minor: 1,
            method: Method::Other,
            method_name: Span::default(),
            target: Span::default(),
            path: Span::default(),
            host: None,
            is_absolute: false,
            status: 0,
            reason: Span::default(),
            section: 0..0,
            count: 0,
            fields: [Field::default(); FIELDS_CAP],
            facts: super::facts::Facts::default(),
        }
    }
}

/// Result of looking for a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Complete,
    Partial,
}

impl Head {
    /// Bytes of the head, empty line included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no head was parsed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn minor(&self) -> u8 {
        self.minor
    }

    /// Method of a request, what the codec knows of it.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Name of the method.
    pub fn method_name(&self) -> Span {
        self.method_name
    }

    /// Request target as it was sent.
    pub fn target(&self) -> Span {
        self.target
    }

    /// Path and query of the target. Empty means `/`, or `*` with OPTIONS.
    pub fn path(&self) -> Span {
        self.path
    }

    /// Host and port that the request is for: of the target if it has one, else of the Host field.
    /// None: an HTTP/1.0 request without a Host field.
    pub fn host(&self) -> Option<Span> {
        self.host
    }

    /// Status of a response.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All fields, in the order in which they came.
    pub fn fields(&self) -> &[Field] {
        &self.fields[..self.count]
    }

    /// Where the trailer section that this is stands in the input of the last step over a body.
    /// Empty: that step met none.
    pub fn section(&self) -> Range<usize> {
        self.section.clone()
    }

    /// Whether this is a 1xx response: another one follows.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// Body bytes that the message declares. None: chunked, or until the connection closes.
    pub fn declared_length(&self) -> Option<u64> {
        self.facts.length
    }

    /// Looks for a request head at the start of `input`.
    pub(super) fn find_request(
        &mut self,
        input: &[u8],
        scanned: &mut u16,
        limits: &Limits,
    ) -> Result<Found, Refusal> {
        let window = &input[..input.len().min(limits.head_bytes())];
        if !may_be_complete(window, *scanned) {
            return partial(window, scanned, limits, true);
        }
        let mut table = [const { MaybeUninit::uninit() }; FIELDS_CAP];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(window, &mut table) {
            Ok(httparse::Status::Complete(len)) => {
                self.len = len;
                self.minor = request.version.unwrap_or(0);
                self.status = 0;
                self.method_name = Span::of(request.method.unwrap_or("").as_bytes(), window);
                self.target = Span::of(request.path.unwrap_or("").as_bytes(), window);
                self.take_fields(window, request.headers, limits)?;
                *scanned = 0;
                Ok(Found::Complete)
            }
            Ok(httparse::Status::Partial) => partial(window, scanned, limits, true),
            Err(error) => fault(window, scanned, limits, error, true),
        }
    }

    /// Looks for a response head at the start of `input`.
    pub(super) fn find_response(
        &mut self,
        input: &[u8],
        scanned: &mut u16,
        limits: &Limits,
    ) -> Result<Found, Refusal> {
        let window = &input[..input.len().min(limits.head_bytes())];
        if !may_be_complete(window, *scanned) {
            return partial(window, scanned, limits, false);
        }
        let mut table = [const { MaybeUninit::uninit() }; FIELDS_CAP];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, window, &mut table) {
            Ok(httparse::Status::Complete(len)) => {
                self.len = len;
                self.minor = response.version.unwrap_or(0);
                self.status = response.code.unwrap_or(0);
                self.reason = reason_span(window);
                self.take_fields(window, response.headers, limits)?;
                *scanned = 0;
                Ok(Found::Complete)
            }
            Ok(httparse::Status::Partial) => partial(window, scanned, limits, false),
            Err(error) => fault(window, scanned, limits, error, false),
        }
    }

    /// Fills the table and refuses bare line feeds, which `httparse` takes for line ends.
    fn take_fields(
        &mut self,
        window: &[u8],
        parsed: &[httparse::Header<'_>],
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if parsed.len() > limits.fields_max {
            return Err(Refusal::TooManyFields);
        }
        self.count = parsed.len();
        for (field, header) in self.fields.iter_mut().zip(parsed) {
            let name = Span::of(header.name.as_bytes(), window);
            // Every line but the last is followed by a field name; so the two bytes before each
            // name are the end of a line.
            if !window[..usize::from(name.start)].ends_with(b"\r\n") {
                return Err(Refusal::LineEnd);
            }
            *field = Field {
                id: FieldId::of(header.name.as_bytes()),
                name,
                value: match header.value {
                    // `httparse` points an empty value anywhere.
                    [] => Span {
                        start: name.end,
                        end: name.end,
                    },
                    value => Span::of(value, window),
                },
            };
        }
        match window[..self.len].ends_with(b"\r\n\r\n") {
            true => Ok(()),
            false => Err(Refusal::LineEnd),
        }
    }
}

/// Parses the fields of a trailer section (with its empty line) into `head`'s table.
pub(super) fn parse_trailers(head: &mut Head, section: &[u8]) -> Result<(), Refusal> {
    let mut table = [httparse::EMPTY_HEADER; 32];
    match httparse::parse_headers(section, &mut table) {
        Ok(httparse::Status::Complete((len, parsed))) if len == section.len() => {
            head.count = parsed.len();
            for (field, header) in head.fields.iter_mut().zip(parsed) {
                let name = Span::of(header.name.as_bytes(), section);
                if name.start > 0 && !section[..usize::from(name.start)].ends_with(b"\r\n") {
                    return Err(Refusal::Trailer);
                }
                let value = match header.value {
                    [] => Span {
                        start: name.end,
                        end: name.end,
                    },
                    value => Span::of(value, section),
                };
                *field = Field {
                    id: FieldId::of(header.name.as_bytes()),
                    name,
                    value,
                };
            }
            Ok(())
        }
        _ => Err(Refusal::Trailer),
    }
}

/// Bytes up to and including the first empty line, if there is one. Line ends may be bare here:
/// they are judged by the parser. `from` bytes are known not to hold the end.
pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(3);
    while let Some(offset) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        let line_end = at + offset + 1;
        match &bytes[line_end..] {
            [b'\n', ..] => return Some(line_end + 1),
            [b'\r', b'\n', ..] => return Some(line_end + 2),
            _ => at = line_end,
        }
    }
    None
}

/// A head that was seen without its end is not parsed again until the end is there: a client that
/// sends single bytes costs a scan of the new ones.
fn may_be_complete(window: &[u8], scanned: u16) -> bool {
    scanned == 0 || end_of_head(window, usize::from(scanned)).is_some()
}

/// The head has no end yet: wait, or refuse it if it can get no longer.
#[cold]
fn partial(
    window: &[u8],
    scanned: &mut u16,
    limits: &Limits,
    is_request: bool,
) -> Result<Found, Refusal> {
    if end_of_head(window, 0).is_some() {
        // The parser wants more although there is an empty line: it stands inside what the parser
        // skips.
        return Err(Refusal::FirstLine);
    }
    if window.len() < limits.head_bytes() {
        *scanned = window.len() as u16;
        return Ok(Found::Partial);
    }
    match is_request && !window.contains(&b'\n') {
        true => Err(Refusal::TargetTooLong),
        false => Err(Refusal::HeadTooLarge),
    }
}

/// The parser found a fault: it counts once the head is complete, so that splits do not change the
/// verdict.
#[cold]
fn fault(
    window: &[u8],
    scanned: &mut u16,
    limits: &Limits,
    error: httparse::Error,
    is_request: bool,
) -> Result<Found, Refusal> {
    if end_of_head(window, 0).is_none() {
        return partial(window, scanned, limits, is_request);
    }
    Err(match error {
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::NewLine => Refusal::LineEnd,
        httparse::Error::Status | httparse::Error::Token => Refusal::FirstLine,
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version => Refusal::Version,
    })
}

/// The reason phrase of `HTTP/1.x NNN reason`, which `httparse` hides if it has bytes beyond ASCII.
fn reason_span(window: &[u8]) -> Span {
    const AT: usize = "HTTP/1.1 200 ".len();
    let end = window
        .iter()
        .position(|&byte| byte == b'\r' || byte == b'\n')
        .unwrap_or(0);
    Span::new(AT.min(end), end)
}
