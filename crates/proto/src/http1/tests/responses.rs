//! Shapes of responses: a member that smuggles is answered for with 502, or cut off where the
//! client already has the head. Every row is fed whole, byte by byte, and cut in two at every
//! place.

use crate::http1::{After, Refusal, Side};

use super::driver::{Driver, Input, Seen, pieces};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Complete; what happens to client and member.
    Pass(After, After),
    /// Answered with this status instead.
    Bad(u16),
    /// The client sees an incomplete response.
    Cut,
    /// Not complete yet.
    Wait,
}

use After::{Close, Keep};
use Verdict::{Bad, Cut, Pass, Wait};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";

/// Name, request, response (`{END}` at its end stands for the member's end of stream), verdict.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str, Verdict)] = &[
    ("length", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Pass(Keep, Keep)),
    ("length 0", GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("no reason phrase", GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("reason phrase beyond ASCII", GET, "HTTP/1.1 404 Nicht m\u{f6}glich\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("chunked", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Pass(Keep, Keep)),
    ("trailer", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n0\r\nDigest: a\r\n\r\n", Pass(Keep, Keep)),
    ("close", GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Close)),
    ("until close", GET, "HTTP/1.1 200 OK\r\n\r\nhello{END}", Pass(Keep, Close)),
    ("until close, empty", GET, "HTTP/1.1 200 OK\r\n\r\n{END}", Pass(Keep, Close)),
    ("until close, open", GET, "HTTP/1.1 200 OK\r\n\r\nhello", Wait),
    ("old member", GET, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Close)),
    ("old member, keep-alive", GET, "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("old client", OLD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Pass(Keep, Keep)),
    ("old client, chunked", OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", Pass(Close, Keep)),
    ("old client, until close", OLD, "HTTP/1.1 200 OK\r\n\r\nhello{END}", Pass(Close, Close)),
    ("old client, 100", OLD, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("204", GET, "HTTP/1.1 204 No Content\r\n\r\n", Pass(Keep, Keep)),
    ("204 with length 0", GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("204 with length", GET, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Bad(502)),
    ("204 with coding", GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad(502)),
    ("205", GET, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", Pass(Keep, Keep)),
    ("304", GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Pass(Keep, Keep)),
    ("304 with coding", GET, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Pass(Keep, Keep)),
    ("HEAD with length", HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Pass(Keep, Keep)),
    ("HEAD with coding", HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Pass(Keep, Keep)),
    ("HEAD without either", HEAD, "HTTP/1.1 200 OK\r\n\r\n", Pass(Keep, Keep)),
    ("100", GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Pass(Keep, Keep)),
    ("103", GET, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Pass(Keep, Keep)),
    ("100 alone", GET, "HTTP/1.1 100 Continue\r\n\r\n", Wait),
    ("100 with length", GET, "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello", Bad(502)),
    ("100 with coding", GET, "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", Bad(502)),
    ("101", GET, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", Bad(502)),
    ("nine interim ones", GET, "{9}HTTP/1.1 204 No Content\r\n\r\n", Bad(502)),
    ("status 99", GET, "HTTP/1.1 099 A\r\n\r\n", Bad(502)),
    ("status 600", GET, "HTTP/1.1 600 A\r\n\r\n", Bad(502)),
    ("status of two digits", GET, "HTTP/1.1 20 A\r\n\r\n", Bad(502)),
    ("status of four digits", GET, "HTTP/1.1 2000 A\r\n\r\n", Bad(502)),
    ("status in words", GET, "HTTP/1.1 OK A\r\n\r\n", Bad(502)),
    ("length and coding", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad(502)),
    ("two lengths", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Bad(502)),
    ("two equal lengths", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Bad(502)),
    ("length list", GET, "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", Bad(502)),
    ("length no number", GET, "HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\nhello", Bad(502)),
    ("length no number for HEAD", HEAD, "HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n", Bad(502)),
    ("coding unknown", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Bad(502)),
    ("coding not at the end", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Bad(502)),
    ("coding identity", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Bad(502)),
    ("coding of an old member", GET, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad(502)),
    ("lines end in LF", GET, "HTTP/1.1 200 OK\nContent-Length: 0\n\n", Bad(502)),
    ("status line ends in LF", GET, "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("fold", GET, "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("CR in a value", GET, "HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("NUL in a value", GET, "HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("space before the colon", GET, "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", Bad(502)),
    ("CR in the reason", GET, "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("empty line before", GET, "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("not HTTP", GET, "SSH-2.0-OpenSSH_9.2\r\n", Bad(502)),
    ("version 2", GET, "HTTP/2 200\r\n\r\n", Bad(502)),
    ("connection names length", GET, "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n", Bad(502)),
    ("end before the head", GET, "{END}", Bad(502)),
    ("end inside the head", GET, "HTTP/1.1 200 OK\r\nConte{END}", Bad(502)),
    ("end behind 100", GET, "HTTP/1.1 100 Continue\r\n\r\n{END}", Bad(502)),
    ("end inside a length", GET, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello{END}", Cut),
    ("end inside a chunk", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello{END}", Cut),
    ("end before the last chunk", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{END}", Cut),
    ("end before the empty line", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{END}", Cut),
    ("bad chunk size", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", Cut),
    ("bad chunk end", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!0\r\n\r\n", Cut),
    ("trailer with length", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", Cut),
    ("trailer with cookie", GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: 5\r\n\r\n", Cut),
];

/// Names of all rows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.0)
}

/// Requests and response bytes of all rows.
pub(super) fn all() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    ROWS.iter()
        .map(|row| (row.1.as_bytes().to_vec(), expand(row.2).into_bytes()))
}

/// The bytes of a row, without its end of stream.
fn expand(row: &str) -> String {
    row.replace("{END}", "")
        .replace("{9}", &"HTTP/1.1 102 Processing\r\n\r\n".repeat(9))
}

fn run(request: &str, response: &str, cuts: &[usize]) -> Driver {
    let mut driver = Driver::new();
    driver.client(request);
    let bytes = expand(response);
    let ends = response.ends_with("{END}");
    for piece in pieces(bytes.as_bytes(), cuts) {
        driver.member(piece);
    }
    if ends {
        driver.input(&Input::End(Side::Member));
    }
    driver
}

fn verdict(driver: &Driver) -> Verdict {
    for seen in &driver.seen {
        match seen {
            Seen::BadMember(refusal) => return Bad(refusal.member_status()),
            Seen::Abort(_) => return Cut,
            Seen::Done { client, member } => return Pass(*client, *member),
            _ => {}
        }
    }
    Wait
}

#[test]
fn every_shape_has_its_verdict_however_it_is_cut() {
    let mut wrong = Vec::new();
    for (name, request, response, expected) in ROWS {
        let whole = run(request, response, &[]);
        if verdict(&whole) != *expected {
            wrong.push(format!(
                "{name}: {:?}, not {expected:?}: {:?}",
                verdict(&whole),
                whole.seen
            ));
            continue;
        }
        if let Bad(status) = expected {
            let is_answered = whole
                .to_client
                .starts_with(format!("HTTP/1.1 {status} ").as_bytes());
            let follows_interim = whole.to_client.starts_with(b"HTTP/1.1 1");
            assert!(is_answered || follows_interim, "{name}");
        }
        let singles: Vec<usize> = (1..response.len()).collect();
        for cuts in (1..response.len()).map(|cut| vec![cut]).chain([singles]) {
            let cut = run(request, response, &cuts);
            if verdict(&cut) != *expected {
                wrong.push(format!("{name} cut at {:?}: {:?}", cuts.first(), cut.seen));
            }
            // A body without framing becomes one chunk per piece that came.
            if matches!(expected, Pass(..)) && !response.ends_with("{END}") {
                assert_eq!(
                    cut.to_client,
                    whole.to_client,
                    "{name} cut at {:?}",
                    cuts.first()
                );
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        ROWS.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_the_client_gets_reads_the_same_again() {
    for (name, request, response, expected) in ROWS {
        let Pass(client, _) = expected else { continue };
        let first = run(request, response, &[]);
        let mut second = Driver::new();
        second.client(request);
        second.member(&first.to_client);
        if *client == Close {
            second.input(&Input::End(Side::Member));
        }
        let is_done = second
            .seen
            .iter()
            .any(|seen| matches!(seen, Seen::Done { .. }));
        assert!(is_done, "{name}: {:?}", second.seen);
    }
}

#[test]
fn bytes_behind_a_response_are_never_the_next_one() {
    let mut driver = Driver::new();
    driver.client(format!("{GET}{GET}"));
    driver.member("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    let done = Seen::Done {
        client: Keep,
        member: Close,
    };
    assert!(driver.seen.contains(&done), "{:?}", driver.seen);
    // The second request is under way, to another connection of a member; the stray response is
    // gone.
    assert_eq!(
        driver
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Response { .. }))
            .count(),
        1
    );
    driver.member("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert!(driver.to_client.ends_with(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"));
}

#[test]
fn a_reset_of_the_member_is_never_a_response_s_end() {
    let mut driver = Driver::new();
    driver.client(GET);
    driver.member("HTTP/1.1 200 OK\r\n\r\nhello");
    driver.input(&Input::Lost(Side::Member));
    assert_eq!(
        driver.seen.last(),
        Some(&Seen::Abort(Refusal::MemberClosed))
    );
    assert!(!driver.to_client.ends_with(b"0\r\n\r\n"));
}
