//! `memfrag serve`: the dashboard of a recording.

use super::args::ServeArgs;
use anyhow::{Context, Result};
use memfrag::server::link::{self, LinkFile};
use memfrag::server::listen::Listening;
use memfrag::server::source::Source;
use memfrag::server::sources::Sources;
use memfrag::server::token::Token;
use memfrag::server::{self, Options, privilege};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &ServeArgs) -> Result<u8> {
    let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let listening = Listening::open(args.addr.unwrap_or_default())?;
    // From here on nothing needs a right, and the recording may be anybody's.
    if let Some(user) = privilege::drop_all()? {
        eprintln!("memfrag: serving as {user}, without root's rights");
    }
    let name = args.file.file_name().unwrap_or(args.file.as_os_str()).to_string_lossy().into_owned();
    let sources = Sources::new(Source::new(file, name)?);
    let stop = super::trace::on_signals()?;
    let token = Token::new().context("no random numbers for a token")?;
    let url = link::url(&listening, &token);
    let _link = write_link(listening.port, &url);
    announce(listening.warning().as_deref(), &url);
    let options = Options {
        port: listening.port,
        exposed: listening.exposed,
        allow_hosts: args.allow_host.clone(),
        import_bytes: args.import_limit,
        token,
    };
    server::run(listening.sockets, sources, options, when(stop)?).context("cannot serve")?;
    Ok(0)
}

/// Tells the user where the page is: one line, on a terminal or not.
pub(super) fn announce(warning: Option<&str>, url: &str) {
    if let Some(warning) = warning {
        eprintln!("memfrag: {warning}");
    }
    eprintln!("memfrag: dashboard at {url}");
}

/// The address for programs of the same user. Without it, the line on stderr must do.
pub(super) fn write_link(port: u16, url: &str) -> Option<LinkFile> {
    LinkFile::write(port, url).unwrap_or_else(|error| {
        eprintln!("memfrag: the address is kept in no file: {error}");
        None
    })
}

/// Turns true when the flag does.
fn when(flag: Arc<AtomicBool>) -> Result<watch::Receiver<bool>> {
    const LOOK: Duration = Duration::from_millis(20);
    let (ending, receiver) = watch::channel(false);
    std::thread::Builder::new()
        .name("memfrag-end".to_owned())
        .spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            // Nobody listens any more when the server has failed.
            let _ = ending.send(true);
        })
        .context("starting a thread")?;
    Ok(receiver)
}
