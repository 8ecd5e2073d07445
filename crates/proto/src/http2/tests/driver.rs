//! One end of a connection with a script of what happens to it.

use crate::http2::{
    Cause, Connection, Context, ErrorCode, Event, Fault, Head, Limits, Role, SendError, Work,
};

use super::wire::{Frame, frames};

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Input(Vec<u8>),
    End,
    /// The socket takes so many bytes.
    Drain(usize),
    /// Microseconds pass.
    Pass(u64),
    Open {
        ends: bool,
    },
    Respond {
        stream: u32,
        status: u16,
        ends: bool,
    },
    Trailers {
        stream: u32,
    },
    /// Sends so much, and what was not taken whenever there is room again.
    Send {
        stream: u32,
        len: usize,
        ends: bool,
    },
    Release {
        stream: u32,
        len: usize,
    },
    Reset {
        stream: u32,
    },
    Ping,
    AnnounceEnd,
    GoAway,
}

/// What was seen. Body bytes that follow each other are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Request {
        stream: u32,
        ends: bool,
        fields: Vec<(String, String)>,
    },
    Interim {
        stream: u32,
        status: u16,
    },
    Response {
        stream: u32,
        ends: bool,
        status: u16,
        fields: Vec<(String, String)>,
    },
    Data {
        stream: u32,
        ends: bool,
        bytes: Vec<u8>,
    },
    Trailers {
        stream: u32,
        fields: Vec<(String, String)>,
    },
    Reset {
        stream: u32,
        cause: Cause,
    },
    Window,
    Settings,
    Pong,
    GoAway {
        last: u32,
        code: ErrorCode,
    },
    Failed(Fault),
    Closed,
    NotSent(SendError),
}

/// One end.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) connection: Connection,
    pub(super) limits: Limits,
    pub(super) now_us: u64,
    pub(super) seen: Vec<Seen>,
    /// All output that the socket took.
    pub(super) sent: Vec<u8>,
    /// The socket takes nothing but by [`Action::Drain`].
    pub(super) is_slow: bool,
    /// Bytes are released as soon as they come.
    pub(super) releases: bool,
    /// What is still to be sent per stream: length and whether it ends then.
    pub(super) owed: Vec<(u32, usize, bool)>,
    work: Work,
}

impl End {
    pub(super) fn new(role: Role, limits: Limits) -> End {
        let now_us = 1_000_000_000_000;
        let mut work = Work::default();
        let cx = Context {
            now_us,
            limits: &limits,
        };
        let mut connection = match role {
            Role::Server => Connection::server(&cx, &mut work.out),
            Role::Client => Connection::client(&cx, &mut work.out),
        };
        connection.take_output(&mut work, now_us);
        let mut end = End {
            connection,
            limits,
            now_us,
            seen: Vec::new(),
            sent: Vec::new(),
            is_slow: false,
            releases: true,
            owed: Vec::new(),
            work,
        };
        end.drain();
        end
    }

    pub(super) fn server() -> End {
        let mut end = End::new(Role::Server, Limits::default());
        end.input(super::wire::hello());
        end.forget();
        end
    }

    pub(super) fn client() -> End {
        let mut end = End::new(Role::Client, Limits::default());
        end.input(super::wire::welcome());
        end.forget();
        end
    }

