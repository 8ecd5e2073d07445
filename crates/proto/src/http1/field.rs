//! The fields that the codec knows by name, and the alphabets of HTTP.

/// Fields with a meaning for framing, routing or the hop; everything else is [`FieldId::Other`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldId {
    #[default]
    Other,
    Host,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Http2Settings,
    ContentLength,
    Expect,
    MaxForwards,
    XForwardedFor,
    Date,
    /// `content_length` and the like: servers that map `_` to `-` would read them as framing.
    Lookalike,
}

impl FieldId {
    pub(super) fn of(name: &[u8]) -> FieldId {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => FieldId::Te,
            4 if is(b"host") => FieldId::Host,
            4 if is(b"date") => FieldId::Date,
            6 if is(b"expect") => FieldId::Expect,
            7 if is(b"upgrade") => FieldId::Upgrade,
            7 if is(b"trailer") => FieldId::Trailer,
            10 if is(b"connection") => FieldId::Connection,
            10 if is(b"keep-alive") => FieldId::KeepAlive,
            12 if is(b"max-forwards") => FieldId::MaxForwards,
            14 if is(b"content-length") => FieldId::ContentLength,
            14 if is(b"content_length") => FieldId::Lookalike,
            14 if is(b"http2-settings") => FieldId::Http2Settings,
            15 if is(b"x-forwarded-for") => FieldId::XForwardedFor,
            16 if is(b"proxy-connection") => FieldId::ProxyConnection,
            17 if is(b"transfer-encoding") => FieldId::TransferEncoding,
            17 if is(b"transfer_encoding") => FieldId::Lookalike,
            _ => FieldId::Other,
        }
    }

    /// Whether the field speaks of this hop only, and so is never passed on as it came.
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            FieldId::Connection
                | FieldId::KeepAlive
                | FieldId::ProxyConnection
                | FieldId::Te
                | FieldId::TransferEncoding
                | FieldId::Upgrade
                | FieldId::Http2Settings
        )
    }
}
