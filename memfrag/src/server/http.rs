//! The requests: which are answered, by what, and what every answer carries.

use super::access::{Access, Refusal, SUBPROTOCOL};
use super::limits::{self, Place, Places, Rate};
use super::session::Session;
use super::sources::Sources;
use super::stage::Stages;
use super::{assets, download, import, socket};
use futures_util::Stream;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::watch;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::ws::Ws;
use warp::{Buf, Filter, Rejection, Reply};

/// What all requests share.
#[derive(Debug)]
pub struct Server {
    /// Who is let in.
    pub access: Access,
    /// The recordings.
    pub sources: Arc<Sources>,
    /// Largest recording that may be imported.
    pub import_bytes: u64,
    /// The players that clients have for themselves.
    pub stages: Stages,
    /// Places of clients.
    pub clients: Places,
    /// Places of models beside heaps.
    pub models: Places,
    /// Turns true when all is to end.
    pub ending: watch::Receiver<bool>,
    upgrades: Mutex<Rate>,
    imports: Places,
    /// Redacted copies under way.
    pub(super) copies: Places,
}

impl Server {
    /// Nobody is there yet.
    pub fn new(access: Access, sources: Arc<Sources>, import_bytes: u64, ending: watch::Receiver<bool>) -> Self {
        Self {
            access,
            sources,
            import_bytes,
            stages: Stages::default(),
            clients: Places::new(limits::CLIENTS),
            models: Places::new(limits::MODELS),
            ending,
            upgrades: Mutex::new(Rate::new(limits::UPGRADE_EVERY, limits::UPGRADE_BURST)),
            imports: Places::new(limits::IMPORTS_AT_ONCE),
            copies: Places::new(limits::COPIES_AT_ONCE),
        }
    }

    /// A place for one more client.
    fn admit(&self) -> Result<Place, Problem> {
        let place = self.clients.take();
        let place = place.ok_or(Problem::Busy("eight pages are connected already, and more are not served"))?;
        let mut upgrades = self.upgrades.lock().unwrap_or_else(PoisonError::into_inner);
        upgrades.allows(Instant::now()).then_some(place).ok_or(Problem::TooOften)
    }
}

/// Why a request is not answered as it wishes.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It may not ask.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// There is nothing of that name.
    #[error("there is nothing here by that name")]
    NotFound,
    /// The method does not fit.
    #[error("that cannot be done with this")]
    Method,
    /// The request makes no sense.
    #[error("{0}")]
    Malformed(&'static str),
    /// More than is allowed.
    #[error("the recording is larger than {0} bytes, which is the most that this server takes (--import-limit)")]
    TooLarge(u64),
    /// An import that is none.
    #[error("{0}")]
    NoRecording(String),
    /// Too much is going on.
    #[error("{0}")]
    Busy(&'static str),
    /// Connections come too fast.
    #[error("connections come too fast; try again in some seconds")]
    TooOften,
    /// Something went wrong here.
    #[error("{0}")]
    Failed(String),
}

impl warp::reject::Reject for Problem {}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(Refusal::Misdirected) => StatusCode::MISDIRECTED_REQUEST,
            Self::Refused(Refusal::Unauthorized) => StatusCode::UNAUTHORIZED,
            Self::Refused(Refusal::Forbidden) => StatusCode::FORBIDDEN,
            Self::Refused(Refusal::Subprotocol) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRecording(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Reply for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let text = serde_json::json!({ "error": self.to_string() });
        warp::reply::with_status(warp::reply::json(&text), status).into_response()
    }
}

