//! Every line of the server's rules: which request gets which answer.

use super::*;
use crate::recording::{Header, Reader, Writer};
use crate::server::source::Source;
use crate::server::token::Token;
use bytes::Bytes;
use std::io::Read;
use std::path::Path;
use warp::http::Response;
use warp::test::RequestBuilder;

const HOST: &str = "127.0.0.1:7170";

/// A server on a small recording, and its token.
fn server(import_bytes: u64) -> (Arc<Server>, String, watch::Sender<bool>) {
    let token = Token::new().unwrap();
    let text = token.reveal().to_owned();
    let access = Access::new(7170, None, &["tunnel.example".into()], token);
    let (stop, ending) = watch::channel(false);
    let sources = Arc::new(Sources::new(Source::new(recording(), "first.mfrag".into()).unwrap()));
    (Arc::new(Server::new(access, sources, import_bytes, ending)), text, stop)
}

fn recording() -> std::fs::File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.mfrag");
    let header = Header { backend: "preload".into(), hostname: "<img onerror>".into(), ..Header::default() };
    Writer::create(Path::new(&path), &header).unwrap().finish(17, None).unwrap();
    std::fs::File::open(path).unwrap()
}

fn content() -> Vec<u8> {
    let mut bytes = Vec::new();
    recording().read_to_end(&mut bytes).unwrap();
    bytes
}

struct Case {
    server: Arc<Server>,
    token: String,
    _stop: watch::Sender<bool>,
}

impl Case {
    fn new() -> Self {
        Self::with_limit(limits::IMPORT_BYTES)
    }

    fn with_limit(import_bytes: u64) -> Self {
        let (server, token, stop) = server(import_bytes);
        Self { server, token, _stop: stop }
    }

    async fn answer(&self, request: RequestBuilder) -> Response<Bytes> {
        request.reply(&routes(&self.server)).await
    }

    /// A request that has all it needs.
    fn proper(&self, method: &str, path: &str) -> RequestBuilder {
        let bearer = format!("Bearer {}", self.token);
        warp::test::request().method(method).path(path).header("host", HOST).header("authorization", bearer)
    }

    fn offer(&self) -> String {
        format!("memfrag.v1, bearer.{}", self.token)
    }
}

/// The first request of a WebSocket that offers these subprotocols.
fn upgrade(protocols: &str) -> RequestBuilder {
    warp::test::request()
        .path("/api/socket")
        .header("host", HOST)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocols)
}

const EVERYTHING: [(&str, &str); 9] = [
    ("GET", "/"),
    ("GET", "/index.html"),
    ("GET", "/nothing"),
    ("GET", "/api/recording?source=0"),
    ("GET", "/api/recording?source=0&redact"),
    ("POST", "/api/import"),
    ("DELETE", "/api/recording?source=1"),
    ("GET", "/api/socket"),
    ("GET", "/api/nothing"),
];

