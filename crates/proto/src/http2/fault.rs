//! What goes wrong: with the whole connection ([`Fault`]), or with one stream ([`Refusal`]).

use thiserror::Error;

use super::hpack::HpackError;

/// An error code as it is sent (RFC 9113 section 7). Unknown ones are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub const NO_ERROR: ErrorCode = ErrorCode(0x0);
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(0x2);
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(0x3);
    pub const SETTINGS_TIMEOUT: ErrorCode = ErrorCode(0x4);
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(0x5);
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(0x6);
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(0x7);
    pub const CANCEL: ErrorCode = ErrorCode(0x8);
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(0x9);
    pub const CONNECT_ERROR: ErrorCode = ErrorCode(0xa);
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(0xb);
    pub const INADEQUATE_SECURITY: ErrorCode = ErrorCode(0xc);
    pub const HTTP_1_1_REQUIRED: ErrorCode = ErrorCode(0xd);
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("the connection does not open with the preface of HTTP/2")]
    Preface,
    #[error("the first frame is no SETTINGS")]
    FirstFrame,
    #[error("frame larger than allowed, or of a size that its kind does not have")]
    FrameSize,
    #[error("padding longer than what it pads")]
    Padding,
    #[error("frame on a stream on which its kind must not be")]
    FrameStream,
    #[error("frame on a stream that nobody has opened")]
    IdleStream,
    #[error("stream opened with a number that is not its opener's, or not above the last")]
    StreamNumber,
    #[error("frame on a stream that its sender has ended")]
    ClosedStream,
    #[error("field block interrupted by another frame, or continued without a beginning")]
    Continuation,
    #[error("field block of more bytes or frames than allowed")]
    BlockTooLarge,
    #[error("push promise, which we do not allow")]
    Push,
    #[error("setting with a value that it does not have")]
    Setting,
    #[error("initial window beyond 2^31 - 1")]
    SettingWindow,
    #[error("acknowledgement of settings that were not sent")]
    UnexpectedAck,
    #[error("window update of 0")]
    WindowZero,
    #[error("window grows beyond 2^31 - 1")]
    WindowOverflow,
    #[error("more data than the connection's window allows")]
    WindowExceeded,
    #[error("stream depends on itself")]
    SelfDependency,
    #[error("field block cannot be decoded: {0}")]
    Hpack(HpackError),
    #[error("more {0} per second than allowed")]
    Flood(super::budget::Flow),
    #[error("the peer takes no output and goes on asking for more")]
    Unread,
    #[error("no settings, or no acknowledgement of ours, within the allowed time")]
    SettingsTimeout,
    #[error("field block not complete within the allowed time")]
    BlockTimeout,
    #[error("the peer closed while streams were open")]
    PeerClosed,
}

impl Fault {
    /// The code that the peer is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Fault::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            Fault::ClosedStream => ErrorCode::STREAM_CLOSED,
            Fault::SettingWindow | Fault::WindowOverflow | Fault::WindowExceeded => {
                ErrorCode::FLOW_CONTROL_ERROR
            }
            Fault::Hpack(HpackError::Bomb)
            | Fault::BlockTooLarge
            | Fault::Flood(_)
            | Fault::Unread
            | Fault::BlockTimeout => ErrorCode::ENHANCE_YOUR_CALM,
            Fault::Hpack(_) => ErrorCode::COMPRESSION_ERROR,
            Fault::SettingsTimeout => ErrorCode::SETTINGS_TIMEOUT,
            Fault::PeerClosed => ErrorCode::NO_ERROR,
            Fault::Preface
            | Fault::FirstFrame
            | Fault::Padding
            | Fault::FrameStream
            | Fault::IdleStream
            | Fault::StreamNumber
            | Fault::Continuation
            | Fault::Push
            | Fault::Setting
            | Fault::UnexpectedAck
            | Fault::WindowZero
            | Fault::SelfDependency => ErrorCode::PROTOCOL_ERROR,
        }
    }
}

