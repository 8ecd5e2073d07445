//! The first frame of a link: who speaks, and in which versions. Its layout never changes; fields
//! may be added.

use std::io;

use serde::{Deserialize, Serialize};

use super::wire;

/// A link and the versions of it that this release speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol {
    pub name: &'static str,
    pub oldest: u16,
    pub newest: u16,
}

/// What a side says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// A node's or a guest's name; `controller` for a controller.
    pub name: String,
    /// The kernel that it runs on: another value after a reboot.
    pub kernel: u64,
    /// Its release.
    pub release: String,
    /// The version that both sides take; 0 in what is sent.
    #[serde(default)]
    pub version: u16,
}

/// Why a link did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    #[error("the link ended before both sides had said hello: {0}")]
    Io(#[from] io::Error),
    #[error("this is the link {ours}, the other side speaks {theirs}")]
    OtherLink { ours: String, theirs: String },
    #[error("no common version of {link}: this side speaks {} to {}, the other {} to {}", ours.0, ours.1, theirs.0, theirs.1)]
    NoCommonVersion {
        link: String,
        ours: (u16, u16),
        theirs: (u16, u16),
    },
    #[error("the other side refused: {0}")]
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Frame {
    link: String,
    oldest: u16,
    newest: u16,
    from: Hello,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Welcome,
    Refused(String),
}

/// Says hello, hears the other's, and agrees on a version or refuses. Both sides do the same.
pub(super) fn exchange<S>(stream: &S, own: &Hello, protocol: &Protocol) -> Result<Hello, HelloError>
where
    for<'a> &'a S: io::Read + io::Write,
{
    let (mut writer, mut reader) = (stream, stream);
    let frame = Frame {
        link: protocol.name.into(),
        oldest: protocol.oldest,
        newest: protocol.newest,
        from: own.clone(),
    };
    wire::write_json(&mut writer, &frame)?;
    let theirs: Frame = wire::read_json(&mut reader)?;
    let agreed = agree(protocol, &theirs);
    let answer = match &agreed {
        Ok(_) => Answer::Welcome,
        Err(error) => Answer::Refused(error.to_string()),
    };
    let answered = wire::write_json(&mut writer, &answer);
    // The other side may have refused and gone already: our own reason says more than a broken
    // pipe.
    let version = agreed?;
    answered?;
    match wire::read_json(&mut reader)? {
        Answer::Welcome => Ok(Hello {
            version,
            ..theirs.from
        }),
        Answer::Refused(reason) => Err(HelloError::Refused(reason)),
    }
}

fn agree(protocol: &Protocol, theirs: &Frame) -> Result<u16, HelloError> {
    if theirs.link != protocol.name {
        return Err(HelloError::OtherLink {
            ours: protocol.name.into(),
            theirs: theirs.link.clone(),
        });
    }
    let highest = protocol.newest.min(theirs.newest);
    if highest < protocol.oldest.max(theirs.oldest) {
        return Err(HelloError::NoCommonVersion {
            link: protocol.name.into(),
            ours: (protocol.oldest, protocol.newest),
            theirs: (theirs.oldest, theirs.newest),
        });
    }
    Ok(highest)
}
