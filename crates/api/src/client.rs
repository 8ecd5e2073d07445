//! The client: one connection per request, since a controller may be killed and started between two
//! of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ClientError, ErrorCode};
use crate::order::{Accepted, Order};
use crate::resource::{
    BucketRun, Change, Counters, Guest, List, Node, Site, Status, VirtualCluster,
};
use hitless_core::ledger::Ledger;

/// 65,536 runs of one bucket each, some 200 bytes of JSON per run, and room to spare.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// A controller answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client of a controller's API.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the controller that listens at `socket`. Connects with each request only.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Where the controller is expected.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    pub async fn nodes(&self) -> Result<List<Node>, ClientError> {
        self.get("/v1/nodes").await
    }

    pub async fn node(&self, name: &str) -> Result<Node, ClientError> {
        self.get(&format!("/v1/nodes/{}", segment(name))).await
    }

    pub async fn guests(&self) -> Result<List<Guest>, ClientError> {
        self.get("/v1/guests").await
    }

    pub async fn guest(&self, name: &str) -> Result<Guest, ClientError> {
        self.get(&format!("/v1/guests/{}", segment(name))).await
    }

    pub async fn virtual_clusters(&self) -> Result<List<VirtualCluster>, ClientError> {
        self.get("/v1/virtual-clusters").await
    }

    /// The bucket table, neighbours with the same row in one.
    pub async fn buckets(&self) -> Result<List<BucketRun>, ClientError> {
        self.get("/v1/buckets").await
    }

    pub async fn bucket(&self, number: u16) -> Result<BucketRun, ClientError> {
        self.get(&format!("/v1/buckets/{number}")).await
    }

    /// Changes under way, and the last ones that are over; newest last.
    pub async fn changes(&self) -> Result<List<Change>, ClientError> {
        self.get("/v1/changes").await
    }

    pub async fn change(&self, name: &str) -> Result<Change, ClientError> {
        self.get(&format!("/v1/changes/{}", segment(name))).await
    }

    pub async fn counters(&self) -> Result<Counters, ClientError> {
        self.get("/v1/counters").await
    }

    /// The sum of all changes' ledgers: an estimate as far as any of them is
    /// ([`Change::ledger_by_counts`]).
    pub async fn ledger(&self) -> Result<Ledger, ClientError> {
        self.get("/v1/ledger").await
    }

    pub async fn site(&self) -> Result<Site, ClientError> {
        let (parts, body) = self.send(Method::GET, "/v1/site", None).await?.into_parts();
        let generation = parts.headers.get("x-hitless-generation");
        let generation = generation.and_then(|value| value.to_str().ok()?.parse().ok());
        match (generation, String::from_utf8(body.to_vec())) {
            (Some(generation), Ok(text)) => Ok(Site { generation, text }),
            _ => Err(ClientError::Broken(
                "the site configuration came without its generation".into(),
            )),
        }
    }

    /// Replaces the site configuration: the same YAML as `hitless serve -f` takes.
    pub async fn put_site(&self, text: &str) -> Result<Accepted, ClientError> {
        let body = ("application/yaml", text.as_bytes().to_vec());
        read(
            &self
                .send(Method::PUT, "/v1/site", Some(body))
                .await?
                .into_body(),
        )
    }

    /// Orders a change.
    pub async fn order(&self, order: &Order) -> Result<Accepted, ClientError> {
        let body = serde_json::to_vec(order).map_err(ClientError::Unreadable)?;
        let body = ("application/json", body);
        read(
            &self
                .send(Method::POST, "/v1/changes", Some(body))
                .await?
                .into_body(),
        )
    }

    /// Calls a change back half-way: what it did is undone. Refused for a kind that has no way
    /// back.
    pub async fn call_back(&self, change: &str) -> Result<Accepted, ClientError> {
        let path = format!("/v1/changes/{}/call-back", segment(change));
        read(&self.send(Method::POST, &path, None).await?.into_body())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read(&self.send(Method::GET, path, None).await?.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Response<Bytes>, ClientError> {
        tokio::time::timeout(PATIENCE, self.send_now(method, path, body))
            .await
            .map_err(|_| ClientError::TimedOut(PATIENCE.as_secs()))?
    }

    async fn send_now(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Response<Bytes>, ClientError> {
        let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
        let stream = tokio::net::UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "hitless");
        if let Some((kind, _)) = &body {
            request = request.header("content-type", *kind);
        }
        let bytes = body.map(|(_, bytes)| bytes).unwrap_or_default();
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| broken(&error))?;
        let exchange = async {
            let (parts, body) = sender
                .send_request(request)
                .await
                .map_err(|e| broken(&e))?
                .into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| broken(&e))?;
            Ok::<_, ClientError>(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        let response = tokio::select! {
            response = &mut exchange => response?,
            // The connection's end and the answer's last byte may come at once: the exchange has
            // the last word.
            _ = &mut connection => exchange.await?,
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(&response))
        }
    }
}

/// A name as a part of a path; one that needs escaping is no name of ours and finds nothing.
fn segment(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    name.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(ClientError::Unreadable)
}

fn refusal(response: &Response<Bytes>) -> ClientError {
    match serde_json::from_slice::<ApiError>(response.body()) {
        Ok(refusal) => ClientError::Refused(refusal),
        Err(_) => {
            let code = match response.status() {
                StatusCode::NOT_FOUND => ErrorCode::NotFound,
                _ => ErrorCode::Internal,
            };
            ClientError::Refused(ApiError::new(
                code,
                format!("HTTP status {}", response.status()),
            ))
        }
    }
}

/// The same for programs without an executor, as the lab: each call runs one of its own.
#[derive(Clone, Debug)]
pub struct BlockingClient {
    client: Client,
}

macro_rules! blocking {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(&self, $($arg: $kind),*) -> Result<$answer, ClientError> {
                self.run(self.client.$name($($arg),*))
            }
        )*
    };
}

impl BlockingClient {
    /// As [`Client::new`].
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            client: Client::new(socket),
        }
    }

    blocking! {
        status() -> Status;
        nodes() -> List<Node>;
        node(name: &str) -> Node;
        guests() -> List<Guest>;
        guest(name: &str) -> Guest;
        virtual_clusters() -> List<VirtualCluster>;
        buckets() -> List<BucketRun>;
        bucket(number: u16) -> BucketRun;
        changes() -> List<Change>;
        change(name: &str) -> Change;
        counters() -> Counters;
        ledger() -> Ledger;
        site() -> Site;
        put_site(text: &str) -> Accepted;
        order(order: &Order) -> Accepted;
        call_back(change: &str) -> Accepted;
    }

    fn run<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Unreachable {
                socket: self.client.socket.clone(),
                source,
            })?
            .block_on(answer)
    }
}
