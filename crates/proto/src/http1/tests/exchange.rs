//! What goes on and what is kept: rewriting, connection management, limits, times.

use crate::http1::{
    After, Connection, Context, Event, ForwardedFor, Limits, Refusal, Rewrite, Side, Work,
};

use super::driver::{Driver, Input, Seen};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi";
const END: &str = "x-forwarded-for: 192.0.2.7\r\nvia: 1.1 hitless\r\n\r\n";

/// What the member gets for a request.
fn forwarded(request: &str) -> String {
    let mut driver = Driver::new();
    driver.client(request);
    String::from_utf8(driver.to_member).unwrap()
}

/// What the client gets for a response.
fn returned(request: &str, response: &str) -> String {
    let mut driver = Driver::new();
    driver.client(request);
    driver.member(response);
    String::from_utf8(driver.to_client).unwrap()
}

fn done(client: After, member: After) -> Seen {
    Seen::Done { client, member }
}

#[test]
fn end_to_end_fields_go_on_as_they_came() {
    let head = "GET /a?b=c HTTP/1.1\r\nhOST: x:80\r\nCookie:  a=b \r\nX-Empty:\r\nA: \u{fc}\r\n";
    assert_eq!(forwarded(&format!("{head}\r\n")), format!("{head}{END}"));
    let head = "HTTP/1.1 200 Fine by me\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: d\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(returned(GET, head), head);
}

#[test]
fn hop_by_hop_fields_are_removed() {
    let request = "GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: x\r\nKeep-Alive: timeout=5\r\n\
                   Proxy-Connection: close\r\nTE: gzip\r\nUpgrade: a\r\nA: b\r\n\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n{END}")
    );
    let response = "HTTP/1.1 200 OK\r\nDate: d\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\n\
                    Content-Length: 0\r\nProxy-Connection: a\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(
        returned(GET, response),
        "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn fields_that_connection_names_are_removed() {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: x-a, close\r\nX-A: 1\r\nX-B: 2\r\n\
                   Connection: X-C\r\nx-c: 3\r\n\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX-B: 2\r\n{END}")
    );
    let response =
        "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: x-a\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        returned(GET, response),
        "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn forwarded_for_is_one_line_with_all_that_came() {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\nA: b\r\n\
                   X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-For:\r\n\r\n";
    let all = "x-forwarded-for: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n{all}via: 1.1 hitless\r\n\r\n")
    );
}

#[test]
fn forwarded_for_can_be_replaced_or_kept() {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
    for (forwarded_for, client, expected) in [
        (
            ForwardedFor::Replace,
            "::ffff:10.20.0.255",
            "x-forwarded-for: 10.20.0.255\r\n",
        ),
        (
            ForwardedFor::Append,
            "2001:db8::1",
            "x-forwarded-for: 10.0.0.1, 2001:db8::1\r\n",
        ),
        (
            ForwardedFor::Keep,
            "10.0.0.2",
            "X-Forwarded-For: 10.0.0.1\r\n",
        ),
    ] {
        let (limits, rewrite) = (
            Limits::default(),
            Rewrite {
                forwarded_for,
                via: None,
            },
        );
        let cx = Context {
            now_us: 0,
            limits: &limits,
            rewrite: &rewrite,
            client: client.parse().unwrap(),
            draining: false,
            date: None,
        };
        let (mut connection, mut work) = (Connection::new(0), Work::default());
        let step = connection.step(Side::Client, &cx, request, &mut work);
        assert_eq!((step.event, step.consumed), (Event::Request, 0));
        assert_eq!(
            connection.forward_request(&cx, request, &mut work),
            request.len()
        );
        let expected = format!("GET / HTTP/1.1\r\nHost: x\r\n{expected}\r\n");
        assert_eq!(String::from_utf8_lossy(&work.out), expected);
    }
}

#[test]
fn absolute_target_replaces_host() {
    for (request, expected) in [
        (
            "GET http://y:8080/a?b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nhost: y:8080\r\n",
        ),
        (
            "GET HTTP://y?b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /?b HTTP/1.1\r\nhost: y\r\n",
        ),
        (
            "GET https://y HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: y\r\n",
        ),
        (
            "OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: y\r\n",
        ),
    ] {
        assert_eq!(forwarded(request), format!("{expected}{END}"));
    }
}

