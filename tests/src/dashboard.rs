//! A client of the dashboard's server, over real sockets.

use crate::process::{Ended, Running, until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use tungstenite::http::Request;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{HandshakeError, Message, WebSocket};

/// How long the server may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// A memfrag that serves.
#[derive(Debug)]
pub struct Dashboard {
    running: Running,
    /// Its address and port.
    pub host: String,
    /// What opens it.
    pub token: String,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The lines before the body.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<TcpStream>,
}

/// What a binary frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The view that it is of.
    pub view: u16,
    /// Its number.
    pub seq: u32,
    /// The time of the cursor.
    pub at_ns: u64,
    /// Tiles in it.
    pub tiles: u32,
    /// Bytes of it.
    pub bytes: usize,
}

impl Frame {
    fn read(bytes: &[u8]) -> Option<Self> {
        let part = |from: usize, to: usize| bytes.get(from..to);
        (bytes.first() == Some(&1)).then_some(())?;
        Some(Self {
            view: u16::from_le_bytes(part(2, 4)?.try_into().ok()?),
            seq: u32::from_le_bytes(part(4, 8)?.try_into().ok()?),
            at_ns: u64::from_le_bytes(part(8, 16)?.try_into().ok()?),
            tiles: u32::from_le_bytes(part(16, 20)?.try_into().ok()?),
            bytes: bytes.len(),
        })
    }
}

impl Dashboard {
    /// Starts a memfrag that serves, and waits until it says where.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut running = Running::start(command)?;
        let mut url = None;
        until("memfrag says where the dashboard is", LIMIT, || {
            let said = running.stderr()?;
            url = said.lines().find_map(|line| Some(line.split_once("dashboard at http://")?.1.to_owned()));
            ensure!(url.is_some() || running.alive()?, "it ended:\n{said}");
            Ok(url.is_some())
        })?;
        let url = url.context("no address")?;
        let (host, token) = url.split_once("/#token=").context("no token in the address")?;
        Ok(Self { host: host.to_owned(), token: token.trim().to_owned(), running })
    }

    /// The process.
    pub fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Result<Ended> {
        self.running.signal(libc::SIGINT)?;
        self.running.wait(LIMIT)
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<Ended> {
        self.running.wait(LIMIT)
    }

    /// Sends a request with the token and waits for the answer.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let token = &self.token;
        let bearer = format!("Authorization: Bearer {token}\r\n");
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{bearer}", self.host), body)
    }

    /// Sends a request whose first lines are given, with a body, and waits for the answer.
    pub fn raw(&self, head: &str, body: &[u8]) -> Result<Answer> {
        let mut stream = self.connection()?;
        write!(stream, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no answer")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok(Answer { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// A plain connection.
    pub fn connection(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Connects a WebSocket; the error is the status of a refusal.
    pub fn try_connect(&self) -> Result<Result<Client, u16>> {
        let request = Request::builder()
            .uri(format!("ws://{}/api/socket", self.host))
            .header("host", &self.host)
            .header("origin", format!("http://{}", self.host))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key())
            .header("sec-websocket-protocol", format!("memfrag.v1, bearer.{}", self.token))
            .body(())?;
        let config = WebSocketConfig::default();
        match tungstenite::client::client_with_config(request, self.connection()?, Some(config)) {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                ensure!(protocol.is_some_and(|name| name == "memfrag.v1"), "the subprotocol is {protocol:?}");
                Ok(Ok(Client { socket }))
            }
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => Ok(Err(answer.status().as_u16())),
            Err(error) => bail!("the handshake failed: {error}"),
        }
    }

    /// Connects, and reads the greeting, which is returned.
    pub fn connect(&self) -> Result<(Client, Value)> {
        let mut client = self.try_connect()?.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
        let hello = client.message()?;
        ensure!(hello["type"] == "hello" && hello["protocol"] == 1, "the greeting is {hello}");
        Ok((client, hello))
    }
}

impl Client {
    /// Says something.
    pub fn say(&mut self, message: &Value) -> Result<()> {
        self.send(Message::text(message.to_string()))
    }

    /// Sends anything.
    pub fn send(&mut self, message: Message) -> Result<()> {
        Ok(self.socket.send(message)?)
    }

    /// The next message of any kind.
    pub fn receive(&mut self) -> Result<Message> {
        Ok(self.socket.read()?)
    }

    /// The next text.
    pub fn message(&mut self) -> Result<Value> {
        loop {
            match self.receive()? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The next text of a type for which a condition holds.
    pub fn wait(&mut self, kind: &str, what: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        let mut last = Value::Null;
        while begun.elapsed() < LIMIT {
            let message = self.message()?;
            if message["type"] == kind && what(&message) {
                return Ok(message);
            }
            if message["type"] == kind || message["type"] == "error" {
                last = message;
            }
        }
        bail!("waited in vain for {kind}; the last was {last}")
    }

    /// The next frame of the map that comes within a time.
    pub fn frame(&mut self, within: Duration) -> Result<Option<Frame>> {
        let until = Instant::now() + within;
        // Status messages come often enough for looking at the clock.
        while Instant::now() < until {
            match self.receive()? {
                Message::Binary(bytes) => return Frame::read(&bytes).map(Some).context("a frame of no known form"),
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, id: u64, kind: &str, parameters: Value) -> Result<Value> {
        let mut query = json!({ "type": "query", "id": id, "kind": kind });
        if let (Some(query), Value::Object(parameters)) = (query.as_object_mut(), parameters) {
            query.extend(parameters);
        }
        self.say(&query)?;
        loop {
            let message = self.message()?;
            if message["id"] == id {
                ensure!(message["type"] == "reply", "{message}");
                return Ok(message["result"].clone());
            }
        }
    }
}
