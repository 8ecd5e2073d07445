//! Drives a connection as a worker does, and writes down everything that can be seen from outside.

use crate::http1::{
    After, Connection, Context, Event, Limits, Refusal, Rewrite, Side, Work, http_date,
};

/// What was seen. Body events are not among them: how often they come depends on how bytes were
/// split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Request {
        method: String,
        path: String,
        host: Option<String>,
    },
    Response {
        status: u16,
    },
    Done {
        client: After,
        member: After,
    },
    Refused(Refusal),
    BadMember(Refusal),
    Abort(Refusal),
    Close,
    Switched,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Bytes(Side, Vec<u8>),
    End(Side),
    Lost(Side),
    /// The side's socket takes at most so many bytes now.
    Drain(Side, usize),
    /// Time passes, µs.
    Pass(u64),
    /// From now on requests are answered with 503 (true) or passed on.
    Answer(bool),
    Draining(bool),
}

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) connection: Connection,
    pub(super) limits: Limits,
    rewrite: Rewrite,
    work: Work,
    pub(super) now_us: u64,
    draining: bool,
    answers: bool,
    /// Output stays unsent until [`Input::Drain`].
    pub(super) is_slow: bool,
    pub(super) seen: Vec<Seen>,
    pub(super) to_client: Vec<u8>,
    pub(super) to_member: Vec<u8>,
    pub(super) is_over: bool,
}

impl Driver {
    pub(super) fn new() -> Driver {
        Driver {
            connection: Connection::new(0),
            limits: Limits::default(),
            rewrite: Rewrite::default(),
            work: Work::default(),
            now_us: 0,
            draining: false,
            answers: false,
            is_slow: false,
            seen: Vec::new(),
            to_client: Vec::new(),
            to_member: Vec::new(),
            is_over: false,
        }
    }

    /// Takes the connection through a snapshot, as another program with another clock would restore
    /// it.
    pub(super) fn through_snapshot(&mut self) {
        let snapshot = self.connection.snapshot(self.now_us);
        let buffered: usize = [Side::Client, Side::Member]
            .into_iter()
            .map(|side| self.connection.stuck(side).len() + self.connection.unsent(side).len())
            .sum();
        assert!(
            snapshot.len() - buffered < 300,
            "{} bytes of state",
            snapshot.len() - buffered
        );
        self.connection = Connection::restore(&snapshot, self.now_us).unwrap();
        assert_eq!(self.connection.snapshot(self.now_us), snapshot);
    }

    pub(super) fn input(&mut self, input: &Input) {
        if self.is_over {
            return;
        }
        match input {
            Input::Bytes(Side::Member, _) if !self.connection.is_in_exchange() => {}
            Input::Bytes(from, bytes) => self.connection.feed(*from, bytes),
            Input::End(from) => {
                self.pump();
                let event = self
                    .with_output(|connection, cx, work| connection.end_of_stream(*from, cx, work));
                self.event(event);
            }
            Input::Lost(side) => {
                let event = self.connection.lost(*side);
                self.event(event);
            }
            Input::Drain(to, count) => self.drain(*to, *count),
            Input::Pass(time_us) => {
                self.now_us += time_us;
                let event = self.with_output(|connection, cx, _| connection.expire(cx));
                self.event(event);
            }
            Input::Answer(answers) => self.answers = *answers,
            Input::Draining(draining) => self.draining = *draining,
        }
        self.pump();
    }

    /// Client bytes in one piece.
    pub(super) fn client(&mut self, bytes: impl AsRef<[u8]>) {
        self.input(&Input::Bytes(Side::Client, bytes.as_ref().to_vec()));
    }

    /// Member bytes in one piece.
    pub(super) fn member(&mut self, bytes: impl AsRef<[u8]>) {
        self.input(&Input::Bytes(Side::Member, bytes.as_ref().to_vec()));
    }

    /// Steps both sides until neither gets further.
    fn pump(&mut self) {
        loop {
            let before = self.seen.len();
            for side in [Side::Client, Side::Member] {
                while !self.is_over && self.poll(side) {}
            }
            if self.is_over || self.seen.len() == before {
                return;
            }
        }
    }