#[test]
fn old_requests_go_on_as_http_1_1() {
    let end = END.replace("via: 1.1", "via: 1.0");
    let request = "GET / HTTP/1.0\r\nExpect: 100-continue\r\nA: b\r\n\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nhost: \r\nA: b\r\n{end}")
    );
    let request = "GET / HTTP/1.0\r\nA: b\r\nHost: x\r\n\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nA: b\r\nHost: x\r\n{end}")
    );
}

#[test]
fn max_forwards_counts_down() {
    let request = "OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 7\r\n\r\n";
    let expected = format!("OPTIONS / HTTP/1.1\r\nHost: x\r\nmax-forwards: 6\r\n{END}");
    assert_eq!(forwarded(request), expected);
    // Other methods do not count.
    let request = "GET / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 7\r\n";
    assert_eq!(
        forwarded(&format!("{request}\r\n")),
        format!("{request}{END}")
    );
}

#[test]
fn a_client_that_takes_trailers_is_announced_as_one() {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers, deflate\r\nConnection: te\r\n\r\n";
    let te = "te: trailers\r\nconnection: te\r\n";
    assert_eq!(
        forwarded(request),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{te}{END}")
    );
}

#[test]
fn chunks_go_on_in_shortest_form_without_extensions() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nTrailer: B\r\n\r\n\
                   0005;a=b\r\nhello\r\nA\r\n0123456789\r\n000;c\r\nB: c\r\n\r\n";
    let expected = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nTrailer: B\r\ntransfer-encoding: chunked\r\n{END}\
         5\r\nhello\r\nA\r\n0123456789\r\n0\r\nB: c\r\n\r\n"
    );
    assert_eq!(forwarded(request), expected);
}

#[test]
fn old_clients_get_data_without_chunks() {
    let response = "HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n\
                    3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(
        returned(
            "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            response
        ),
        "HTTP/1.1 200 OK\r\nDate: d\r\nconnection: close\r\n\r\nabcde"
    );
}

#[test]
fn a_body_without_framing_gets_chunks() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.member("HTTP/1.0 200 OK\r\nDate: d\r\n\r\nhello");
    driver.member("0123456789abcdef!");
    driver.input(&Input::End(Side::Member));
    assert_eq!(
        String::from_utf8(driver.to_client).unwrap(),
        "HTTP/1.1 200 OK\r\nDate: d\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n11\r\n0123456789abcdef!\r\n0\r\n\r\n"
    );
    assert_eq!(driver.seen.last(), Some(&done(After::Keep, After::Close)));
}

#[test]
fn date_is_added_where_it_is_missing() {
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{date}\r\n");
    assert_eq!(returned(GET, response), expected);
}

#[test]
fn persistence_follows_version_and_connection() {
    let keep_alive = "connection: keep-alive\r\n";
    let close = "connection: close\r\n";
    for (version, option, line, after) in [
        ("1.1", "", "", After::Keep),
        ("1.1", "Connection: keep-alive\r\n", "", After::Keep),
        ("1.1", "Connection: Close\r\n", close, After::Close),
        ("1.1", "Connection: a, close, b\r\n", close, After::Close),
        (
            "1.1",
            "Connection: keep-alive, close\r\n",
            close,
            After::Close,
        ),
        ("1.0", "", close, After::Close),
        ("1.0", "Connection: Keep-Alive\r\n", keep_alive, After::Keep),
        (
            "1.0",
            "Connection: keep-alive\r\nConnection: close\r\n",
            close,
            After::Close,
        ),
    ] {
        let mut driver = Driver::new();
        driver.client(format!("GET / HTTP/{version}\r\nHost: x\r\n{option}\r\n"));
        driver.member(OK);
        let expected = format!("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n{line}\r\nhi");
        assert_eq!(
            String::from_utf8(driver.to_client).unwrap(),
            expected,
            "{version} {option}"
        );
        assert_eq!(
            driver.seen.last(),
            Some(&done(after, After::Keep)),
            "{version} {option}"
        );
    }
}

