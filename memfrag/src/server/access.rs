//! Who may ask for what: `Host`, `Origin` and token of a request.
//!
//! A page of another site that the user visits can send requests here, and by rebinding its name even under that
//! site's own name. `Host` tells under which name we were asked, `Origin` by whose page; neither can be forged by a
//! page. The token keeps other users of the machine out.

use super::token::Token;
use warp::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "memfrag.v1";
/// What the token follows among the subprotocols.
const BEARER: &str = "bearer.";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request was meant for another host.
    #[error("this server does not answer to that Host; memfrag's --allow-host adds names")]
    Misdirected,
    /// The token is missing or wrong.
    #[error("the token is missing or wrong; open the address that memfrag printed when it started")]
    Unauthorized,
    /// The request comes from another site's page.
    #[error("requests from other origins are not answered")]
    Forbidden,
    /// A WebSocket without memfrag's subprotocol.
    #[error("the subprotocol memfrag.v1 is missing")]
    Subprotocol,
}

/// What is let in.
#[derive(Clone, Debug)]
pub struct Access {
    hosts: Vec<String>,
    token: Token,
}

impl Access {
    /// For a server on `port`, that was told to listen on `address` if that is no loopback one, and to answer to
    /// `more` names. A name without a port is answered to with this port and with none.
    pub fn new(port: u16, address: Option<std::net::IpAddr>, more: &[String], token: Token) -> Self {
        let mut hosts = Vec::new();
        let mut add = |name: &str| {
            hosts.push(format!("{name}:{port}"));
            // Browsers leave the port of http out.
            if port == 80 {
                hosts.push(name.to_owned());
            }
        };
        for name in ["127.0.0.1", "[::1]", "localhost"] {
            add(name);
        }
        match address {
            Some(address) if address.is_unspecified() => {}
            Some(std::net::IpAddr::V4(address)) => add(&address.to_string()),
            Some(std::net::IpAddr::V6(address)) => add(&format!("[{address}]")),
            None => {}
        }
        for name in more {
            let name = name.to_ascii_lowercase();
            if !has_port(&name) {
                hosts.push(format!("{name}:{port}"));
            }
            hosts.push(name);
        }
        Self { hosts, token }
    }

    /// Every request: it names one host, and one that this server answers to. The host is returned.
    ///
    /// # Errors
    /// [`Refusal::Misdirected`].
    pub fn host(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let host = single(headers, &HOST).ok().flatten().ok_or(Refusal::Misdirected)?;
        let host = host.to_ascii_lowercase();
        self.hosts.contains(&host).then_some(host).ok_or(Refusal::Misdirected)
    }

    /// Everything below `/api/`: the token in `Authorization`.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`].
    pub fn bearer(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let value = single(headers, &AUTHORIZATION).ok().flatten().ok_or(Refusal::Unauthorized)?;
        let (scheme, token) = value.split_once(' ').ok_or(Refusal::Unauthorized)?;
        let is_it = scheme.eq_ignore_ascii_case("bearer") && self.token.is(token.as_bytes());
        is_it.then_some(()).ok_or(Refusal::Unauthorized)
    }

