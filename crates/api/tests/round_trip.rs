//! The client against the routes over a real socket: answers, refusals, limits.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use hitless_api::{
    Accepted, Answer, ApiError, AtDeadline, BlockingClient, Call, ClientError, ErrorCode, Ledger,
    List, Order, Question, SITE_BYTES_MAX, Site,
};
use tokio::sync::mpsc;

/// Serves `answer` on a socket of its own in a thread; lives as long as the test's process.
fn serve(answer: fn(Question) -> Result<Answer, ApiError>) -> (tempfile::TempDir, BlockingClient) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let (owner, mut calls) = mpsc::channel::<Call>(16);
            tokio::spawn(async move {
                while let Some(call) = calls.recv().await {
                    let _ = call.reply.send(answer(call.question));
                }
            });
            hitless_api::serve(listener, owner, std::future::pending()).await
        })
    });
    let client = BlockingClient::new(&path);
    (folder, client)
}

fn answer(question: Question) -> Result<Answer, ApiError> {
    match question {
        Question::Order(order) => Ok(Answer::Accepted(Accepted {
            change: format!("{}-1", order.kind()),
        })),
        Question::PutSite(text) => Ok(Answer::Accepted(Accepted {
            change: format!("apply-site-{}", text.len()),
        })),
        Question::Site => Ok(Answer::Site(Site {
            generation: 3,
            text: "pools: {}\n".into(),
        })),
        Question::Nodes => Ok(Answer::Nodes(List {
            revision: 7,
            items: Vec::new(),
        })),
        Question::Ledger => Ok(Answer::Ledger(Ledger {
            finished: 9,
            ..Ledger::default()
        })),
        Question::CallBack(name) => Err(ApiError::not_found("change", &name)),
        _ => Err(ApiError::new(ErrorCode::Refused, "not in this test")),
    }
}

fn refused(result: Result<impl std::fmt::Debug, ClientError>) -> ApiError {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn orders_and_answers_pass_through() {
    let (_folder, client) = serve(answer);
    let order = Order::DrainGuest {
        guest: "g2".into(),
        deadline_s: Some(20),
        at_deadline: AtDeadline::Close,
        remove: true,
    };
    assert_eq!(client.order(&order).unwrap().change, "drain-guest-1");
    assert_eq!(
        client.put_site("pools: {}\n").unwrap().change,
        "apply-site-10"
    );
    assert_eq!(
        client.site().unwrap(),
        Site {
            generation: 3,
            text: "pools: {}\n".into()
        }
    );
    assert_eq!(client.nodes().unwrap().revision, 7);
    assert_eq!(client.ledger().unwrap().finished, 9);
}

#[test]
fn refusals_keep_code_message_and_field() {
    let (_folder, client) = serve(answer);
    assert_eq!(
        refused(client.call_back("drain-guest-9")).code,
        ErrorCode::NotFound
    );
    assert_eq!(
        refused(client.node("n1")).message,
        "there is no node named \"n1\""
    );
    let bad = refused(client.order(&Order::AddNode { node: "N 1".into() }));
    assert_eq!(
        (bad.code, bad.field.as_deref()),
        (ErrorCode::Invalid, Some("node"))
    );
    let relative = Order::UpgradeTrafficManagers {
        program: "hitless".into(),
    };
    assert_eq!(
        refused(client.order(&relative)).field.as_deref(),
        Some("program")
    );
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let (_folder, client) = serve(answer);
    let refusal = refused(client.put_site(&"#".repeat(SITE_BYTES_MAX + 1)));
    assert_eq!(refusal.code, ErrorCode::TooLarge);
}

#[test]
fn nobody_at_the_socket_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let client = BlockingClient::new(folder.path().join("none.sock"));
    assert!(matches!(
        client.status(),
        Err(ClientError::Unreachable { .. })
    ));
}

#[test]
fn an_order_with_an_unknown_field_is_refused() {
    let text = r#"{"order": "add-node", "node": "n1", "colour": "red"}"#;
    assert!(
        serde_json::from_str::<Order>(text)
            .unwrap_err()
            .to_string()
            .contains("colour")
    );
    let text = r#"{"order": "replace-programs"}"#;
    assert_eq!(
        serde_json::from_str::<Order>(text).unwrap(),
        Order::ReplacePrograms {}
    );
}