#[test]
fn draining_tells_the_client_to_close() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.input(&Input::Draining(true));
    driver.member(OK);
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Keep)));
    assert!(
        String::from_utf8(driver.to_client)
            .unwrap()
            .contains("\r\nconnection: close\r\n")
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let mut driver = Driver::new();
    driver.client("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabGET /3");
    assert!(!String::from_utf8_lossy(&driver.to_member).contains("/2"));
    driver.through_snapshot();
    driver.member(OK);
    assert!(driver.to_member.ends_with(b"\r\n\r\nab"));
    driver.through_snapshot();
    driver.client(" HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(!String::from_utf8_lossy(&driver.to_member).contains("/3"));
    driver.member(OK);
    driver.member(OK);
    let paths: Vec<&str> = driver
        .seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Request { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
    assert_eq!(String::from_utf8(driver.to_client).unwrap(), OK.repeat(3));
    assert!(driver.connection.is_idle());
}

#[test]
fn interim_responses_go_on_except_to_old_clients() {
    let response = format!("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n{OK}");
    assert_eq!(returned(GET, &response), response);
    let old = "GET / HTTP/1.0\r\nHost: x\r\n\r\n";
    assert!(returned(old, &response).starts_with("HTTP/1.1 200 OK\r\n"));
}

const EXPECT: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

#[test]
fn expectation_and_100_go_through() {
    let mut driver = Driver::new();
    driver.client(EXPECT);
    assert!(String::from_utf8_lossy(&driver.to_member).contains("Expect: 100-continue\r\n"));
    driver.member("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(driver.to_client, b"HTTP/1.1 100 Continue\r\n\r\n");
    driver.client("ab");
    driver.member(OK);
    assert_eq!(driver.seen.last(), Some(&done(After::Keep, After::Keep)));
}

#[test]
fn a_final_answer_to_an_expectation_closes() {
    let mut driver = Driver::new();
    driver.client(EXPECT);
    driver.member("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Close)));
    assert!(
        String::from_utf8(driver.to_client)
            .unwrap()
            .contains("\r\nconnection: close\r\n")
    );
}

#[test]
fn an_early_response_lets_the_rest_of_the_request_go_on() {
    let mut driver = Driver::new();
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    driver.member(OK);
    assert!(
        !driver
            .seen
            .iter()
            .any(|seen| matches!(seen, Seen::Done { .. }))
    );
    driver.client("cdGET");
    assert!(driver.to_member.ends_with(b"abcd"));
    assert_eq!(driver.seen.last(), Some(&done(After::Keep, After::Keep)));
}

#[test]
fn what_nobody_reads_is_dropped_up_to_a_limit() {
    let early = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let mut driver = Driver::new();
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    driver.member(early);
    driver.client(format!("cd{GET}"));
    assert!(driver.seen.contains(&done(After::Keep, After::Close)));
    assert!(matches!(driver.seen.last(), Some(Seen::Request { .. })));

    let mut driver = Driver::new();
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\nab");
    driver.member(early);
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Close)));

    let mut driver = Driver::new();
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    driver.member(early);
    for _ in 0..2 {
        assert!(!driver.is_over);
        driver.client(format!("8000\r\n{}\r\n", "a".repeat(0x8000)));
    }
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Close)));
}

#[test]
fn an_answer_of_our_own_keeps_the_connection() {
    let mut driver = Driver::new();
    driver.input(&Input::Answer(true));
    driver.client(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd{GET}"
    ));
    assert!(driver.to_member.is_empty());
    assert!(!driver.is_over);
    let text = String::from_utf8(driver.to_client).unwrap();
    assert_eq!(
        text.matches("HTTP/1.1 503 Service Unavailable\r\n").count(),
        2,
        "{text}"
    );
    assert!(text.ends_with(
        "content-length: 24\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n503 Service Unavailable\n"
    ));
    let expected = done(After::Keep, After::Close);
    assert_eq!(
        driver.seen.iter().filter(|seen| **seen == expected).count(),
        2
    );

    let mut driver = Driver::new();
    driver.input(&Input::Answer(true));
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\nabcd");
    assert!(driver.is_over);
    assert!(
        String::from_utf8(driver.to_client)
            .unwrap()
            .contains("\r\nconnection: close\r\n")
    );

    let mut driver = Driver::new();
    driver.input(&Input::Answer(true));
    driver.client("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(driver.to_client.ends_with(b"\r\n\r\n"), "no body for HEAD");
}