#[tokio::test]
async fn no_request_under_a_strange_host_is_answered() {
    let case = Case::new();
    for (method, path) in EVERYTHING {
        for host in ["evil.example", "evil.example:7170", "127.0.0.1", "localhost:80", "127.0.0.1:7171", "a:b:c", ""] {
            let bearer = format!("Bearer {}", case.token);
            let request = warp::test::request().method(method).path(path).header("authorization", bearer);
            let answer = case.answer(request.header("host", host)).await;
            assert_eq!(answer.status(), 421, "{method} {path} of {host}");
        }
        let answer = case.answer(warp::test::request().method(method).path(path)).await;
        assert_eq!(answer.status(), 421, "{method} {path} without a host");
        // What the URI says must not be another host than the header.
        let path = format!("http://evil.example:7170{path}");
        assert_eq!(case.answer(case.proper(method, &path)).await.status(), 421, "{path}");
    }
    for host in ["localhost:7170", "[::1]:7170", "tunnel.example", "tunnel.example:7170", "LOCALHOST:7170"] {
        let answer = case.answer(warp::test::request().path("/").header("host", host)).await;
        assert_eq!(answer.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn nothing_below_api_is_answered_without_the_token() {
    let case = Case::new();
    let other = Token::new().unwrap();
    let wrong = [String::new(), "Bearer".into(), "Bearer 0".into(), format!("Bearer {}", other.reveal())];
    for (method, path) in EVERYTHING.into_iter().filter(|(_, path)| path.starts_with("/api/")) {
        let plain = || warp::test::request().method(method).path(path).header("host", HOST);
        assert_eq!(case.answer(plain()).await.status(), 401, "{method} {path}");
        for value in &wrong {
            let answer = case.answer(plain().header("authorization", value)).await;
            assert_eq!(answer.status(), 401, "{method} {path} with {value:?}");
        }
        // Cookies and parameters are sent by other pages, too.
        let cookie = plain().header("cookie", format!("token={}", case.token));
        assert_eq!(case.answer(cookie).await.status(), 401, "{method} {path} with a cookie");
        let query = format!("{path}{}token={}", if path.contains('?') { '&' } else { '?' }, case.token);
        let query = warp::test::request().method(method).path(&query).header("host", HOST);
        assert_eq!(case.answer(query).await.status(), 401, "{method} {path} with a parameter");
    }
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=0")).await.status(), 200);
    assert_eq!(case.answer(case.proper("GET", "/api/nothing")).await.status(), 404);
}

#[tokio::test]
async fn the_page_needs_no_token_and_holds_none() {
    let case = Case::new();
    for path in ["/", "/index.html", "/app.js", "/worker.js", "/style.css"] {
        let answer = case.answer(warp::test::request().path(path).header("host", HOST)).await;
        assert_eq!(answer.status(), 200, "{path}");
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(!text.contains(&case.token), "{path}");
        assert!(!answer.headers().values().any(|value| value.as_bytes() == case.token.as_bytes()));
    }
    let answer = case.answer(warp::test::request().method("HEAD").path("/").header("host", HOST)).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn other_origins_can_neither_connect_nor_import() {
    let case = Case::new();
    let others = [
        "http://evil.example",
        "http://127.0.0.1:7171",
        "http://127.0.0.1",
        "https://127.0.0.1:7170",
        "http://localhost:7170",
        "null",
        "file://",
    ];
    for origin in others {
        let answer = case.answer(upgrade(&case.offer()).header("origin", origin)).await;
        assert_eq!(answer.status(), 403, "upgrade from {origin}");
        let answer = case.answer(case.proper("POST", "/api/import").header("origin", origin).body(content())).await;
        assert_eq!(answer.status(), 403, "import from {origin}");
    }
    let own = format!("http://{HOST}");
    assert_eq!(case.answer(upgrade(&case.offer()).header("origin", &own)).await.status(), 101);
    let import = case.proper("POST", "/api/import").header("origin", &own).body(content());
    assert_eq!(case.answer(import).await.status(), 200);
    // Programs that are no browsers send none, and have the token.
    assert_eq!(case.answer(upgrade(&case.offer())).await.status(), 101);
}

#[tokio::test]
async fn an_upgrade_names_the_one_protocol_and_never_the_token() {
    let case = Case::new();
    let answer = case.answer(upgrade(&case.offer())).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "memfrag.v1");
    let other = Token::new().unwrap();
    let refused = [
        ("memfrag.v1".to_owned(), 401),
        (format!("memfrag.v1, bearer.{}", other.reveal()), 401),
        (format!("memfrag.v2, bearer.{}", case.token), 400),
        (format!("bearer.{}", case.token), 400),
    ];
    for (protocols, status) in refused {
        let answer = case.answer(upgrade(&protocols)).await;
        assert_eq!(answer.status(), status, "{protocols}");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }
    // Without an upgrade.
    let plain = case.proper("GET", "/api/socket");
    assert_eq!(case.answer(plain).await.status(), 400);
}

#[tokio::test]
async fn every_answer_forbids_the_browser_what_it_can() {
    let case = Case::new();
    let mut answers = Vec::new();
    for (method, path) in EVERYTHING {
        answers.push(case.answer(case.proper(method, path)).await);
        answers.push(case.answer(warp::test::request().method(method).path(path).header("host", HOST)).await);
        answers.push(case.answer(warp::test::request().method(method).path(path).header("host", "evil")).await);
        answers.push(case.answer(warp::test::request().method("OPTIONS").path(path).header("host", HOST)).await);
    }
    answers.push(case.answer(upgrade(&case.offer())).await);
    for answer in answers {
        let header = |name: &str| {
            let mut values = answer.headers().get_all(name).iter();
            let first = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert!(values.next().is_none(), "{name} twice");
            first
        };
        let policy = header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types memfrag",
        ] {
            assert!(policy.split("; ").any(|found| found == rule), "{rule} in {policy:?}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(header("cache-control"), "no-store");
        // No other site is let in.
        assert!(!answer.headers().keys().any(|name| name.as_str().starts_with("access-control-")));
    }
}

#[tokio::test]
async fn only_the_named_files_are_served() {
    let case = Case::new();
    for path in ["/../Cargo.toml", "/src/main.tsx", "/%2e%2e/index.html", "/index.html/", "//", "/api", "/.git/config"]
    {
        let answer = case.answer(warp::test::request().path(path).header("host", HOST)).await;
        assert_eq!(answer.status(), 404, "{path}");
    }
    for (method, path) in [("POST", "/"), ("DELETE", "/index.html"), ("OPTIONS", "/")] {
        let answer = case.answer(warp::test::request().method(method).path(path).header("host", HOST)).await;
        assert_eq!(answer.status(), 405, "{method} {path}");
    }
    for (method, path) in [("POST", "/api/recording?source=0"), ("GET", "/api/import"), ("PUT", "/api/import")] {
        assert_eq!(case.answer(case.proper(method, path)).await.status(), 405, "{method} {path}");
    }
}

#[tokio::test]
async fn recordings_go_out_and_come_in_unchanged() {
    let case = Case::new();
    let answer = case.answer(case.proper("GET", "/api/recording?source=0")).await;
    assert_eq!(answer.body(), &content());
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"first.mfrag\"");
    let import = case.proper("POST", "/api/import").header("content-disposition", "attachment; filename=\"../x\"");
    let answer = case.answer(import.body(answer.body())).await;
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"{\"source\":1}"[..]));
    let again = case.answer(case.proper("GET", "/api/recording?source=1")).await;
    assert_eq!(again.body(), &content());
    assert_eq!(again.headers()["content-disposition"], "attachment; filename=\"_x.mfrag\"");
    for query in ["", "?source=", "?source=x", "?source=-1", "?source=0&x=1", "?source=../0", "?file=/etc/passwd"] {
        let answer = case.answer(case.proper("GET", &format!("/api/recording{query}"))).await;
        assert_eq!(answer.status(), 400, "{query}");
    }
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=2")).await.status(), 404);
}

#[tokio::test]
async fn a_redacted_copy_goes_out_and_the_recording_stays() {
    let case = Case::new();
    let answer = case.answer(case.proper("GET", "/api/recording?source=0&redact")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"redacted.mfrag\"");
    assert_eq!(answer.headers()["content-length"], answer.body().len().to_string().as_str());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.mfrag");
    std::fs::write(&copy, answer.body()).unwrap();
    let copy = Reader::open(&copy).unwrap();
    assert_eq!((copy.header().hostname.as_str(), copy.header().backend.as_str()), ("", "preload"));
    assert_eq!(copy.end().map(|end| end.time), Some(17));
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=0")).await.body(), &content());
    let taken = case.server.copies.take().unwrap();
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=0&redact")).await.status(), 503);
    drop(taken);
    for query in ["?source=1&redact", "?source=0&redact=x", "?redact&source=0", "?source=&redact"] {
        let answer = case.answer(case.proper("GET", &format!("/api/recording{query}"))).await;
        assert_eq!(answer.status(), if query == "?source=1&redact" { 404 } else { 400 }, "{query}");
    }
}

#[tokio::test]
async fn what_is_no_recording_is_refused_and_said() {
    let case = Case::new();
    for body in [b"".to_vec(), b"\x7fELF".to_vec(), b"<img src=x onerror=alert(1)>".to_vec(), vec![0; 100_000]] {
        let answer = case.answer(case.proper("POST", "/api/import").body(body)).await;
        assert_eq!(answer.status(), 422);
        let error: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
    assert_eq!(case.server.sources.about().len(), 1);
}

#[tokio::test]
async fn damaged_recordings_are_taken_as_far_as_they_go() {
    let case = Case::new();
    let whole = content();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x5a;
        let status = case.answer(case.proper("POST", "/api/import").body(damaged)).await.status();
        assert!(matches!(status.as_u16(), 200 | 422 | 503), "{status} at {at}");
    }
}

#[tokio::test]
async fn imports_have_a_largest_size() {
    let whole = content();
    let case = Case::with_limit(whole.len() as u64);
    assert_eq!(case.answer(case.proper("POST", "/api/import").body(&whole)).await.status(), 200);
    let case = Case::with_limit(whole.len() as u64 - 1);
    let answer = case.answer(case.proper("POST", "/api/import").body(&whole)).await;
    assert_eq!(answer.status(), 413);
    // Refused by its announcement, before anything comes.
    let announced = case.proper("POST", "/api/import").header("content-length", "99999999999");
    assert_eq!(case.answer(announced).await.status(), 413);
}

#[tokio::test]
async fn imports_have_a_largest_number() {
    let case = Case::new();
    for _ in 0..limits::IMPORTS {
        assert_eq!(case.answer(case.proper("POST", "/api/import").body(content())).await.status(), 200);
    }
    assert_eq!(case.answer(case.proper("POST", "/api/import").body(content())).await.status(), 503);
    assert_eq!(case.server.sources.about().len(), limits::IMPORTS + 1);
}

#[tokio::test]
async fn imports_can_be_removed_and_their_numbers_never_come_again() {
    let case = Case::new();
    for _ in 0..limits::IMPORTS {
        assert_eq!(case.answer(case.proper("POST", "/api/import").body(content())).await.status(), 200);
    }
    let foreign = case.proper("DELETE", "/api/recording?source=2").header("origin", "http://127.0.0.1:1");
    assert_eq!(case.answer(foreign).await.status(), 403);
    for (source, status) in [("2", 200), ("2", 404), ("99", 404), ("0", 400), ("", 400), ("18446744073709551615", 404)]
    {
        let answer = case.answer(case.proper("DELETE", &format!("/api/recording?source={source}"))).await;
        assert_eq!(answer.status(), status, "{source}");
    }
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=2")).await.status(), 404);
    assert_eq!(case.answer(case.proper("GET", "/api/recording?source=3")).await.status(), 200);
    let answer = case.answer(case.proper("POST", "/api/import").body(content())).await;
    assert_eq!(answer.body(), &format!("{{\"source\":{}}}", limits::IMPORTS + 1));
    assert_eq!(case.answer(case.proper("POST", "/api/import").body(content())).await.status(), 503);
}

#[tokio::test]
async fn eight_clients_are_served_and_no_more() {
    let case = Case::new();
    let places: Vec<_> = (0..limits::CLIENTS).map(|_| case.server.clients.take().unwrap()).collect();
    assert_eq!(case.answer(upgrade(&case.offer())).await.status(), 503);
    drop(places);
    assert_eq!(case.answer(upgrade(&case.offer())).await.status(), 101);
}

#[tokio::test]
async fn upgrades_have_a_rate() {
    let case = Case::new();
    let mut refused = 0;
    for _ in 0..limits::UPGRADE_BURST + 8 {
        refused += u32::from(case.answer(upgrade(&case.offer())).await.status() == 429);
    }
    assert!((7..=8).contains(&refused), "{refused} were refused");
    // Those without the token do not use the rate up.
    let case = Case::new();
    for _ in 0..100 {
        assert_eq!(case.answer(upgrade("memfrag.v1")).await.status(), 401);
    }
    assert_eq!(case.answer(upgrade(&case.offer())).await.status(), 101);
}
