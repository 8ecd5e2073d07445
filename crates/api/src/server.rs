//! The routes. Every request becomes one [`Call`] to the task that owns the state; who it is was
//! checked before.
//!
//! The socket is for this user and root: anybody else's connection is closed before a byte of it is
//! read.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};
use tokio::sync::{mpsc, oneshot};

use crate::error::{ApiError, ErrorCode};
use crate::order::{Accepted, Order};
use crate::resource::{
    BucketRun, Change, Counters, Guest, List, Node, Site, Status, VirtualCluster,
};
use hitless_core::ledger::Ledger;

/// A site configuration of 4 MiB holds some 30,000 pools of four members.
pub const SITE_BYTES_MAX: usize = 4 << 20;
/// The owner answers in microseconds unless it is stuck; a client shall not hang with it.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    Status,
    Nodes,
    Guests,
    VirtualClusters,
    Buckets,
    Changes,
    Counters,
    Ledger,
    Site,
    PutSite(String),
    Order(Order),
    CallBack(String),
}

/// What is answered; each question has one kind of answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Status(Status),
    Nodes(List<Node>),
    Guests(List<Guest>),
    VirtualClusters(List<VirtualCluster>),
    Buckets(List<BucketRun>),
    Changes(List<Change>),
    Counters(Counters),
    Ledger(Ledger),
    Site(Site),
    Accepted(Accepted),
}

/// A question and where its answer goes.
#[derive(Debug)]
pub struct Call {
    pub question: Question,
    pub reply: oneshot::Sender<Result<Answer, ApiError>>,
}

type Owner = mpsc::Sender<Call>;

/// Serves the API on `listener` until `stop` ends; requests under way are answered first.
pub async fn serve(
    listener: UnixListener,
    owner: Owner,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Trusted { listener }, routes(owner))
        .with_graceful_shutdown(stop)
        .await
}

fn routes(owner: Owner) -> Router {
    Router::new()
        .route(
            "/v1/status",
            get(async |State(o): State<Owner>| show(&o, Question::Status).await),
        )
        .route(
            "/v1/nodes",
            get(async |State(o): State<Owner>| show(&o, Question::Nodes).await),
        )
        .route("/v1/nodes/{name}", get(one_node))
        .route(
            "/v1/guests",
            get(async |State(o): State<Owner>| show(&o, Question::Guests).await),
        )
        .route("/v1/guests/{name}", get(one_guest))
        .route(
            "/v1/virtual-clusters",
            get(async |State(o): State<Owner>| show(&o, Question::VirtualClusters).await),
        )
        .route(
            "/v1/buckets",
            get(async |State(o): State<Owner>| show(&o, Question::Buckets).await),
        )
        .route("/v1/buckets/{number}", get(one_bucket))
        .route(
            "/v1/changes",
            get(async |State(o): State<Owner>| show(&o, Question::Changes).await).post(order),
        )
        .route("/v1/changes/{name}", get(one_change))
        .route("/v1/changes/{name}/call-back", post(call_back))
        .route(
            "/v1/counters",
            get(async |State(o): State<Owner>| show(&o, Question::Counters).await),
        )
        .route(
            "/v1/ledger",
            get(async |State(o): State<Owner>| show(&o, Question::Ledger).await),
        )
        .route("/v1/site", get(site).put(put_site))
        .fallback(async || ApiError::new(ErrorCode::NotFound, "there is no such path in this API"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::Invalid, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(SITE_BYTES_MAX))
        .with_state(owner)
}

async fn ask(owner: &Owner, question: Question) -> Result<Answer, ApiError> {
    let unavailable = || {
        ApiError::new(
            ErrorCode::Unavailable,
            "the controller is stopping or overloaded",
        )
    };
    let (reply, answer) = oneshot::channel();
    owner
        .try_send(Call { question, reply })
        .map_err(|_| unavailable())?;
    match tokio::time::timeout(ANSWER_WAIT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(unavailable()),
    }
}

async fn show(owner: &Owner, question: Question) -> Response {
    match ask(owner, question).await {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn found<T: Serialize>(kind: &str, name: &str, object: Option<T>) -> Result<Json<T>, ApiError> {
    object
        .map(Json)
        .ok_or_else(|| ApiError::not_found(kind, name))
}

fn mismatch() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the answer does not fit the question")
}

async fn one_node(
    State(o): State<Owner>,
    Path(name): Path<String>,
) -> Result<Json<Node>, ApiError> {
    let Answer::Nodes(list) = ask(&o, Question::Nodes).await? else {
        return Err(mismatch());
    };
    found(
        "node",
        &name,
        list.items.into_iter().find(|node| node.name == name),
    )
}

async fn one_guest(
    State(o): State<Owner>,
    Path(name): Path<String>,
) -> Result<Json<Guest>, ApiError> {
    let Answer::Guests(list) = ask(&o, Question::Guests).await? else {
        return Err(mismatch());
    };
    found(
        "guest",
        &name,
        list.items.into_iter().find(|guest| guest.name == name),
    )
}

async fn one_change(
    State(o): State<Owner>,
    Path(name): Path<String>,
) -> Result<Json<Change>, ApiError> {
    let Answer::Changes(list) = ask(&o, Question::Changes).await? else {
        return Err(mismatch());
    };
    found(
        "change",
        &name,
        list.items.into_iter().find(|change| change.name == name),
    )
}

async fn one_bucket(
    State(o): State<Owner>,
    Path(number): Path<String>,
) -> Result<Json<BucketRun>, ApiError> {
    let bucket: u16 = number.parse().map_err(|_| {
        ApiError::field(
            "number",
            format!("found {number:?}, a bucket is 0 to 65535"),
        )
    })?;
    let Answer::Buckets(list) = ask(&o, Question::Buckets).await? else {
        return Err(mismatch());
    };
    found(
        "bucket",
        &number,
        list.items
            .into_iter()
            .find(|run| (run.first..=run.last).contains(&bucket)),
    )
}

async fn site(State(o): State<Owner>) -> Result<Response, ApiError> {
    let Answer::Site(site) = ask(&o, Question::Site).await? else {
        return Err(mismatch());
    };
    let generation = [("x-hitless-generation", site.generation.to_string())];
    Ok((
        [(header::CONTENT_TYPE, "application/yaml")],
        generation,
        site.text,
    )
        .into_response())
}

async fn put_site(State(o): State<Owner>, body: Result<Bytes, BytesRejection>) -> Response {
    let text = match read_body(body).map(|body| String::from_utf8(body.to_vec())) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            return ApiError::new(ErrorCode::Invalid, "the configuration is not UTF-8")
                .into_response();
        }
        Err(refusal) => return refusal.into_response(),
    };
    accepted(&o, Question::PutSite(text)).await
}