    /// The upgrade: the token among the subprotocols, as browsers can send it, or in `Authorization`. Tells whether
    /// the answer must name [`SUBPROTOCOL`].
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`]; [`Refusal::Subprotocol`] when subprotocols are offered and ours is not among them.
    pub fn socket(&self, headers: &HeaderMap) -> Result<bool, Refusal> {
        let offered: Vec<&[u8]> = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .collect();
        let mut tokens = offered.iter().filter_map(|offer| offer.strip_prefix(BEARER.as_bytes()));
        // Only the first counts: a request is one try.
        if !tokens.next().is_some_and(|token| self.token.is(token)) {
            self.bearer(headers)?;
        }
        if offered.is_empty() {
            return Ok(false);
        }
        offered.contains(&SUBPROTOCOL.as_bytes()).then_some(true).ok_or(Refusal::Subprotocol)
    }

    /// The upgrade and `POST`: the page that asks is our own. Programs other than browsers send no `Origin`.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn origin(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
        let Some(origin) = single(headers, &ORIGIN).map_err(|Ambiguous| Refusal::Forbidden)? else { return Ok(()) };
        let asked_by = origin.strip_prefix("http://");
        asked_by.is_some_and(|name| name.eq_ignore_ascii_case(host)).then_some(()).ok_or(Refusal::Forbidden)
    }
}

/// A header that came several times, or is no text.
struct Ambiguous;

/// The value of a header, if it came.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Ambiguous> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    match (first.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(Ambiguous),
    }
}

/// Whether a host is written with a port.
fn has_port(host: &str) -> bool {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    behind.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp::http::HeaderValue;

    fn access() -> (Access, String) {
        let token = Token::new().unwrap();
        let text = token.reveal().to_owned();
        (Access::new(7170, None, &["Box.example".into(), "tunnel:9000".into(), "[fe80::1]".into()], token), text)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn hosts_are_answered_to_by_name_and_port() {
        let (access, _) = access();
        let known = [
            "127.0.0.1:7170",
            "[::1]:7170",
            "localhost:7170",
            "LocalHost:7170",
            "box.example",
            "box.example:7170",
            "tunnel:9000",
            "[fe80::1]:7170",
        ];
        for host in known {
            assert_eq!(access.host(&headers(&[("host", host)])), Ok(host.to_ascii_lowercase()), "{host}");
        }
        let strange = [
            "127.0.0.1",
            "localhost",
            "127.0.0.1:7171",
            "localhost:80",
            "evil.example",
            "evil.example:7170",
            "localhost.evil.example:7170",
            "127.0.0.1:7170.evil.example",
            "127.0.0.2:7170",
            "localhost.:7170",
            "0.0.0.0:7170",
            "[::]:7170",
            "tunnel",
            "tunnel:7170",
            "user@localhost:7170",
            " localhost:7170",
            "",
            "127.0.0.1:7170, 127.0.0.1:7170",
            "\u{ff}",
        ];
        for host in strange {
            assert_eq!(access.host(&headers(&[("host", host)])), Err(Refusal::Misdirected), "{host}");
        }
        assert_eq!(access.host(&headers(&[])), Err(Refusal::Misdirected));
        let twice = headers(&[("host", "127.0.0.1:7170"), ("host", "127.0.0.1:7170")]);
        assert_eq!(access.host(&twice), Err(Refusal::Misdirected));
    }

    #[test]
    fn an_address_that_was_asked_for_is_a_host() {
        let access = |address: &str| Access::new(80, address.parse().ok(), &[], Token::new().unwrap());
        assert!(access("192.0.2.7").host(&headers(&[("host", "192.0.2.7")])).is_ok());
        assert!(access("2001:db8::7").host(&headers(&[("host", "[2001:db8::7]:80")])).is_ok());
        assert!(access("0.0.0.0").host(&headers(&[("host", "0.0.0.0:80")])).is_err());
        assert!(access("::").host(&headers(&[("host", "[::]:80")])).is_err());
    }

    #[test]
    fn tokens_are_taken_from_authorization() {
        let (access, token) = access();
        for value in [format!("Bearer {token}"), format!("bearer {token}")] {
            assert_eq!(access.bearer(&headers(&[("authorization", &value)])), Ok(()));
        }
        let other = Token::new().unwrap();
        let wrong = [
            token.clone(),
            format!("Bearer {}", other.reveal()),
            format!("Bearer {token}0"),
            format!("Bearer  {token}"),
            format!("Basic {token}"),
            "Bearer".into(),
            "Bearer ".into(),
        ];
        for value in wrong {
            assert_eq!(access.bearer(&headers(&[("authorization", &value)])), Err(Refusal::Unauthorized), "{value}");
        }
        assert_eq!(access.bearer(&headers(&[])), Err(Refusal::Unauthorized));
        assert_eq!(access.bearer(&headers(&[("cookie", &token)])), Err(Refusal::Unauthorized));
    }

    #[test]
    fn sockets_take_the_token_among_the_subprotocols() {
        let (access, token) = access();
        let offer = |value: &str| access.socket(&headers(&[("sec-websocket-protocol", value)]));
        assert_eq!(offer(&format!("memfrag.v1, bearer.{token}")), Ok(true));
        assert_eq!(offer(&format!("bearer.{token},memfrag.v1")), Ok(true));
        assert_eq!(offer(&format!("bearer.{token}")), Err(Refusal::Subprotocol));
        assert_eq!(offer("memfrag.v1"), Err(Refusal::Unauthorized));
        assert_eq!(offer(&format!("memfrag.v1, {token}")), Err(Refusal::Unauthorized));
        let other = Token::new().unwrap();
        assert_eq!(offer(&format!("memfrag.v1, bearer.{}", other.reveal())), Err(Refusal::Unauthorized));
        // No guessing of many at once.
        let many = format!("memfrag.v1, bearer.{}, bearer.{token}", other.reveal());
        assert_eq!(offer(&many), Err(Refusal::Unauthorized));
        let value = format!("Bearer {token}");
        assert_eq!(access.socket(&headers(&[("authorization", &value)])), Ok(false));
        let both = [("authorization", value.as_str()), ("sec-websocket-protocol", "memfrag.v1")];
        assert_eq!(access.socket(&headers(&both)), Ok(true));
        let split = [("sec-websocket-protocol", "memfrag.v1"), ("sec-websocket-protocol", &format!("bearer.{token}"))];
        assert_eq!(access.socket(&headers(&split)), Ok(true));
    }

    #[test]
    fn only_our_own_pages_may_change_anything() {
        let from = |origin: &str| Access::origin(&headers(&[("origin", origin)]), "127.0.0.1:7170");
        assert_eq!(from("http://127.0.0.1:7170"), Ok(()));
        assert_eq!(Access::origin(&headers(&[]), "127.0.0.1:7170"), Ok(()));
        let others = [
            "http://127.0.0.1:7171",
            "http://127.0.0.1",
            "https://127.0.0.1:7170",
            "http://localhost:7170",
            "http://evil.example",
            "http://127.0.0.1:7170.evil.example",
            "http://127.0.0.1:7170/",
            "null",
            "",
        ];
        for origin in others {
            assert_eq!(from(origin), Err(Refusal::Forbidden), "{origin}");
        }
        let twice = headers(&[("origin", "http://127.0.0.1:7170"), ("origin", "http://127.0.0.1:7170")]);
        assert_eq!(Access::origin(&twice, "127.0.0.1:7170"), Err(Refusal::Forbidden));
    }
}
