use std::net::SocketAddr;

use super::*;

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn answers_what_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = AdminServer::start(listener, || "hitless_test 1\n".to_owned()).unwrap();
    for (request, status, body) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "200 OK",
            "hitless_test 1\n",
        ),
        (
            "GET /metrics?a=b HTTP/1.0\r\n\r\n",
            "200 OK",
            "hitless_test 1\n",
        ),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", ""),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "404 Not Found",
            "only /metrics is here\n",
        ),
        (
            "POST /metrics HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed",
            "only GET is answered\n",
        ),
        (
            "\u{1}\u{2}\r\n\r\n",
            "400 Bad Request",
            "this is no HTTP request\n",
        ),
    ] {
        let answer = ask(address, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {answer}"
        );
        assert!(
            answer.ends_with(&format!("\r\n\r\n{body}")),
            "{request}: {answer}"
        );
    }
    drop(server);
    assert!(
        TcpStream::connect(address).is_err(),
        "the listener is closed with the server"
    );
}

#[test]
fn silent_connections_do_not_keep_others_out_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _server = AdminServer::start(listener, || "x 1\n".to_owned()).unwrap();
    let silent: Vec<_> = (0..CONNECTIONS_MAX - 1)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let answer = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("x 1\n"), "{answer}");
    drop(silent);
}