    /// Forgets what was seen and sent so far.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
        self.sent.clear();
    }

    pub(super) fn input(&mut self, bytes: impl AsRef<[u8]>) {
        self.act(&Action::Input(bytes.as_ref().to_vec()));
    }

    /// Frames that the socket took.
    pub(super) fn frames(&self) -> Vec<Frame> {
        frames(&self.sent)
    }

    /// The reason of the GOAWAY that was sent last.
    pub(super) fn told(&self) -> Option<ErrorCode> {
        use crate::http2::frame::{Kind, parse_go_away};
        let last = self
            .frames()
            .into_iter()
            .rfind(|frame| frame.kind == Kind::GoAway)?;
        Some(parse_go_away(&last.payload).unwrap().1)
    }

    /// Streams that were reset with their codes.
    pub(super) fn resets(&self) -> Vec<(u32, ErrorCode)> {
        use crate::http2::frame::{Kind, parse_number};
        self.frames()
            .into_iter()
            .filter(|frame| frame.kind == Kind::RstStream)
            .map(|frame| {
                (
                    frame.stream,
                    ErrorCode(parse_number(&frame.payload).unwrap()),
                )
            })
            .collect()
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let fault = |seen: &Seen| match seen {
            Seen::Failed(fault) => Some(*fault),
            _ => None,
        };
        self.seen.iter().filter_map(fault).collect()
    }

    /// Calls the connection and keeps its output.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Connection, &Context<'_>, &mut Vec<u8>) -> T,
    ) -> T {
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
        };
        let result = call(&mut self.connection, &cx, &mut self.work.out);
        self.connection.take_output(&mut self.work, self.now_us);
        result
    }

    pub(super) fn act(&mut self, action: &Action) {
        let sent = match action {
            Action::Input(bytes) => {
                self.connection.feed(bytes);
                Ok(())
            }
            Action::End => {
                let event = self.connection.end_of_stream(&mut self.work);
                self.connection.take_output(&mut self.work, self.now_us);
                self.see(event, Vec::new());
                Ok(())
            }
            Action::Drain(count) => {
                self.take(*count);
                Ok(())
            }
            Action::Pass(time_us) => {
                self.now_us += time_us;
                self.expire();
                Ok(())
            }
            Action::Open { ends } => {
                let mut head = Head::default();
                head.begin_request(b"POST", b"http", Some(b"x.test"), b"/");
                head.push(b"x-any", b"value");
                self.call(|connection, cx, out| connection.open(cx, &head, *ends, out))
                    .map(|_| ())
            }
            Action::Respond {
                stream,
                status,
                ends,
            } => {
                let mut head = Head::default();
                head.begin_response(*status);
                head.push(b"Server", b"any");
                self.call(|connection, cx, out| connection.respond(cx, *stream, &head, *ends, out))
            }
            Action::Trailers { stream } => {
                let mut head = Head::default();
                head.begin_trailers();
                head.push(b"grpc-status", b"0");
                self.call(|connection, cx, out| connection.send_trailers(cx, *stream, &head, out))
            }
            Action::Send { stream, len, ends } => self.send(*stream, *len, *ends),
            Action::Release { stream, len } => {
                self.call(|connection, cx, out| connection.release(cx, *stream, *len, out));
                Ok(())
            }
            Action::Reset { stream } => {
                let code = ErrorCode::CANCEL;
                self.call(|connection, cx, out| connection.reset(cx, *stream, code, out));
                Ok(())
            }
            Action::Ping => {
                self.call(|connection, _, out| connection.ping(*b"whoisit?", out));
                Ok(())
            }
            Action::AnnounceEnd => {
                self.call(|connection, _, out| connection.announce_end(out));
                Ok(())
            }
            Action::GoAway => {
                let code = ErrorCode::NO_ERROR;
                self.call(|connection, _, out| connection.go_away(code, out));
                Ok(())
            }
        };
        if let Err(error) = sent {
            self.seen.push(Seen::NotSent(error));
        }
        self.settle();
    }

    /// Steps, sends what is owed and drains, until nothing more happens.
    fn settle(&mut self) {
        loop {
            let waits = self.poll();
            if !self.is_slow {
                self.drain();
            }
            let goes_on = waits && self.connection.unsent().is_empty();
            if !self.serve_writable() && !goes_on {
                return;
            }
        }
    }

    /// True: input waits for output to be sent.
    fn poll(&mut self) -> bool {
        loop {
            let cx = Context {
                now_us: self.now_us,
                limits: &self.limits,
            };
            let mut body = Vec::new();
            let event = self.connection.poll_event(&cx, &mut self.work, &mut body);
            let is_last = matches!(
                event,
                Event::NeedMore | Event::Wait | Event::Closed | Event::Failed(_)
            );
            self.see(event, body);
            if is_last {
                return event == Event::Wait;
            }
        }
    }

    fn expire(&mut self) {
        loop {
            let cx = Context {
                now_us: self.now_us,
                limits: &self.limits,
            };
            let event = self.connection.expire(&cx, &mut self.work);
            self.connection.take_output(&mut self.work, self.now_us);
            self.see(event, Vec::new());
            if matches!(event, Event::NeedMore | Event::Closed | Event::Failed(_)) {
                return;
            }
        }
    }

    fn send(&mut self, stream: u32, len: usize, ends: bool) -> Result<(), SendError> {
        // What comes behind it is not there yet.
        const PIECE: &[u8] = &[b'd'; 100_000];
        let (data, ends_here) = match len <= PIECE.len() {
            true => (&PIECE[..len], ends),
            false => (PIECE, false),
        };
        let count = self
            .call(|connection, cx, out| connection.send_data(cx, stream, data, ends_here, out))?;
        if count == PIECE.len() && count < len {
            return self.send(stream, len - count, ends);
        }
        if count < len {
            self.owed.retain(|(owed, ..)| *owed != stream);
            self.owed.push((stream, len - count, ends));
        }
        Ok(())
    }

    /// False: nobody's turn.
    fn serve_writable(&mut self) -> bool {
        let Some(id) = self.call(|connection, cx, out| connection.next_writable(cx, out)) else {
            return false;
        };
        if let Some(at) = self.owed.iter().position(|(owed, ..)| *owed == id) {
            let (stream, len, ends) = self.owed.remove(at);
            if let Err(error) = self.send(stream, len, ends) {
                self.seen.push(Seen::NotSent(error));
            }
        }
        true
    }

    pub(super) fn drain(&mut self) {
        self.take(usize::MAX);
    }

    fn take(&mut self, count: usize) {
        let count = count.min(self.connection.poll_output().len());
        self.sent
            .extend_from_slice(&self.connection.poll_output()[..count]);
        if count > 0 {
            self.connection.sent(count, self.now_us);
        }
    }

    fn see(&mut self, event: Event, bytes: Vec<u8>) {
        let head = &self.work.head;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = || {
            head.fields()
                .map(|field| (text(field.name), text(field.value)))
                .collect::<Vec<_>>()
        };
        let seen = match event {
            Event::NeedMore | Event::Wait => return,
            Event::Request { stream, ends } => {
                let mut list = vec![
                    (":method".to_owned(), text(head.method())),
                    (":path".to_owned(), text(head.path())),
                    (":authority".to_owned(), text(head.authority().unwrap())),
                ];
                list.extend(fields());
                Seen::Request {
                    stream,
                    ends,
                    fields: list,
                }
            }
            Event::Interim { stream } => Seen::Interim {
                stream,
                status: head.status(),
            },
            Event::Response { stream, ends } => Seen::Response {
                stream,
                ends,
                status: head.status(),
                fields: fields(),
            },
            Event::Trailers { stream } => Seen::Trailers {
                stream,
                fields: fields(),
            },
            Event::Data { stream, ends } => {
                if self.releases {
                    let len = bytes.len();
                    self.call(|connection, cx, out| connection.release(cx, stream, len, out));
                }
                if let Some(Seen::Data {
                    stream: before,
                    ends: ended,
                    bytes: known,
                }) = self.seen.last_mut()
                    && *before == stream
                {
                    known.extend_from_slice(&bytes);
                    *ended |= ends;
                    return;
                }
                Seen::Data {
                    stream,
                    ends,
                    bytes,
                }
            }
            Event::Reset { stream, cause } => Seen::Reset { stream, cause },
            Event::Window => Seen::Window,
            Event::Settings => Seen::Settings,
            Event::Pong(_) => Seen::Pong,
            Event::GoAway { last, code } => Seen::GoAway { last, code },
            Event::Failed(fault) => Seen::Failed(fault),
            Event::Closed => Seen::Closed,
        };
        self.seen.push(seen);
    }

    /// Exports the connection and goes on with the import, on a clock that reads something else.
    pub(super) fn through_snapshot(&mut self) {
        let snapshot = self.connection.snapshot(self.now_us);
        self.connection = Connection::restore(&snapshot, self.now_us).unwrap();
        assert_eq!(snapshot, self.connection.snapshot(self.now_us));
    }
}
