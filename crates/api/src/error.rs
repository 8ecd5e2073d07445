//! What goes wrong, with a stable code that a program can act on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Stable codes of refusals. New ones may be added; none changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request cannot be read, or a field has a value that it may not have.
    Invalid,
    /// No object of that name, or no such path.
    NotFound,
    /// An object of that name is there already, or the order contradicts one under way.
    Conflict,
    /// The order cannot be carried out as things are: the message says what would have to change.
    Refused,
    /// The body is longer than is allowed.
    TooLarge,
    /// The caller may not do this.
    Forbidden,
    /// The controller is stopping or overloaded; the same request may be sent again.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// A refusal as it is sent: `{"code", "message", "field"}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{}{message}", field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct ApiError {
    pub code: ErrorCode,
    /// One sentence for a person: lower-case, without the field's name.
    pub message: String,
    /// Which field of the request is at fault; none if no single one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ApiError {
    /// A refusal that is no single field's fault.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
        }
    }

    /// A field's value that it may not have.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Invalid,
            message: message.into(),
            field: Some(field.into()),
        }
    }

    /// No such object.
    pub fn not_found(kind: &str, name: &str) -> Self {
        Self::new(
            ErrorCode::NotFound,
            format!("there is no {kind} named \"{name}\""),
        )
    }
}

/// Why a client has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers at the socket.
    #[error("cannot reach the controller at {}", socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the connection to the controller broke: {0}")]
    Broken(String),
    /// The controller did not answer in time.
    #[error("the controller did not answer within {0} s")]
    TimedOut(u64),
    /// The answer is not what this version of the API says.
    #[error("the controller's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The controller refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
}
