//! A warm connection allocates nothing: heads, tables, streams and output reuse what they have.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::System;

use hitless_proto::http2::{Connection, Context, Event, Head, Limits, Work};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One client and one server, ten streams at a time. The only test of this binary, so that nobody
/// else allocates.
#[test]
fn a_warm_http2_exchange_allocates_nothing() {
    let limits = Limits::default();
    let cx = Context {
        now_us: 0,
        limits: &limits,
    };
    let (mut up, mut down) = (Work::default(), Work::default());
    let mut client = Connection::client(&cx, &mut up.out);
    let mut server = Connection::server(&cx, &mut down.out);
    let (mut request, mut response) = (Head::default(), Head::default());
    response.begin_response(200);
    response.push(b"server", b"any");
    let mut paths = 0_u32;
    let mut turn = || {
        for _ in 0..10 {
            // Paths differ, as do fields that the tables take and drop again.
            paths += 1;
            let mut path = *b"/00000000";
            for (place, digit) in path[1..].iter_mut().enumerate() {
                *digit = b'0' + (paths / 10_u32.pow(place as u32) % 10) as u8;
            }
            request.begin_request(b"GET", b"http", Some(b"x.test"), &path);
            request.push(b"x-page", &path);
            client.open(&cx, &request, true, &mut up.out).unwrap();
        }
        let mut input = std::mem::take(&mut up.out);
        let mut at = 0;
        loop {
            let step = server.step(&cx, &input[at..], &mut down);
            at += step.consumed;
            match step.event {
                Event::Request { stream, .. } => {
                    let out = &mut down.out;
                    server.respond(&cx, stream, &response, false, out).unwrap();
                    server
                        .send_data(&cx, stream, &[0; 1_000], true, out)
                        .unwrap();
                }
                Event::NeedMore => break,
                _ => {}
            }
        }
        input.clear();
        up.out = input;
        let mut input = std::mem::take(&mut down.out);
        let mut at = 0;
        loop {
            let step = client.step(&cx, &input[at..], &mut up);
            at += step.consumed;
            match step.event {
                Event::Data { stream, .. } => {
                    client.release(&cx, stream, step.data.len(), &mut up.out);
                }
                Event::NeedMore => break,
                _ => {}
            }
        }
        input.clear();
        down.out = input;
    };
    for _ in 0..200 {
        turn();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..1_000 {
        turn();
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
}