async fn order(State(o): State<Owner>, body: Result<Bytes, BytesRejection>) -> Response {
    let order: Order = match read_body(body).and_then(|body| parse_order(&body)) {
        Ok(order) => order,
        Err(refusal) => return refusal.into_response(),
    };
    accepted(&o, Question::Order(order)).await
}

fn read_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new(
                ErrorCode::TooLarge,
                format!("the body is longer than {SITE_BYTES_MAX} bytes"),
            )
        } else {
            ApiError::new(ErrorCode::Invalid, "the body could not be read")
        }
    })
}

fn parse_order(body: &[u8]) -> Result<Order, ApiError> {
    let order: Order = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(ErrorCode::Invalid, error.to_string()))?;
    order.check()?;
    Ok(order)
}

async fn call_back(State(o): State<Owner>, Path(name): Path<String>) -> Response {
    accepted(&o, Question::CallBack(name)).await
}

async fn accepted(owner: &Owner, question: Question) -> Response {
    match ask(owner, question).await {
        Ok(answer) => (StatusCode::ACCEPTED, answer).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Status(value) => Json(value).into_response(),
            Self::Nodes(value) => Json(value).into_response(),
            Self::Guests(value) => Json(value).into_response(),
            Self::VirtualClusters(value) => Json(value).into_response(),
            Self::Buckets(value) => Json(value).into_response(),
            Self::Changes(value) => Json(value).into_response(),
            Self::Counters(value) => Json(value).into_response(),
            Self::Ledger(value) => Json(value).into_response(),
            Self::Site(value) => Json(value).into_response(),
            Self::Accepted(value) => Json(value).into_response(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.code {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

/// A listener that hands on connections of this user and of root only.
#[derive(Debug)]
struct Trusted {
    listener: UnixListener,
}

impl axum::serve::Listener for Trusted {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        let ours = rustix::process::geteuid().as_raw();
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 || peer.uid() == ours => return (stream, address),
                    Ok(_) | Err(_) => {}
                },
                // Out of descriptors, most likely: others will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