#[test]
fn limits_have_their_status() {
    let long = "a".repeat(20_000);
    let many = "A: b\r\n".repeat(101);
    let more = "A: b\r\n".repeat(200);
    let extension = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(90);
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, expected) in [
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}"),
            Refusal::HeadTooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"),
            Refusal::HeadTooLarge,
        ),
        (format!("GET /{long}"), Refusal::TargetTooLong),
        (
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..9_000]),
            Refusal::TargetTooLong,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
            Refusal::TooManyFields,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n"),
            Refusal::TooManyFields,
        ),
        (
            format!("{chunked}0\r\nA: {}", &long[..5_000]),
            Refusal::TrailerTooLarge,
        ),
        (format!("{chunked}5;{}", &long[..300]), Refusal::ChunkSize),
        (format!("{chunked}{extension}"), Refusal::ChunkExtensions),
    ] {
        let mut whole = Driver::new();
        whole.client(&request);
        assert!(
            whole.seen.contains(&Seen::Refused(expected)),
            "{expected:?}: {:?}",
            whole.seen
        );
        let mut single = Driver::new();
        for byte in request.bytes() {
            single.client([byte]);
        }
        assert!(
            single.seen.contains(&Seen::Refused(expected)),
            "{expected:?}: {:?}",
            single.seen
        );
    }
}

#[test]
fn bodies_have_a_limit() {
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n",
            413,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\n",
            413,
        ),
    ] {
        let mut driver = Driver::new();
        driver.limits.request_body_bytes_max = 10;
        driver.client(request);
        assert_eq!(driver.client_status(), Some(status));
        assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Close)));
    }
    let mut driver = Driver::new();
    driver.limits.response_body_bytes_max = 10;
    driver.client(GET);
    driver.member("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(driver.client_status(), Some(502));
}

#[test]
fn every_phase_has_its_deadline() {
    let second = 1_000_000;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab";
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
    for (client, member, within, beyond, expected) in [
        ("", "", 59, 2, Seen::Close),
        ("GET", "", 9, 2, Seen::Refused(Refusal::HeadTimeout)),
        (post, "", 29, 2, Seen::Refused(Refusal::BodyTimeout)),
        (GET, "", 59, 2, Seen::BadMember(Refusal::ResponseTimeout)),
        (GET, half, 29, 2, Seen::Abort(Refusal::MemberStalls)),
        (post, half, 29, 2, Seen::Abort(Refusal::BodyTimeout)),
        (post, OK, 29, 2, Seen::Close),
    ] {
        let mut driver = Driver::new();
        driver.client(client);
        driver.member(member);
        let before = driver.seen.len();
        driver.input(&Input::Pass(within * second));
        assert_eq!(driver.seen.len(), before, "{expected:?} is too early");
        driver.input(&Input::Pass(beyond * second));
        assert_eq!(driver.seen.get(before), Some(&expected));
        assert!(driver.is_over);
    }
}

#[test]
fn a_client_that_reads_slowly_has_time_per_progress() {
    let mut driver = Driver::new();
    driver.is_slow = true;
    driver.client(GET);
    driver.input(&Input::Drain(Side::Member, usize::MAX));
    driver.member(OK);
    for _ in 0..5 {
        driver.input(&Input::Pass(20_000_000));
        driver.input(&Input::Drain(Side::Client, 1));
    }
    assert!(!driver.is_over);
    driver.input(&Input::Pass(31_000_000));
    assert_eq!(
        driver.seen.last(),
        Some(&Seen::Abort(Refusal::ClientStalls))
    );
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_response() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.input(&Input::End(Side::Client));
    driver.member(OK);
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Keep)));
    assert!(driver.to_client.ends_with(b"hi"));
}

