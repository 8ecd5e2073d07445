//! Heads of messages: pseudo-header fields apart, the others in order.
//!
//! One [`Head`] per thread takes every head that comes; a caller that sends one builds it in
//! another or passes on the one that came.

use super::fields::{Field, Fields};

/// No such field.
const NONE: u16 = u16::MAX;

/// A head, or a trailer section. Empty until one has come.
#[derive(Debug, Clone)]
pub struct Head {
    pub(super) fields: Fields,
    /// Pseudo-header fields, which come first.
    pub(super) pseudo_count: usize,
    method: u16,
    scheme: u16,
    /// `:authority`, else Host.
    authority: u16,
    path: u16,
    protocol: u16,
    host: u16,
    pub(super) status: u16,
    pub(super) content_length: Option<u64>,
}

impl Default for Head {
    fn default() -> Head {
        Head {
            fields: Fields::default(),
            pseudo_count: 0,
            method: NONE,
            scheme: NONE,
            authority: NONE,
            path: NONE,
            protocol: NONE,
            host: NONE,
            status: 0,
            content_length: None,
        }
    }
}

/// Pseudo-header fields with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
}

impl Head {
    /// Removes everything and keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.forget();
    }

    /// Begins the head of a request. `authority` None: there is none, as in HTTP/1.0.
    pub fn begin_request(
        &mut self,
        method: &[u8],
        scheme: &[u8],
        authority: Option<&[u8]>,
        path: &[u8],
    ) {
        self.clear();
        self.push_pseudo(Pseudo::Method, b":method", method);
        self.push_pseudo(Pseudo::Scheme, b":scheme", scheme);
        if let Some(authority) = authority {
            self.push_pseudo(Pseudo::Authority, b":authority", authority);
        }
        self.push_pseudo(Pseudo::Path, b":path", path);
    }

    /// Begins the head of an extended CONNECT (RFC 8441).
    pub fn begin_connect(&mut self, protocol: &[u8], scheme: &[u8], authority: &[u8], path: &[u8]) {
        self.begin_request(b"CONNECT", scheme, Some(authority), path);
        self.push_pseudo(Pseudo::Protocol, b":protocol", protocol);
    }

    /// Begins the head of a response.
    ///
    /// # Panics
    /// If the status does not have three digits.
    pub fn begin_response(&mut self, status: u16) {
        assert!((100..1000).contains(&status), "status {status}");
        self.clear();
        let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
        self.fields
            .push(b":status", &[digit(100), digit(10), digit(1)], false);
        self.pseudo_count = 1;
        self.status = status;
    }

    /// Begins a trailer section.
    pub fn begin_trailers(&mut self) {
        self.clear();
    }

    /// Appends a field, its name in lower case. Names and values are the caller's to judge; those
    /// of [`http1`](crate::http1) are.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_marked(name, value, false);
    }

    /// The same for a value that nobody on the way may keep in a table.
    pub fn push_sensitive(&mut self, name: &[u8], value: &[u8]) {
        self.push_marked(name, value, true);
    }

    fn push_marked(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        let start = self.fields.begin();
        let text = self.fields.text();
        text.extend(name.iter().map(u8::to_ascii_lowercase));
        let name_end = text.len();
        text.extend_from_slice(value);
        self.fields.end(start, name_end, is_sensitive);
    }

    /// Method of a request.
    pub fn method(&self) -> &[u8] {
        self.value(self.method)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &[u8] {
        self.value(self.scheme)
    }

    /// Host and port that the request is for: `:authority`, else the Host field. None: neither.
    pub fn authority(&self) -> Option<&[u8]> {
        (self.authority != NONE).then(|| self.value(self.authority))
    }

    /// Path and query, or `*`.
    pub fn path(&self) -> &[u8] {
        self.value(self.path)
    }

    /// Protocol of an extended CONNECT. None: it is another request.
    pub fn protocol(&self) -> Option<&[u8]> {
        (self.protocol != NONE).then(|| self.value(self.protocol))
    }

    /// Status of a response, 0 for anything else.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether this is a 1xx response: another one follows.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// Content-Length, if there is one.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// All fields but the pseudo-header fields and Host (which is in [`Head::authority`]), in the
    /// order in which they came.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        let host = usize::from(self.host);
        self.fields
            .iter()
            .enumerate()
            .skip(self.pseudo_count)
            .filter(move |(index, _)| *index != host)
            .map(|(_, field)| field)
    }

    /// The first field of this name, which is to be in lower case.
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields()
            .find(|field| field.name == name)
            .map(|field| field.value)
    }

    /// Size as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
    pub fn list_bytes(&self) -> usize {
        self.fields
            .iter()
            .map(|field| field.name.len() + field.value.len() + 32)
            .sum()
    }

    /// The pseudo-header fields, as they are to be sent: a Host field that stands for the authority
    /// goes on as `:authority`.
    pub(super) fn pseudo(&self, mut take: impl FnMut(&[u8], &[u8])) {
        if self.status > 0 {
            take(b":status", self.value(0));
        }
        let list: [(&[u8], u16); 5] = [
            (b":method", self.method),
            (b":scheme", self.scheme),
            (b":authority", self.authority),
            (b":path", self.path),
            (b":protocol", self.protocol),
        ];
        for (name, index) in list {
            if index != NONE {
                take(name, self.value(index));
            }
        }
    }

    fn push_pseudo(&mut self, pseudo: Pseudo, name: &[u8], value: &[u8]) {
        self.set(pseudo, self.fields.len());
        self.fields.push(name, value, false);
        self.pseudo_count += 1;
    }

    /// Forgets what was concluded of the fields.
    pub(super) fn forget(&mut self) {
        let fields = std::mem::take(&mut self.fields);
        *self = Head {
            fields,
            ..Head::default()
        };
    }

    /// The field at this index is this one. False: there was one before.
    pub(super) fn set(&mut self, pseudo: Pseudo, index: usize) -> bool {
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol => &mut self.protocol,
        };
        let is_first = *place == NONE;
        *place = index as u16;
        is_first
    }

    pub(super) fn has(&self, pseudo: Pseudo) -> bool {
        NONE != match pseudo {
            Pseudo::Method => self.method,
            Pseudo::Scheme => self.scheme,
            Pseudo::Authority => self.authority,
            Pseudo::Path => self.path,
            Pseudo::Protocol => self.protocol,
        }
    }

    /// The Host field is at this index; it stands for the authority if there is none. False: it is
    /// repeated or says something else.
    pub(super) fn set_host(&mut self, index: usize) -> bool {
        if self.host != NONE {
            return false;
        }
        self.host = index as u16;
        if self.authority == NONE {
            self.authority = self.host;
        }
        self.value(self.authority)
            .eq_ignore_ascii_case(self.value(self.host))
    }

    fn value(&self, index: u16) -> &[u8] {
        self.fields
            .get(usize::from(index))
            .map_or(&[][..], |field| field.value)
    }
}
