//! How a connection begins: what each end says first.

use std::collections::VecDeque;

use super::budget::Budgets;
use super::connection::{Connection, Payload, Phase};
use super::frame::{self, WINDOW_BYTES_MAX};
use super::hpack::{Decoder, Encoder};
use super::interface::{Context, Role};
use super::limits::Limits;
use super::settings::{
    Setting, Settings, TABLE_BYTES_INITIAL, WINDOW_BYTES_INITIAL, id, table_bytes,
};
use super::stream::Streams;

impl Connection {
    /// The server's end of a connection just accepted. Appends what it begins with to `out`.
    pub fn server(cx: &Context<'_>, out: &mut Vec<u8>) -> Connection {
        let mut connection = Connection::new(Role::Server, Phase::Preface, cx);
        connection.announce(cx.limits, out);
        connection
    }

    /// The client's end of a connection just made. Appends what it begins with to `out`; requests
    /// may be sent at once.
    pub fn client(cx: &Context<'_>, out: &mut Vec<u8>) -> Connection {
        let mut connection = Connection::new(Role::Client, Phase::Settings, cx);
        out.extend_from_slice(frame::PREFACE);
        connection.announce(cx.limits, out);
        connection
    }

    fn new(role: Role, phase: Phase, cx: &Context<'_>) -> Connection {
        let limits = cx.limits;
        Connection {
            role,
            phase,
            payload: Payload::Between,
            block: None,
            local: Settings {
                table_bytes: table_bytes(limits.decoder_table_bytes) as u32,
                streams_max: limits.streams_max,
                window_bytes: limits.stream_window_bytes.min(WINDOW_BYTES_MAX),
                header_list_bytes_max: limits.header_list_bytes_max,
                has_extended_connect: role == Role::Server && limits.has_extended_connect,
                ..Settings::default()
            },
            is_acknowledged: false,
            remote: Settings::default(),
            decoder: Decoder::new(TABLE_BYTES_INITIAL),
            encoder: Encoder::new(table_bytes(limits.encoder_table_bytes)),
            streams: Streams::default(),
            last_remote: 0,
            next_local: if role == Role::Client { 1 } else { 2 },
            send_window: i64::from(WINDOW_BYTES_INITIAL),
            recv_window: i64::from(WINDOW_BYTES_INITIAL),
            freed: 0,
            waiting: VecDeque::new(),
            granted: 0,
            reset_here: VecDeque::new(),
            ended: VecDeque::new(),
            budgets: Budgets::new(cx.now_us),
            last_taken: None,
            last_taken_by_peer: None,
            has_lost: false,
            has_ended: false,
            since_us: cx.now_us,
            replies: 0,
            sent_us: cx.now_us,
            stuck: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Our settings, as far as they differ from what holds without them, and the connection's
    /// window.
    fn announce(&mut self, limits: &Limits, out: &mut Vec<u8>) {
        let (local, before) = (&self.local, Settings::default());
        let list = [
            (id::HEADER_TABLE_SIZE, local.table_bytes, before.table_bytes),
            (id::ENABLE_PUSH, 0, u32::from(self.role == Role::Client)),
            (
                id::MAX_CONCURRENT_STREAMS,
                local.streams_max,
                before.streams_max,
            ),
            (
                id::INITIAL_WINDOW_SIZE,
                local.window_bytes,
                before.window_bytes,
            ),
            (
                id::MAX_HEADER_LIST_SIZE,
                local.header_list_bytes_max,
                before.header_list_bytes_max,
            ),
            (
                id::ENABLE_CONNECT_PROTOCOL,
                local.has_extended_connect.into(),
                0,
            ),
        ];
        let mut settings = [Setting { id: 0, value: 0 }; 6];
        let mut count = 0;
        for (id, value, default) in list {
            let is_pointless = id == id::MAX_CONCURRENT_STREAMS && self.role == Role::Client;
            if value != default && !is_pointless {
                settings[count] = Setting { id, value };
                count += 1;
            }
        }
        frame::write_settings(&settings[..count], out);
        let window = limits.connection_window_bytes.min(WINDOW_BYTES_MAX);
        if let Some(more @ 1..) = window.checked_sub(WINDOW_BYTES_INITIAL) {
            frame::write_window_update(0, more, out);
            self.recv_window += i64::from(more);
        }
    }
}