#[test]
fn a_client_that_asks_and_closes_its_half_gets_all_responses() {
    for is_slow in [false, true] {
        let mut driver = Driver::new();
        driver.is_slow = is_slow;
        driver.client(GET.repeat(3));
        driver.input(&Input::End(Side::Client));
        for _ in 0..3 {
            driver.input(&Input::Drain(Side::Member, usize::MAX));
            driver.through_snapshot();
            driver.member(OK);
            for _ in 0..3 {
                driver.input(&Input::Drain(Side::Client, usize::MAX));
            }
        }
        let text = String::from_utf8(driver.to_client).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
        assert_eq!(text.matches("connection: close").count(), 1, "{text}");
        assert!(driver.is_over);
    }
}

#[test]
fn a_client_that_closes_its_half_inside_the_response_is_closed_behind_it() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.member("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
    driver.input(&Input::End(Side::Client));
    driver.member("i");
    assert_eq!(driver.seen.last(), Some(&done(After::Close, After::Keep)));
}

#[test]
fn a_member_that_answers_and_closes_is_read_to_its_end() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.is_slow = true;
    driver.member("HTTP/1.1 200 OK\r\nDate: d\r\n\r\nhel");
    driver.member("lo");
    driver.input(&Input::End(Side::Member));
    while !driver.connection.unsent(Side::Client).is_empty() {
        driver.through_snapshot();
        driver.input(&Input::Drain(Side::Client, 1));
    }
    assert!(
        driver.to_client.ends_with(b"5\r\nhello\r\n0\r\n\r\n"),
        "{:?}",
        driver.seen
    );
    assert_eq!(driver.seen.last(), Some(&done(After::Keep, After::Close)));
}

/// The loop of the guide, with a scratch buffer that is shorter than what an earlier program had.
#[test]
fn stuck_input_goes_through_a_shorter_scratch_buffer_in_order() {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = Context {
        now_us: 0,
        limits: &limits,
        rewrite: &rewrite,
        client: "192.0.2.7".parse().unwrap(),
        draining: false,
        date: None,
    };
    let (mut connection, mut work) = (Connection::awaiting_response(0, false), Work::default());
    let data: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n";
    connection.feed(Side::Member, &[&head[..], &data].concat());
    let (mut scratch, mut got, mut is_done) = ([0; 100], Vec::new(), false);
    while !is_done {
        let count = connection.take_stuck(Side::Member, &mut scratch);
        let mut input = &scratch[..count];
        loop {
            let step = connection.step(Side::Member, &cx, input, &mut work);
            got.extend_from_slice(&work.out);
            got.extend_from_slice(&input[step.tail]);
            work.out.clear();
            input = &input[step.consumed..];
            match step.event {
                Event::Response => {
                    input = &input[connection.forward_response(&cx, input, &mut work)..];
                }
                Event::Body => {}
                Event::Done { .. } => is_done = true,
                event => assert_eq!(event, Event::NeedMore),
            }
            if matches!(step.event, Event::NeedMore | Event::Done { .. }) {
                break;
            }
        }
        connection.keep_stuck(Side::Member, input);
    }
    assert_eq!(got, [&head[..], &data].concat());
}

#[test]
fn bodies_can_be_spliced() {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = Context {
        now_us: 0,
        limits: &limits,
        rewrite: &rewrite,
        client: "192.0.2.7".parse().unwrap(),
        draining: false,
        date: None,
    };
    let (mut connection, mut work) = (Connection::awaiting_response(0, false), Work::default());
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(connection.verbatim_bytes(Side::Member), 0);
    assert_eq!(
        connection.step(Side::Member, &cx, head, &mut work).event,
        Event::Response
    );
    connection.forward_response(&cx, head, &mut work);
    assert_eq!(connection.verbatim_bytes(Side::Member), 1_000_000);
    assert_eq!(connection.spliced(Side::Member, 999_999, &cx), Event::Body);
    let step = connection.step(Side::Member, &cx, b"x", &mut work);
    assert_eq!(
        step.event,
        Event::Done {
            client: After::Keep,
            member: After::Keep
        }
    );
}

