//! Why a message is not passed on, and what is answered instead.

use thiserror::Error;

/// A reason to refuse a message. The same reasons serve both directions: [`Refusal::status`] is the
/// answer to a client whose request is at fault; a member's fault is always answered 502, see
/// [`Refusal::member_status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("the first line is not that of an HTTP/1 message")]
    FirstLine,
    #[error("a line ends in a bare LF, or a CR stands alone")]
    LineEnd,
    #[error("a field name has a byte that is no token, or white space stands before its colon")]
    FieldName,
    #[error("a field value has a control byte")]
    FieldValue,
    #[error("a field name differs from a framing field only by an underscore")]
    FieldLookalike,
    #[error("version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    #[error("head has more bytes than allowed")]
    HeadTooLarge,
    #[error("head has more fields than allowed")]
    TooManyFields,
    #[error("request target is longer than allowed")]
    TargetTooLong,
    #[error(
        "request target has a form that its method does not take, or a byte that no target has"
    )]
    Target,
    #[error("method CONNECT or TRACE is not served")]
    Method,
    #[error("no Host field")]
    HostMissing,
    #[error("more than one Host field")]
    HostRepeated,
    #[error("Host is not a name or address with an optional port")]
    Host,
    #[error("Content-Length is not a decimal number of at most 19 digits")]
    Length,
    #[error("more than one Content-Length")]
    LengthRepeated,
    #[error("both Transfer-Encoding and Content-Length")]
    LengthAndCoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    CodingInOldVersion,
    #[error("Transfer-Encoding that is not chunked at its end, or repeats it")]
    Coding,
    #[error("a transfer coding besides chunked")]
    CodingUnknown,
    #[error("Transfer-Encoding or Content-Length in a message that has no body by its status")]
    FramingWithoutBody,
    #[error("Connection names a field that frames or routes the message")]
    ConnectionOption,
    #[error("upgrade to a protocol that is not served")]
    Upgrade,
    #[error("expectation other than 100-continue")]
    Expectation,
    #[error("Max-Forwards is not a number")]
    MaxForwards,
    #[error("Max-Forwards is 0: the answer is ours")]
    LastForward,
    #[error("chunk size line is malformed or too long")]
    ChunkSize,
    #[error("chunk data is not followed by CR LF")]
    ChunkEnd,
    #[error("chunk extensions have more bytes than allowed")]
    ChunkExtensions,
    #[error("trailer section is malformed")]
    Trailer,
    #[error("trailer section carries a field that frames, routes or authorises the message")]
    TrailerField,
    #[error("trailer section has more bytes than allowed")]
    TrailerTooLarge,
    #[error("body has more bytes than allowed")]
    BodyTooLarge,
    #[error("status is not one that can be passed on")]
    Status,
    #[error("more interim responses than allowed")]
    TooManyInterim,
    #[error("bytes from the member without a request to answer")]
    Unsolicited,
    #[error("the member closed before its response was complete")]
    MemberClosed,
    #[error("the client closed inside its request")]
    ClientClosed,
    #[error("no request within the allowed time")]
    IdleTimeout,
    #[error("request head not complete within the allowed time")]
    HeadTimeout,
    #[error("no progress in the body within the allowed time")]
    BodyTimeout,
    #[error("the client took no output within the allowed time")]
    ClientStalls,
    #[error("the member sent nothing of its response's body within the allowed time")]
    MemberStalls,
    #[error("no response within the allowed time")]
    ResponseTimeout,
}

impl Refusal {
    /// Status for a client whose request has this fault. [`Refusal::IdleTimeout`] and
    /// [`Refusal::ClientClosed`] have one for completeness, but nobody to read it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::LastForward => 204,
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLarge | Refusal::TooManyFields | Refusal::TrailerTooLarge => 431,
            Refusal::BodyTooLarge => 413,
            Refusal::Expectation => 417,
            Refusal::Method | Refusal::Upgrade | Refusal::CodingUnknown => 501,
            Refusal::Version => 505,
            Refusal::IdleTimeout
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::ClientStalls => 408,
            Refusal::Unsolicited
            | Refusal::MemberClosed
            | Refusal::Status
            | Refusal::TooManyInterim => 502,
            Refusal::ResponseTimeout | Refusal::MemberStalls => 504,
            _ => 400,
        }
    }

    /// Status for the client when a member's response has this fault.
    pub fn member_status(self) -> u16 {
        match self {
            Refusal::ResponseTimeout | Refusal::MemberStalls => 504,
            _ => 502,
        }
    }
}
