//! Shapes of requests that make two servers disagree, and what becomes of each.
//!
//! Every row is fed whole, byte by byte, and cut in two at every place: the verdict is always the
//! same. What is passed on is fed to a second codec, which must see the same messages: nothing goes
//! on that reads differently.

use super::driver::{Driver, Seen, pieces};

/// `Pass(n)`: n complete requests go to the member. `Refuse(s)`: the first fault is answered with
/// this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass(usize),
    Refuse(u16),
    /// Nothing wrong, nothing complete.
    Wait,
}

use Verdict::{Pass, Refuse, Wait};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Name, bytes (`{S}` stands for a second request), verdict.
#[rustfmt::skip]
const ROWS: &[(&str, &str, Verdict)] = &[
    // Plain messages.
    ("get", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Pass(1)),
    ("get twice", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("empty line before", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Pass(1)),
    ("two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("bare LF before", "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("space before", " GET / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01", Refuse(400)),
    ("NUL first", "\0GET / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("half a head", "GET / HTTP/1.1\r\nHost: x\r\n", Wait),
    ("old version", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", Pass(1)),
    ("old version without host", "GET / HTTP/1.0\r\n\r\n", Pass(1)),
    ("length 0", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n{S}", Pass(2)),
    ("length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello{S}", Pass(2)),
    ("body of a GET", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello{S}", Pass(2)),
    ("chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{S}", Pass(2)),
    ("chunked, empty", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}", Pass(2)),
    ("chunked in capitals", "POST / HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n{S}", Pass(2)),
    ("request inside a body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n{S}", Pass(1)),
    // Length against coding.
    ("CL.TE", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Refuse(400)),
    ("TE.CL", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n{S}", Refuse(400)),
    ("TE and CL 0", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("CL.0 GET", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    // Lengths.
    ("two equal lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Refuse(400)),
    ("two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Refuse(400)),
    ("lengths as a list", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", Refuse(400)),
    ("length with plus", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", Refuse(400)),
    ("length negative", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", Refuse(400)),
    ("length hexadecimal", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", Refuse(400)),
    ("length empty", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\nhello", Refuse(400)),
    ("length with a space inside", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1 0\r\n\r\nhello", Refuse(400)),
    ("length with a point", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5.0\r\n\r\nhello", Refuse(400)),
    ("length in words", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\nhello", Refuse(400)),
    ("length beyond 64 bits", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551621\r\n\r\nhello", Refuse(400)),
    ("length with an underscore", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\nhello", Refuse(400)),
    ("length in quotes", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \"5\"\r\n\r\nhello", Refuse(400)),
    ("length with white space around", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \t5 \r\n\r\nhello{S}", Pass(2)),
    ("length with zeros before", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\n\r\nhello{S}", Pass(2)),
    ("length name with underscore", "POST / HTTP/1.1\r\nHost: x\r\nContent_Length: 35\r\n\r\n{S}", Refuse(400)),
    // Codings.
    ("coding identity", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", Refuse(400)),
    ("coding unknown", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding gzip alone", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding gzip, chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refuse(501)),
    ("coding chunked, gzip", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding chunked, identity", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding twice in a list", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding twice in fields", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding then another field", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding in quotes", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with parameter", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with a comma behind", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with a comma before", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding empty", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", Refuse(400)),
    ("coding with vertical tab", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with form feed", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with bytes beyond ASCII", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{a0}chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding with tab before", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{S}", Pass(2)),
    ("coding with blanks behind", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked \t\r\n\r\n0\r\n\r\n{S}", Pass(2)),
    ("coding in an old version", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("coding name with underscore", "POST / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("space before the colon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("tab before the colon", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 5\r\n\r\nhello", Refuse(400)),
    ("space inside a name", "POST / HTTP/1.1\r\nHost: x\r\nContent Length: 5\r\n\r\nhello", Refuse(400)),
    ("space before a name", "POST / HTTP/1.1\r\nHost: x\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("space before the first name", "POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: x\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("NUL in a name", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\0: chunked\r\n\r\n", Refuse(400)),
    ("name empty", "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", Refuse(400)),
    ("line without a colon", "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\r\n\r\n", Refuse(400)),
    ("name in quotes", "GET / HTTP/1.1\r\nHost: x\r\n\"Content-Length\": 5\r\n\r\n", Refuse(400)),
    ("name beyond ASCII", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length\u{e9}: 5\r\n\r\n", Refuse(400)),
    // Line ends.
    ("fold", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", Refuse(400)),
    ("fold with tab", "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n", Refuse(400)),
    ("all lines end in LF", "GET / HTTP/1.1\nHost: x\n\n", Refuse(400)),
    ("first line ends in LF", "GET / HTTP/1.1\nHost: x\r\n\r\n", Refuse(400)),
    ("a field ends in LF", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", Refuse(400)),
    ("hidden field behind LF", "POST / HTTP/1.1\r\nHost: x\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("empty line is LF", "GET / HTTP/1.1\r\nHost: x\r\n\n", Refuse(400)),
    ("last line ends in LF", "GET / HTTP/1.1\r\nHost: x\n\r\n", Refuse(400)),
    ("CR in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n", Refuse(400)),
    ("CR twice", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n", Refuse(400)),
    ("CR at a line's start", "GET / HTTP/1.1\r\nHost: x\r\n\rA: b\r\n\r\n", Refuse(400)),
    ("CR in the target", "GET /a\rb HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", Refuse(400)),
    ("escape in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x1bc\r\n\r\n", Refuse(400)),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x7fc\r\n\r\n", Refuse(400)),
    ("value beyond ASCII", "GET / HTTP/1.1\r\nHost: x\r\nA: \u{fc}\r\n\r\n{S}", Pass(2)),
    ("value empty", "GET / HTTP/1.1\r\nHost: x\r\nA:\r\nB: \r\n\r\n{S}", Pass(2)),
    // First line.
    ("no version", "GET /\r\nHost: x\r\n\r\n", Refuse(400)),
    ("version 0.9", "GET / HTTP/0.9\r\nHost: x\r\n\r\n", Refuse(505)),
    ("version 1.2", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", Refuse(505)),
    ("version 2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refuse(505)),
    ("version in small letters", "GET / http/1.1\r\nHost: x\r\n\r\n", Refuse(505)),
    ("version with more digits", "GET / HTTP/1.10\r\nHost: x\r\n\r\n", Refuse(400)),
    ("version with zero before", "GET / HTTP/01.1\r\nHost: x\r\n\r\n", Refuse(505)),
    ("spaces in the first line", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("space behind the version", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", Refuse(400)),
    ("tabs in the first line", "GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("two targets", "GET / /b HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(505)),
    ("method with a colon", "GE:T / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("method with NUL", "GE\0T / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("method of one's own", "FROB / HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", Refuse(501)),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(501)),
    // Target.
    ("target empty", "GET  HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target relative", "GET a HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target asterisk", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("OPTIONS asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("target with fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target with NUL", "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target beyond ASCII", "GET /\u{fc} HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target absolute", "GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("target absolute, bare", "GET http://y HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("target absolute, query", "GET HTTPS://y:1?b HTTP/1.1\r\nHost: x\r\n\r\n{S}", Pass(2)),
    ("target absolute with user", "GET http://u@y/ HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target absolute without host", "GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("target of another scheme", "GET ftp://y/ HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    ("authority for a GET", "GET y:80 HTTP/1.1\r\nHost: x\r\n\r\n", Refuse(400)),
    // Host.
    ("no host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", Refuse(400)),
    ("two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", Refuse(400)),
    ("two equal hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Refuse(400)),
    ("two hosts, old version", "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", Refuse(400)),
    ("hosts as a list", "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", Refuse(400)),
    ("host with user", "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", Refuse(400)),
    ("host with path", "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", Refuse(400)),
    ("host with a space", "GET / HTTP/1.1\r\nHost: x y\r\n\r\n", Refuse(400)),
    ("host with a bad port", "GET / HTTP/1.1\r\nHost: x:y\r\n\r\n", Refuse(400)),
    ("host with two ports", "GET / HTTP/1.1\r\nHost: x:1:2\r\n\r\n", Refuse(400)),
    ("host, IPv6 open", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refuse(400)),
    ("host, IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n{S}", Pass(2)),
    ("host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n{S}", Pass(2)),
    // Connection, upgrade, expectation, forwarding.
    ("connection names host", "GET / HTTP/1.1\r\nHost: x\r\nConnection: host\r\n\r\n", Refuse(400)),
    ("connection names length", "POST / HTTP/1.1\r\nHost: x\r\nConnection: close, content-length\r\nContent-Length: 35\r\n\r\n{S}", Refuse(400)),
    ("connection names coding", "POST / HTTP/1.1\r\nHost: x\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refuse(400)),
    ("connection names a field", "GET / HTTP/1.1\r\nHost: x\r\nConnection: a\r\nA: b\r\n\r\n{S}", Pass(2)),
    ("websocket", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Pass(1)),
    ("websocket or h2c", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", Pass(1)),
    ("websocket with length 0", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", Pass(1)),
    ("websocket behind a body", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello", Refuse(501)),
    ("websocket by POST", "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Refuse(501)),
    ("websocket in the old version", "GET / HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Refuse(501)),
    ("upgrade to another protocol", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", Refuse(501)),
    ("websocket or another protocol", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, TLS/1.0\r\n\r\n", Refuse(501)),
    ("h2c", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{S}", Pass(2)),
    ("upgrade that connection lacks", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n{S}", Pass(2)),
    ("expect 100", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello{S}", Pass(2)),
    ("expect other", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", Refuse(417)),
    ("expect two", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, a\r\nContent-Length: 5\r\n\r\nhello", Refuse(417)),
    ("last forward", "OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", Refuse(204)),
    ("forward", "OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 7\r\n\r\n{S}", Pass(2)),
    ("forward, not a number", "OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: a\r\n\r\n", Refuse(400)),
    // Chunks. {C} stands for a head that declares them.
    ("size in capitals", "{C}A\r\n0123456789\r\n0\r\n\r\n{S}", Pass(2)),
    ("size with zeros before", "{C}0005\r\nhello\r\n000\r\n\r\n{S}", Pass(2)),
    ("size empty", "{C}\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size with 0x", "{C}0x5\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size negative", "{C}-5\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size with plus", "{C}+5\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size beyond 64 bits", "{C}10000000000000005\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size of 16 digits", "{C}ffffffffffffffff\r\nhello", Refuse(400)),
    ("size with space before", "{C} 5\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size with space behind", "{C}5 \r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size with underscore", "{C}1_0\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size with NUL", "{C}5\0\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size line ends in LF", "{C}5\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("size line ends in CR", "{C}5\rhello\r\n0\r\n\r\n", Refuse(400)),
    ("size line with CR twice", "{C}5\r\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("last size ends in LF", "{C}5\r\nhello\r\n0\n\r\n", Refuse(400)),
    ("chunk too short", "{C}6\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("chunk too long", "{C}4\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("chunk ends in LF", "{C}5\r\nhello\n0\r\n\r\n", Refuse(400)),
    ("chunk ends in nothing", "{C}5\r\nhello0\r\n\r\n", Refuse(400)),
    ("chunk ends in CR and another", "{C}5\r\nhello\rX0\r\n\r\n", Refuse(400)),
    ("extension", "{C}5;a=b\r\nhello\r\n0;c\r\n\r\n{S}", Pass(2)),
    ("extension in quotes", "{C}5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n{S}", Pass(2)),
    ("extension behind blanks", "{C}5 \t;a\r\nhello\r\n0\r\n\r\n{S}", Pass(2)),
    ("extension with LF", "{C}5;a\nb\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("extension with CR", "{C}5;a\rb\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("extension with LF in quotes", "{C}5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("extension with NUL", "{C}5;a\0\r\nhello\r\n0\r\n\r\n", Refuse(400)),
    ("no empty line at the end", "{C}5\r\nhello\r\n0\r\n", Wait),
    ("request behind the last size", "{C}0\r\n{S}", Refuse(400)),
    ("empty line is LF behind chunks", "{C}0\r\n\n", Refuse(400)),
    ("empty line is CR behind chunks", "{C}0\r\n\rX\r\n\r\n", Refuse(400)),
    // Trailers.
    ("trailer", "{C}5\r\nhello\r\n0\r\nDigest: a\r\nB: c\r\n\r\n{S}", Pass(2)),
    ("trailer with length", "{C}0\r\nContent-Length: 5\r\n\r\n", Refuse(400)),
    ("trailer with coding", "{C}0\r\nTransfer-Encoding: chunked\r\n\r\n", Refuse(400)),
    ("trailer with host", "{C}0\r\nHost: y\r\n\r\n", Refuse(400)),
    ("trailer with authorization", "{C}0\r\nAuthorization: a\r\n\r\n", Refuse(400)),
    ("trailer with connection", "{C}0\r\nConnection: close\r\n\r\n", Refuse(400)),
    ("trailer with forwarded address", "{C}0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", Refuse(400)),
    ("trailer with lookalike", "{C}0\r\nContent_Length: 3\r\n\r\n", Refuse(400)),
    ("trailer ends in LF", "{C}0\r\nA: b\n\r\n", Refuse(400)),
    ("trailer with fold", "{C}0\r\nA: b\r\n c\r\n\r\n", Refuse(400)),
    ("trailer with CR", "{C}0\r\nA: b\rc\r\n\r\n", Refuse(400)),
    ("trailer with space before the colon", "{C}0\r\nA : b\r\n\r\n", Refuse(400)),
];

/// Names of all rows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.0)
}

/// Bytes of all rows.
pub(super) fn all() -> impl Iterator<Item = Vec<u8>> {
    ROWS.iter().map(|row| expand(row.1))
}

/// A response for every request, so that pipelined ones get their turn.
const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n";

fn run(bytes: &[u8], cuts: &[usize]) -> Driver {
    let mut driver = Driver::new();
    let mut answered = 0;
    for piece in pieces(bytes, cuts) {
        driver.client(piece);
        loop {
            let requests = count_requests(&driver);
            if driver.is_over || requests == answered || !is_request_complete(&driver) {
                break;
            }
            answered += 1;
            driver.member(RESPONSE);
        }
    }
    driver
}

fn count_requests(driver: &Driver) -> usize {
    driver
        .seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Request { .. }))
        .count()
}

fn is_request_complete(driver: &Driver) -> bool {
    driver.connection.request == crate::http1::connection::RequestPhase::Done
}

fn verdict(driver: &Driver) -> Verdict {
    let refused = driver.seen.iter().find_map(|seen| match seen {
        Seen::Refused(refusal) => Some(*refusal),
        _ => None,
    });
    if let Some(refusal) = refused {
        return Refuse(refusal.status());
    }
    match driver
        .seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Done { .. }))
        .count()
    {
        0 => Wait,
        count => Pass(count),
    }
}

fn expand(row: &str) -> Vec<u8> {
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    row.replace("{C}", chunked)
        .replace("{S}", SMUGGLED)
        .into_bytes()
}

#[test]
fn every_shape_has_its_verdict_however_it_is_cut() {
    let mut wrong = Vec::new();
    for (name, row, expected) in ROWS {
        let bytes = expand(row);
        let whole = run(&bytes, &[]);
        if verdict(&whole) != *expected {
            wrong.push(format!(
                "{name}: {:?}, not {expected:?}: {:?}",
                verdict(&whole),
                whole.seen
            ));
            continue;
        }
        let singles: Vec<usize> = (1..bytes.len()).collect();
        let cuts = (1..bytes.len()).map(|cut| vec![cut]).chain([singles]);
        for cuts in cuts {
            let cut = run(&bytes, &cuts);
            if verdict(&cut) != *expected {
                wrong.push(format!("{name} cut at {:?}: {:?}", cuts.first(), cut.seen));
            }
            if let Pass(_) = expected {
                assert_eq!(
                    cut.to_member,
                    whole.to_member,
                    "{name} cut at {:?}",
                    cuts.first()
                );
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
fn what_is_passed_on_reads_the_same_to_the_next() {
    for (name, row, expected) in ROWS {
        let Pass(count) = expected else { continue };
        let first = run(&expand(row), &[]);
        let second = run(&first.to_member, &[]);
        assert_eq!(verdict(&second), Pass(*count), "{name}: {:?}", second.seen);
        let third = run(&second.to_member, &[]);
        assert_eq!(third.seen.len(), second.seen.len(), "{name}");
    }
}

#[test]
fn nothing_of_a_refused_head_reaches_a_member() {
    for (name, row, expected) in ROWS {
        let driver = run(&expand(row), &[]);
        let is_head = !row.starts_with("{C}");
        if let (Refuse(status), true) = (expected, is_head) {
            assert!(driver.to_member.is_empty(), "{name}");
            assert_eq!(driver.client_status(), Some(*status), "{name}");
            assert!(driver.is_over, "{name}");
        }
        let sent = String::from_utf8_lossy(&driver.to_member);
        assert!(
            !sent.contains("/smuggled") || matches!(expected, Pass(_)),
            "{name}: {sent}"
        );
    }
}

#[test]
fn names_of_rows_are_unique() {
    let mut sorted: Vec<&str> = names().collect();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), ROWS.len());
}