    /// False: this side is stuck.
    fn poll(&mut self, side: Side) -> bool {
        if !self.connection.unsent(side.other()).is_empty()
            || (side == Side::Member && !self.connection.is_in_exchange())
        {
            return false;
        }
        let mut work = std::mem::take(&mut self.work);
        let date = http_date(784_111_777);
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
            rewrite: &self.rewrite,
            client: "192.0.2.7".parse().unwrap(),
            draining: self.draining,
            date: Some(&date),
        };
        let event = self.connection.poll_event(side, &cx, &mut work);
        match event {
            Event::Request => {
                let input = self.connection.stuck(Side::Client);
                let text = |span: crate::http1::Span| {
                    String::from_utf8_lossy(span.bytes(input)).into_owned()
                };
                self.seen.push(Seen::Request {
                    method: text(work.head.method_name()),
                    path: text(work.head.path()),
                    host: work.head.host().map(text),
                });
                match self.answers {
                    true => self.connection.answer_request(&cx, &mut work, 503),
                    false => self.connection.pass_request(&cx, &mut work),
                }
            }
            Event::Response => {
                self.seen.push(Seen::Response {
                    status: work.head.status(),
                });
                self.connection.pass_response(&cx, &mut work);
            }
            _ => {}
        }
        self.work = work;
        if !self.is_slow {
            self.drain(Side::Client, usize::MAX);
            self.drain(Side::Member, usize::MAX);
        }
        self.event(event)
    }

    /// Acts on an event. False: nothing more comes from this side for now.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::NeedMore | Event::Wait => return false,
            Event::Request | Event::Response | Event::Body => {}
            Event::Done { client, member } => {
                self.seen.push(Seen::Done { client, member });
                self.connection.forget_member();
                self.is_over = client == After::Close;
                if self.is_over {
                    self.drain(Side::Client, usize::MAX);
                }
            }
            Event::Refused(refusal) => {
                self.seen.push(Seen::Refused(refusal));
                self.refuse(refusal.status());
            }
            Event::BadMember(refusal) => {
                self.seen.push(Seen::BadMember(refusal));
                self.refuse(refusal.member_status());
            }
            Event::Abort(refusal) => {
                self.seen.push(Seen::Abort(refusal));
                self.is_over = true;
            }
            Event::Close => {
                self.seen.push(Seen::Close);
                self.is_over = true;
            }
            Event::Switched => {
                self.seen.push(Seen::Switched);
                self.is_over = true;
            }
        }
        true
    }

    fn refuse(&mut self, status: u16) {
        self.connection.forget_member();
        let event = self.with_output(|connection, cx, work| connection.refuse(cx, work, status));
        self.event(event);
    }

    fn with_output(
        &mut self,
        act: impl FnOnce(&mut Connection, &Context<'_>, &mut Work) -> Event,
    ) -> Event {
        self.work.out.clear();
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
            rewrite: &self.rewrite,
            client: "192.0.2.7".parse().unwrap(),
            draining: self.draining,
            date: None,
        };
        let event = act(&mut self.connection, &cx, &mut self.work);
        self.connection.keep_unsent(Side::Client, &self.work.out);
        if !self.is_slow {
            self.drain(Side::Client, usize::MAX);
        }
        event
    }

    fn drain(&mut self, to: Side, count: usize) {
        let unsent = self.connection.poll_output(to);
        let count = count.min(unsent.len());
        if count == 0 {
            return;
        }
        let sink = match to {
            Side::Client => &mut self.to_client,
            Side::Member => &mut self.to_member,
        };
        sink.extend_from_slice(&unsent[..count]);
        self.connection.sent(to, count, self.now_us);
    }

    /// Status of the first response that the client got.
    pub(super) fn client_status(&self) -> Option<u16> {
        let text = self.to_client.get("HTTP/1.1 ".len()..)?.get(..3)?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

/// Pieces of `bytes`, cut at these places.
pub(super) fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut start = 0;
    let mut pieces = Vec::new();
    for cut in cuts
        .iter()
        .copied()
        .filter(|cut| *cut < bytes.len())
        .chain([bytes.len()])
    {
        if cut > start {
            pieces.push(&bytes[start..cut]);
            start = cut;
        }
    }
    pieces
}
