//! Where the server listens: on this machine alone, unless told otherwise in so many words.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

/// The port that is tried first where none is asked for.
pub const PORT: u16 = 7170;
/// How many ports behind it are tried when it is taken.
const TRIES: u16 = 32;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: both loopback addresses.
    pub address: Option<IpAddr>,
    /// `None`: [`PORT`] or one of the next; 0: the kernel chooses.
    pub port: Option<u16>,
}

impl FromStr for Wanted {
    type Err = String;

    /// `PORT`, `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`; the address may be `localhost`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(Self { address: None, port: Some(port) });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { address: Some(address.ip()), port: Some(address.port()) });
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self { address: Some(address), port: None });
        }
        let port = match text.strip_prefix("localhost") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()).map(Some),
            None => None,
        };
        let port = port.ok_or_else(|| format!("{text:?} is no address; use PORT, 127.0.0.1:PORT or [::1]:PORT"))?;
        Ok(Self { address: None, port })
    }
}

/// Sockets that listen.
#[derive(Debug)]
pub struct Listening {
    /// One or two, not blocking.
    pub sockets: Vec<TcpListener>,
    /// The port of all of them.
    pub port: u16,
    /// The address that was asked for, if it is none of this machine alone.
    pub exposed: Option<IpAddr>,
    /// The address that the URL names.
    address: IpAddr,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {hint}")]
pub struct ListenError {
    address: String,
    source: io::Error,
    hint: &'static str,
}

impl Listening {
    /// Listens as wanted.
    ///
    /// # Errors
    /// When the port is taken, or the address is none of this machine's.
    pub fn open(wanted: Wanted) -> Result<Self, ListenError> {
        let first = wanted.port.unwrap_or(PORT);
        let last = if wanted.port.is_some() { first } else { first.saturating_add(TRIES) };
        let mut port = first;
        loop {
            match Self::on(wanted.address, port) {
                Err((_, error)) if error.kind() == ErrorKind::AddrInUse && port < last => port += 1,
                Err((address, source)) => {
                    let hint = match source.kind() {
                        ErrorKind::AddrInUse => "another program does; choose another port with ADDR, such as 0",
                        ErrorKind::AddrNotAvailable => "the address is none of this machine's",
                        ErrorKind::PermissionDenied => "ports below 1024 are root's",
                        _ => "choose another address",
                    };
                    return Err(ListenError { address: address.to_string(), source, hint });
                }
                Ok(listening) => return Ok(listening),
            }
        }
    }

    fn on(address: Option<IpAddr>, port: u16) -> Result<Self, (SocketAddr, io::Error)> {
        let bind = |address: IpAddr, port: u16| {
            let address = SocketAddr::new(address, port);
            let listen = || {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok((socket.local_addr()?.port(), socket))
            };
            listen().map_err(|error| (address, error))
        };
        if let Some(address) = address {
            let (port, socket) = bind(address, port)?;
            let exposed = Some(address).filter(|address| !address.is_loopback());
            return Ok(Self { sockets: vec![socket], port, exposed, address });
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // A port that the kernel chooses for one address may be taken on the other.
        let mut tries = if port == 0 { TRIES } else { 0 };
        loop {
            let (chosen, socket) = bind(loopback, port)?;
            let mut sockets = vec![socket];
            match bind(IpAddr::V6(Ipv6Addr::LOCALHOST), chosen) {
                Ok((_, socket)) => sockets.push(socket),
                Err((_, error)) if error.kind() == ErrorKind::AddrInUse && tries > 0 => {
                    tries -= 1;
                    continue;
                }
                // Somebody else's server would answer to browsers that try that address first.
                Err(taken) if taken.1.kind() == ErrorKind::AddrInUse => return Err(taken),
                // A machine without IPv6.
                Err(_) => {}
            }
            return Ok(Self { sockets, port: chosen, exposed: None, address: loopback });
        }
    }

    /// The page's address, without the token.
    pub fn url(&self) -> String {
        let address = match self.address {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        format!("http://{}/", SocketAddr::new(address, self.port))
    }

    /// What the user must know about an address that others can reach.
    pub fn warning(&self) -> Option<String> {
        self.exposed.map(|address| {
            let names = if address.is_unspecified() { "; name this machine's hosts with --allow-host" } else { "" };
            format!(
                "WARNING: {address} can be reached from other machines, and what is sent there is not encrypted{names}. \
                 Safer: listen on this machine alone, and use ssh -L {port}:localhost:{port}",
                port = self.port
            )
        })
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_several_forms() {
        let both = |port| Wanted { address: None, port };
        assert_eq!("8080".parse(), Ok(both(Some(8080))));
        assert_eq!("localhost".parse(), Ok(both(None)));
        assert_eq!("localhost:0".parse(), Ok(both(Some(0))));
        let one = |address: &str, port| Wanted { address: Some(address.parse().unwrap()), port };
        assert_eq!("127.0.0.1:81".parse(), Ok(one("127.0.0.1", Some(81))));
        assert_eq!("0.0.0.0".parse(), Ok(one("0.0.0.0", None)));
        assert_eq!("[::1]:81".parse(), Ok(one("::1", Some(81))));
        assert_eq!("[::1]".parse(), Ok(one("::1", None)));
        for wrong in ["", "70000", "host.example", "localhost:x", "localhosts", ":80", "127.0.0.1:"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn by_default_nobody_else_can_reach_it() {
        let listening = Listening::open(Wanted { address: None, port: Some(0) }).unwrap();
        assert!(listening.port != 0);
        for socket in &listening.sockets {
            let address = socket.local_addr().unwrap();
            assert!(address.ip().is_loopback() && address.port() == listening.port, "{address}");
        }
        assert_eq!(listening.url(), format!("http://127.0.0.1:{}/", listening.port));
        assert_eq!(listening.warning(), None);
    }

    #[test]
    fn the_next_port_is_taken_when_the_usual_one_is_not_free() {
        let first = Listening::open(Wanted::default()).unwrap();
        let second = Listening::open(Wanted::default()).unwrap();
        assert!(second.port > first.port && second.port <= PORT + TRIES);
        // One that was asked for is not exchanged for another.
        let error = Listening::open(Wanted { address: None, port: Some(first.port) }).unwrap_err().to_string();
        assert!(error.contains(&first.port.to_string()) && error.contains("choose another port"), "{error}");
    }

    #[test]
    fn other_addresses_are_warned_of() {
        let open = |text: &str| Listening::open(text.parse().unwrap()).unwrap();
        let exposed = open("0.0.0.0:0");
        let warning = exposed.warning().unwrap();
        assert!(warning.contains("--allow-host") && warning.contains("ssh -L"), "{warning}");
        assert!(exposed.url().starts_with("http://127.0.0.1:"));
        assert_eq!(open("127.0.0.1:0").warning(), None);
    }
}
