//! Settings (RFC 9113 section 6.5.2, RFC 8441 section 3).

use crate::layout::{Reader, RestoreError, Writer};

use super::fault::Fault;
use super::frame::{PAYLOAD_BYTES_MAX, WINDOW_BYTES_MAX};
use super::hpack::TABLE_BYTES_CAP;

/// Window of a stream until settings say otherwise, and of every connection.
pub(super) const WINDOW_BYTES_INITIAL: u32 = 65_535;
/// Table of a decoder until settings say otherwise.
pub(super) const TABLE_BYTES_INITIAL: usize = 4_096;

/// One setting as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub id: u16,
    pub value: u32,
}

/// Identifiers of settings.
pub(super) mod id {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What one side has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub table_bytes: u32,
    pub streams_max: u32,
    pub window_bytes: u32,
    pub frame_bytes_max: u32,
    pub header_list_bytes_max: u32,
    /// Extended CONNECT of RFC 8441 is understood.
    pub has_extended_connect: bool,
}

impl Default for Settings {
    /// What holds before anything is announced.
    fn default() -> Settings {
        Settings {
            table_bytes: TABLE_BYTES_INITIAL as u32,
            streams_max: u32::MAX,
            window_bytes: WINDOW_BYTES_INITIAL,
            frame_bytes_max: PAYLOAD_BYTES_MAX as u32,
            header_list_bytes_max: u32::MAX,
            has_extended_connect: false,
        }
    }
}

impl Settings {
    /// Takes one setting of the peer, if its value is allowed.
    pub(super) fn apply(&mut self, setting: Setting, is_from_server: bool) -> Result<(), Fault> {
        let value = setting.value;
        match setting.id {
            id::HEADER_TABLE_SIZE => self.table_bytes = value,
            // A server must not announce push at all but as 0 (RFC 9113 section 6.5.2).
            id::ENABLE_PUSH if value > u32::from(!is_from_server) => return Err(Fault::Setting),
            id::MAX_CONCURRENT_STREAMS => self.streams_max = value,
            id::INITIAL_WINDOW_SIZE if value > WINDOW_BYTES_MAX => {
                return Err(Fault::SettingWindow);
            }
            id::INITIAL_WINDOW_SIZE => self.window_bytes = value,
            id::MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                return Err(Fault::Setting);
            }
            id::MAX_FRAME_SIZE => self.frame_bytes_max = value,
            id::MAX_HEADER_LIST_SIZE => self.header_list_bytes_max = value,
            id::ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Fault::Setting),
            // What was allowed once must not be taken back (RFC 8441 section 3).
            id::ENABLE_CONNECT_PROTOCOL if value == 0 && self.has_extended_connect => {
                return Err(Fault::Setting);
            }
            id::ENABLE_CONNECT_PROTOCOL => self.has_extended_connect = value == 1,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.table_bytes);
        writer.u32(self.streams_max);
        writer.u32(self.window_bytes);
        writer.u32(self.frame_bytes_max);
        writer.u32(self.header_list_bytes_max);
        writer.u8(self.has_extended_connect.into());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Settings, RestoreError> {
        let settings = Settings {
            table_bytes: reader.u32()?,
            streams_max: reader.u32()?,
            window_bytes: reader.u32()?,
            frame_bytes_max: reader.u32()?,
            header_list_bytes_max: reader.u32()?,
            has_extended_connect: reader.bool()?,
        };
        let is_possible = settings.window_bytes <= WINDOW_BYTES_MAX
            && (16_384..1 << 24).contains(&settings.frame_bytes_max);
        match is_possible {
            true => Ok(settings),
            false => Err(reader.impossible()),
        }
    }
}

/// A table size of ours that is not beyond what a snapshot may hold.
pub(super) fn table_bytes(wanted: usize) -> usize {
    wanted.min(TABLE_BYTES_CAP)
}