/// Why a stream has to end while the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("field name is empty, has an upper-case letter, or a byte that is no token")]
    FieldName,
    #[error("field value has a control byte, or white space at an end")]
    FieldValue,
    #[error("field name differs from a framing field only by an underscore")]
    FieldLookalike,
    #[error("field that speaks of a connection, which HTTP/2 does not have")]
    ConnectionField,
    #[error("pseudo-header field that is unknown, repeated, misplaced or missing")]
    Pseudo,
    #[error("method is no token")]
    MethodName,
    #[error("scheme is neither http nor https")]
    Scheme,
    #[error("path is not one that its method takes, or has a byte that no path has")]
    Path,
    #[error("path is longer than allowed")]
    PathTooLong,
    #[error("authority is not a name or address with an optional port")]
    Authority,
    #[error("no authority")]
    AuthorityMissing,
    #[error("authority and Host field differ, or Host is repeated")]
    HostDiffers,
    #[error("method CONNECT or TRACE is not served")]
    Method,
    #[error("expectation other than 100-continue")]
    Expectation,
    #[error("head has more bytes than allowed")]
    HeadTooLarge,
    #[error("head has more fields than allowed")]
    TooManyFields,
    #[error("Content-Length is not one decimal number of at most 19 digits")]
    Length,
    #[error("body is longer or shorter than its Content-Length")]
    LengthDiffers,
    #[error("body in a message that has none by its status or method")]
    BodyWithoutPlace,
    #[error("body has more bytes than allowed")]
    BodyTooLarge,
    #[error("status is not one that can be passed on")]
    Status,
    #[error("more interim responses than allowed, or one that ends its stream")]
    Interim,
    #[error("trailer section does not end its stream")]
    TrailerWithoutEnd,
    #[error("trailer section carries a field that frames, routes or authorises the message")]
    TrailerField,
    #[error("data before the head of its message")]
    DataBeforeHead,
    #[error("frame on a stream that its sender has ended")]
    Ended,
    #[error("more data than the stream's window allows")]
    WindowExceeded,
    #[error("window update of 0")]
    WindowZero,
    #[error("window grows beyond 2^31 - 1")]
    WindowOverflow,
    #[error("stream depends on itself")]
    SelfDependency,
    #[error("PRIORITY frame of another size than five bytes")]
    PrioritySize,
    #[error("more streams at once than allowed")]
    TooManyStreams,
    #[error("no progress of what the peer sends within the allowed time")]
    PeerStalls,
    #[error("the peer opened no window for what we send within the allowed time")]
    WindowStalls,
    #[error("no response within the allowed time")]
    ResponseTimeout,
}

impl Refusal {
    /// The code that the peer is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Refusal::Ended => ErrorCode::STREAM_CLOSED,
            Refusal::WindowExceeded | Refusal::WindowOverflow => ErrorCode::FLOW_CONTROL_ERROR,
            Refusal::PrioritySize => ErrorCode::FRAME_SIZE_ERROR,
            Refusal::TooManyStreams => ErrorCode::REFUSED_STREAM,
            Refusal::HeadTooLarge | Refusal::TooManyFields => ErrorCode::ENHANCE_YOUR_CALM,
            Refusal::BodyTooLarge
            | Refusal::PeerStalls
            | Refusal::WindowStalls
            | Refusal::ResponseTimeout => ErrorCode::CANCEL,
            _ => ErrorCode::PROTOCOL_ERROR,
        }
    }

    /// Status that a client whose request head has this fault is answered with. None: it is
    /// malformed, and the stream is reset.
    pub fn status(self) -> Option<u16> {
        match self {
            Refusal::HeadTooLarge | Refusal::TooManyFields => Some(431),
            Refusal::PathTooLong => Some(414),
            Refusal::BodyTooLarge => Some(413),
            Refusal::Expectation => Some(417),
            Refusal::Method => Some(501),
            _ => None,
        }
    }
}
