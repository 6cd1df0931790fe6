//! A WebSocket: what comes goes to the client's thread, what that thread has to say goes out.
//!
//! Both ways are short queues. When the network is slow, the client's thread waits, and nobody else; when it takes too
//! long, the connection is ended.

use super::limits;
use super::session::Session;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use warp::ws::{Message, WebSocket};

/// Messages of a client that wait for its thread; with more, nothing is read from it.
const INBOUND: usize = 32;
/// Messages to a client that wait for the network; with more, its thread waits.
const OUTBOUND: usize = 8;

/// Why a connection ends, as a close code of RFC 6455 and a word.
type Farewell = (u16, &'static str);

/// Serves a client until it goes, or all is to end.
pub async fn run(socket: WebSocket, session: Session) {
    let (to_session, inbound) = mpsc::channel(INBOUND);
    let (to_client, outbound) = mpsc::channel(OUTBOUND);
    let mut ending = session.ending();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("memfrag-client".to_owned());
    let Ok(_) = thread.spawn(move || session.run(&runtime, inbound, to_client)) else { return };
    let (mut sink, stream) = socket.split();
    let farewell = tokio::select! {
        farewell = read(stream, to_session) => farewell,
        farewell = write(&mut sink, outbound) => farewell,
        _ = ending.wait_for(|&ending| ending) => Some((1001, "the server ends")),
    };
    let last = farewell.map_or_else(Message::close, |(code, reason)| Message::close_with(code, reason));
    let _ = timeout(limits::SEND / 5, sink.send(last)).await;
}

/// Passes messages on until the client goes or breaks the rules.
async fn read(mut stream: SplitStream<WebSocket>, to_session: mpsc::Sender<String>) -> Option<Farewell> {
    while let Some(message) = stream.next().await {
        // A broken connection, or a message larger than allowed.
        let Ok(message) = message else { return Some((1009, "broken or too large a message")) };
        if let Ok(text) = message.to_str() {
            if to_session.send(text.to_owned()).await.is_err() {
                return Some((1011, "the session has ended"));
            }
        } else if message.is_binary() {
            return Some((1003, "messages are texts"));
        } else if message.is_close() {
            return None;
        }
    }
    None
}

/// Sends until there is nothing more to say, or the client does not take it.
async fn write(sink: &mut SplitSink<WebSocket, Message>, mut outbound: mpsc::Receiver<Message>) -> Option<Farewell> {
    while let Some(message) = outbound.recv().await {
        match timeout(limits::SEND, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some((1013, "the page takes too long to read")),
        }
    }
    Some((1011, "the session has ended"))
}
