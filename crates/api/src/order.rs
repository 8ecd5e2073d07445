//! What an operator can ask for. Every order becomes a change with a name, a progress and reasons
//! where it waits.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// An order, `POST /v1/changes`. Told apart by `order`, for example
/// `{"order": "drain-guest", "guest": "g2", "deadline_s": 20}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// A node of this name may join: its agent connects by itself. Done when it has joined.
    AddNode { node: String },
    /// Drains the node's guests, takes the node out of the virtual cluster and lets its agent
    /// leave. A node whose agent does not answer is removed only as one that is off.
    RemoveNode {
        node: String,
        /// As of [`Order::DrainGuest`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_s: Option<u64>,
        /// As of [`Order::DrainGuest`].
        #[serde(default, skip_serializing_if = "AtDeadline::is_default")]
        at_deadline: AtDeadline,
        /// The operator's word that the machine is off and stays off: its guests are gone, and its
        /// director sends nothing. Refused of a node that answers.
        #[serde(default, skip_serializing_if = "is_false")]
        confirm_off: bool,
    },
    /// Drains every guest on the node; the guests stay defined. Done when none has a connection
    /// left.
    DrainNode {
        node: String,
        /// As of [`Order::DrainGuest`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_s: Option<u64>,
        /// As of [`Order::DrainGuest`].
        #[serde(default, skip_serializing_if = "AtDeadline::is_default")]
        at_deadline: AtDeadline,
    },
    /// Ends a node's drain, at any point of it, or gives a drained node work again.
    UndrainNode { node: String },
    /// Starts a traffic manager of this name on a node and gives it its share of the buckets.
    AddGuest { guest: String, node: String },
    /// New connections elsewhere, the old ones finish, then the guest has no bucket. It stays
    /// defined and running.
    DrainGuest {
        guest: String,
        /// Seconds after which `at_deadline` says what happens; none: as long as they last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_s: Option<u64>,
        #[serde(default, skip_serializing_if = "AtDeadline::is_default")]
        at_deadline: AtDeadline,
        /// Whether the guest is removed when it is empty.
        #[serde(default)]
        remove: bool,
    },
    /// Ends a guest's drain, at any point of it, or gives a drained guest its share again.
    UndrainGuest { guest: String },
    /// Stops a guest and forgets it. Refused unless it is drained or dead.
    RemoveGuest { guest: String },
    /// Replaces every traffic manager, keeper and worker, by the program at `program` and carries
    /// all connections over.
    UpgradeTrafficManagers {
        /// Absolute path of the program, readable on every node.
        program: String,
    },
    /// Replaces the programs of every director and every ingress behind their links.
    ReplacePrograms {},
}

/// What happens when a drain's deadline has come and connections are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtDeadline {
    /// They are closed, counted and listed in the change, and the drain is done.
    #[default]
    Close,
    /// None is touched: the drain fails, and what was drained serves again.
    GiveUp,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl AtDeadline {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an order or a new site configuration was accepted as.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The change's name: `GET /v1/changes/NAME`.
    pub change: String,
}

impl Order {
    /// The word that tells it apart in the API.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::AddNode { .. } => "add-node",
            Self::RemoveNode { .. } => "remove-node",
            Self::DrainNode { .. } => "drain-node",
            Self::UndrainNode { .. } => "undrain-node",
            Self::AddGuest { .. } => "add-guest",
            Self::DrainGuest { .. } => "drain-guest",
            Self::UndrainGuest { .. } => "undrain-guest",
            Self::RemoveGuest { .. } => "remove-guest",
            Self::UpgradeTrafficManagers { .. } => "upgrade-traffic-managers",
            Self::ReplacePrograms {} => "replace-programs",
        }
    }

    /// The guest or node that it is about; none: all.
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::AddNode { node }
            | Self::RemoveNode { node, .. }
            | Self::DrainNode { node, .. }
            | Self::UndrainNode { node } => Some(node),
            Self::AddGuest { guest, .. }
            | Self::DrainGuest { guest, .. }
            | Self::UndrainGuest { guest }
            | Self::RemoveGuest { guest } => Some(guest),
            Self::UpgradeTrafficManagers { .. } | Self::ReplacePrograms {} => None,
        }
    }

    /// Checks what can be checked without knowing the cluster: names and paths.
    pub fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::AddNode { node }
            | Self::RemoveNode { node, .. }
            | Self::DrainNode { node, .. }
            | Self::UndrainNode { node } => check_name("node", node),
            Self::AddGuest { guest, node } => {
                check_name("guest", guest)?;
                check_name("node", node)
            }
            Self::DrainGuest { guest, .. }
            | Self::UndrainGuest { guest }
            | Self::RemoveGuest { guest } => check_name("guest", guest),
            Self::UpgradeTrafficManagers { program } => {
                if program.starts_with('/') {
                    Ok(())
                } else {
                    Err(ApiError::field(
                        "program",
                        format!("found \"{program}\", an absolute path is needed"),
                    ))
                }
            }
            Self::ReplacePrograms {} => Ok(()),
        }
    }
}

/// Names become folders, namespaces and interfaces: 1 to 32 of a-z, 0-9 and '-', the first one a
/// letter.
pub fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    let first_is_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if first_is_letter && name.len() <= 32 && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(ApiError::field(
            field,
            format!(
                "found {name:?}, a name is 1 to 32 of a-z, 0-9 and '-' and begins with a letter"
            ),
        ))
    }
}
