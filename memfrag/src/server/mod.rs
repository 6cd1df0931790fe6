//! The dashboard: a page, and the recordings that it shows.
//!
//! What is here serves and knows no rights: [`privilege`] gives them up before anything is read from a recording or
//! from the network.
//!
//! | module | job |
//! |---|---|
//! | [`listen`] | where the server listens |
//! | [`privilege`] | giving up all rights |
//! | [`token`], [`access`], [`link`] | who is let in, and how users learn it |
//! | [`http`] | requests and answers |
//! | [`assets`] | the page's files |
//! | [`download`], [`import`] | recordings out and in |
//! | [`socket`], [`session`], [`watching`] | a client's connection, the client, and what it watches |
//! | [`map`] | what a client shows of the heap's map, and how fast it draws |
//! | [`ranges`] | the address ranges that it is told of |
//! | `asking` | its queries |
//! | [`modelling`] | a policy beside the heap that it watches |
//! | [`protocol`] | the messages of `docs/PROTOCOL.md` |
//! | [`sources`] | the recordings |
//! | [`source`] | one of them, whether it grows or not |
//! | [`player`] | a place in a recording that moves, and the heaps there |
//! | [`place`], [`states`], `coming` | what a player stands on, what it can go back to, what it goes on from |
//! | [`stage`] | a player that a thread moves and that many watch |
//! | [`tiles`] | the map of a heap: what pages see of it, and what they were sent |
//! | [`limits`] | how much of everything a client may have |
//! | [`queries`] | what the page may ask about a state |

pub mod access;
mod asking;
pub mod assets;
mod coming;
pub mod download;
pub mod http;
pub mod import;
pub mod limits;
pub mod link;
pub mod listen;
mod losses;
pub mod map;
pub mod modelling;
pub mod place;
pub mod player;
pub mod privilege;
pub mod protocol;
pub mod queries;
pub mod ranges;
pub mod session;
pub mod socket;
pub mod source;
pub mod sources;
pub mod stage;
pub mod states;
pub mod tiles;
pub mod token;
pub mod watching;

use access::Access;
use http::Server;
use sources::Sources;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use token::Token;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Threads that talk to the network. What takes long has threads of its own.
const THREADS: usize = 2;
/// How long clients have to hear that the server ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// How the server serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port of the sockets.
    pub port: u16,
    /// The address that the server was told to listen on, if others can reach it.
    pub exposed: Option<IpAddr>,
    /// Names that it answers to beside those of this machine.
    pub allow_hosts: Vec<String>,
    /// Largest recording that may be imported.
    pub import_bytes: u64,
    /// What lets clients in.
    pub token: Token,
}

/// Serves on sockets that listen, until `ending` turns true or its sender has gone.
///
/// # Errors
/// When the system has no threads or cannot take the sockets.
pub fn run(
    sockets: Vec<std::net::TcpListener>,
    sources: Sources,
    options: Options,
    mut ending: watch::Receiver<bool>,
) -> io::Result<()> {
    // Read from now on, and kept while nobody watches, so that the first page need not wait.
    let _first = sources.stage(0).transpose()?;
    let access = Access::new(options.port, options.exposed, &options.allow_hosts, options.token);
    let (stop, stopping) = watch::channel(false);
    let server = Arc::new(Server::new(access, Arc::new(sources), options.import_bytes, stopping));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("memfrag-serve")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let connections = limits::Places::new(limits::CONNECTIONS);
        for socket in sockets {
            let listener = TcpListener::from_std(socket)?;
            tokio::spawn(http::listen(listener, Arc::clone(&server), connections.clone()));
        }
        // An error means that nobody is left who could end it, which is an end as well.
        let _ = ending.wait_for(|&ending| ending).await;
        let _ = stop.send(true);
        let gone = async {
            while server.clients.taken() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, gone).await;
        io::Result::Ok(())
    })?;
    runtime.shutdown_background();
    Ok(())
}