#[test]
fn an_end_inside_a_request_body_is_no_end_of_it() {
    let mut driver = Driver::new();
    driver.client("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    driver.input(&Input::End(Side::Client));
    assert_eq!(
        driver.seen.last(),
        Some(&Seen::Abort(Refusal::ClientClosed))
    );
}

#[test]
fn nobody_is_answered_who_asked_nothing() {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = Context {
        now_us: 0,
        limits: &limits,
        rewrite: &rewrite,
        client: "192.0.2.7".parse().unwrap(),
        draining: false,
        date: None,
    };
    let (mut connection, mut work) = (Connection::new(0), Work::default());
    let step = connection.step(
        Side::Member,
        &cx,
        b"HTTP/1.1 408 Timeout\r\n\r\n",
        &mut work,
    );
    assert_eq!(step.event, Event::BadMember(Refusal::Unsolicited));
    assert_eq!(connection.refuse(&cx, &mut work, 502), Event::Close);
    assert!(work.out.is_empty());
}

#[test]
fn long_bodies_are_not_copied() {
    let (limits, rewrite) = (Limits::default(), Rewrite::default());
    let cx = Context {
        now_us: 0,
        limits: &limits,
        rewrite: &rewrite,
        client: "192.0.2.7".parse().unwrap(),
        draining: false,
        date: None,
    };
    let (mut connection, mut work) = (Connection::awaiting_response(0, false), Work::default());
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [&b"2000\r\n"[..], &[7; 0x2000], b"\r\n"].concat();
    let input = [&head[..], &chunk, &chunk, b"0\r\n\r\n"].concat();
    assert_eq!(
        connection.step(Side::Member, &cx, &input, &mut work).event,
        Event::Response
    );
    let consumed = connection.forward_response(&cx, &input, &mut work);
    let copied = work.out.len();
    let input = &input[consumed..];
    let step = connection.step(Side::Member, &cx, input, &mut work);
    assert_eq!(
        step.event,
        Event::Done {
            client: After::Keep,
            member: After::Keep
        }
    );
    assert_eq!(
        step.tail,
        0..input.len(),
        "both chunks and the last one in one piece"
    );
    assert_eq!(work.out.len(), copied);
}

#[test]
fn an_idle_connection_owns_no_memory() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.member(OK);
    assert!(driver.connection.is_idle());
    let buffers = driver
        .connection
        .stuck
        .iter()
        .chain(&driver.connection.unsent);
    assert_eq!(buffers.map(Vec::capacity).sum::<usize>(), 0);
}

pub(super) const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub(super) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n";

#[test]
fn a_websocket_is_switched_to() {
    let mut driver = Driver::new();
    driver.client(WEBSOCKET);
    let asked = String::from_utf8_lossy(&driver.to_member).into_owned();
    assert!(
        asked.contains("upgrade: websocket\r\nconnection: upgrade\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        "{asked}"
    );
    assert_eq!(asked.matches("pgrade").count(), 2, "{asked}");
    driver.member(format!(
        "HTTP/1.1 103 Early Hints\r\n\r\n{SWITCHING}\x01frame"
    ));
    assert_eq!(driver.seen.last(), Some(&Seen::Switched));
    assert!(driver.connection.has_switched());
    let told = String::from_utf8_lossy(&driver.to_client).into_owned();
    let (_, told) = told.split_once("\r\n\r\n").unwrap();
    assert!(told.starts_with("HTTP/1.1 101 "), "{told}");
    assert!(
        told.contains("upgrade: websocket\r\nconnection: upgrade\r\n"),
        "{told}"
    );
    assert!(told.ends_with("\r\n\r\n"), "{told}");
    assert_eq!(driver.connection.stuck(Side::Member), b"\x01frame");
}

#[test]
fn a_websocket_that_is_declined_stays_http() {
    let mut driver = Driver::new();
    driver.client(WEBSOCKET);
    driver.member("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
    driver.client("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // The next request asked for nothing.
    driver.member(SWITCHING);
    let refused = Seen::BadMember(Refusal::Status);
    assert!(driver.seen.contains(&refused), "{:?}", driver.seen);
}

#[test]
fn a_slow_client_hears_of_the_switch_first() {
    let mut driver = Driver::new();
    driver.client(WEBSOCKET);
    driver.is_slow = true;
    driver.member(SWITCHING);
    assert!(driver.connection.has_switched());
    assert_ne!(driver.seen.last(), Some(&Seen::Switched));
    driver.through_snapshot();
    driver.input(&Input::Drain(Side::Client, usize::MAX));
    assert_eq!(driver.seen.last(), Some(&Seen::Switched));
}