/// All that the server answers.
pub fn routes(server: &Arc<Server>) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + use<> {
    let with = {
        let server = Arc::clone(server);
        warp::any().map(move || Arc::clone(&server))
    };
    let request = with.and(warp::method()).and(warp::path::full()).and(warp::header::headers_cloned());
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let upgrade = warp::ws().map(Some).or(warp::any().map(|| None)).unify();
    // The host is looked at before anything else; what the URI says of it must not differ.
    warp::host::optional()
        .and(request)
        .and(query)
        .and(upgrade)
        .and(warp::body::stream())
        .then(
            |_, server: Arc<Server>, method, path: FullPath, headers: HeaderMap, query: String, ws, body| async move {
                let request = Request { method, path, headers, query };
                answer(server, request, ws, body).await.unwrap_or_else(Problem::into_response)
            },
        )
        .recover(|_: Rejection| async { Ok::<_, Infallible>(Problem::Refused(Refusal::Misdirected).into_response()) })
        .unify()
        .map(|mut response: Response| {
            let headers = response.headers_mut();
            for (name, value) in ALWAYS {
                headers.insert(name, HeaderValue::from_static(value));
            }
            // A connection is a request: those that lie idle would take others' places.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        })
}

/// A request without its body.
struct Request {
    method: Method,
    path: FullPath,
    headers: HeaderMap,
    query: String,
}

async fn answer<S, B>(server: Arc<Server>, request: Request, ws: Option<Ws>, body: S) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    let Request { method, path, headers, query } = request;
    let path = path.as_str();
    let host = server.access.host(&headers)?;
    if !path.starts_with("/api/") {
        if !matches!(method, Method::GET | Method::HEAD) {
            return Err(Problem::Method);
        }
        let asset = assets::find(path).ok_or(Problem::NotFound)?;
        return Ok(warp::reply::with_header(Response::new(asset.content.into()), header::CONTENT_TYPE, asset.kind)
            .into_response());
    }
    if path == "/api/socket" {
        let names_protocol = server.access.socket(&headers)?;
        Access::origin(&headers, &host)?;
        let ws = ws.ok_or(Problem::Malformed("this is a WebSocket; ask for the upgrade"))?;
        let place = server.admit()?;
        let response = upgrade(ws, Session::new(server, place)).into_response();
        return Ok(if names_protocol { named(response) } else { response });
    }
    server.access.bearer(&headers)?;
    match (path, method) {
        ("/api/recording", Method::GET) => download::recording(&server, &query).await,
        ("/api/import", Method::POST) => {
            Access::origin(&headers, &host)?;
            let _place = server.imports.take().ok_or(Problem::Busy("other recordings are being imported"))?;
            import::import(&server, &headers, body).await
        }
        ("/api/recording", Method::DELETE) => {
            Access::origin(&headers, &host)?;
            import::remove(&server, &query)
        }
        ("/api/recording" | "/api/import", _) => Err(Problem::Method),
        _ => Err(Problem::NotFound),
    }
}

fn upgrade(ws: Ws, session: Session) -> impl Reply {
    ws.max_message_size(limits::INBOUND)
        .max_frame_size(limits::INBOUND)
        .max_write_buffer_size(limits::WRITE_BUFFER)
        .on_upgrade(move |socket| socket::run(socket, session))
}

/// Browsers give up a connection whose answer does not name one of the subprotocols that they offered.
fn named(mut response: Response) -> Response {
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    response
}

/// What the page may do: load its own scripts, styles and images, and talk to us. Nothing may be put into it as markup
/// but by its one policy, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types memfrag";

/// On every answer, refusals included.
const ALWAYS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Accepts connections until all is to end.
pub async fn listen(listener: TcpListener, server: Arc<Server>, connections: Places) {
    let mut ending = server.ending.clone();
    let service = warp::service(routes(&server));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|&ending| ending) => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors or memory: others must end first. The connection itself may have gone, too.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        // One too many is closed at once.
        let Some(place) = connections.take() else { continue };
        // Frames are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        let mut ending = server.ending.clone();
        tokio::spawn(async move {
            let _place = place;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEADERS)
                .max_buf_size(limits::HEADER_BYTES.next_multiple_of(8 << 10))
                .max_headers(limits::HEADER_COUNT)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                // What a client does wrong is its own affair.
                _ = connection => {}
                _ = ending.wait_for(|&ending| ending) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests;
