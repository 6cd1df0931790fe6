//! The dashboard of a trace: a process of its own, without rights, that follows the recording as it grows.
//!
//! The trace never waits for it. What it needs it inherits: sockets, the recording open for reading, and over a pipe
//! the token, which has no place on a command line or in an environment. The pipe's end is also its own.

use super::args::{InheritArgs, ServingArgs};
use super::serve;
use anyhow::{Context, Result, bail};
use memfrag::server::link;
use memfrag::server::listen::{Listening, Wanted};
use memfrag::server::source::Source;
use memfrag::server::sources::Sources;
use memfrag::server::token::Token;
use memfrag::server::{self, Options, privilege};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the serving process is told over its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    token: String,
    url: String,
    port: u16,
    exposed: Option<IpAddr>,
    allow_hosts: Vec<String>,
    import_bytes: u64,
    name: String,
    parent: u32,
}

/// What it says when it can be reached.
const READY: &str = "ready";
/// Of the environment it gets these: who called, and where files may go.
pub(super) const ENVIRONMENT: [&str; 5] = ["SUDO_UID", "SUDO_GID", "XDG_RUNTIME_DIR", "TMPDIR", "RUST_BACKTRACE"];
/// How often is looked whether it is still there.
const LOOK: Duration = Duration::from_millis(250);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The serving process, from the trace's side.
#[derive(Debug)]
pub(super) struct Dashboard {
    child: Child,
    /// It ends when this is closed.
    stdin: Option<ChildStdin>,
    looked: Instant,
    gone: bool,
}

impl Dashboard {
    /// Starts serving a recording, of which `file` is open for reading alone, and tells the user where.
    pub(super) fn start(wanted: Wanted, args: &ServingArgs, file: &File, name: String) -> Result<Self> {
        let listening = Listening::open(wanted)?;
        let token = Token::new().context("no random numbers for a token")?;
        let url = link::url(&listening, &token);
        let errand = Errand {
            token: token.reveal().to_owned(),
            url: url.clone(),
            port: listening.port,
            exposed: listening.exposed,
            allow_hosts: args.allow_host.clone(),
            import_bytes: args.import_limit,
            name,
            parent: std::process::id(),
        };
        let mut child = command(&listening, file).spawn().context("starting the dashboard's process")?;
        let mut stdin = child.stdin.take().context("the dashboard's process has no standard input")?;
        let mut line = serde_json::to_vec(&errand)?;
        line.push(b'\n');
        // When it has failed already it has said why, and does not say that it is ready.
        let _ = stdin.write_all(&line);
        let mut answer = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).take(64).read_line(&mut answer).context("waiting for the dashboard's process")?;
        }
        if answer.trim_end() != READY {
            let status = child.wait().context("waiting for the dashboard's process")?;
            bail!("the dashboard cannot be served ({status}); without --serve it works");
        }
        serve::announce(listening.warning().as_deref(), &url);
        Ok(Self { child, stdin: Some(stdin), looked: Instant::now(), gone: false })
    }

    /// Whether it is still there, looked at now and then; says so when it has gone.
    pub(super) fn check(&mut self) -> bool {
        if !self.gone && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if let Ok(Some(status)) = self.child.try_wait() {
                self.gone = true;
                eprintln!("memfrag: the dashboard's process has ended ({status}); the recording goes on");
            }
        }
        !self.gone
    }

    /// Keeps it up until the user has seen enough, and ends it.
    pub(super) fn stay(mut self, what: &str, stop: &AtomicBool, say: &dyn Fn(&str)) {
        if stop.load(Ordering::Relaxed) || !self.check() {
            return;
        }
        say(&format!("the {what} has ended, the dashboard stays; Ctrl-C ends it"));
        while !stop.load(Ordering::Relaxed) && self.check() {
            std::thread::sleep(LOOK / 10);
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let asked = Instant::now();
        while !self.gone && asked.elapsed() < FAREWELL {
            self.gone = !matches!(self.child.try_wait(), Ok(None));
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.gone {
            // It may have ended just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// This program again, with the sockets and the recording.
fn command(listening: &Listening, file: &File) -> Command {
    let sockets: Vec<RawFd> = listening.sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let inherited: Vec<RawFd> = sockets.iter().copied().chain([file.as_raw_fd()]).collect();
    // The path itself may name another program by now, after an update.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("memfrag").arg("serve-inherited").arg("--recording").arg(file.as_raw_fd().to_string());
    for socket in &sockets {
        command.arg("--socket").arg(socket.to_string());
    }
    command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    // In a group of its own it does not get the terminal's Ctrl-C: the trace ends first.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").process_group(0);
    leave_open(&mut command, inherited);
    command
}

/// Has a program inherit these descriptors, which must be open when it is started.
pub(super) fn leave_open(command: &mut Command, descriptors: Vec<RawFd>) {
    let inherit = move || {
        for &fd in &descriptors {
            // SAFETY: asks for a flag of a descriptor that is open in this copy of the process.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: what runs between fork and exec makes system calls only.
    unsafe { command.pre_exec(inherit) };
}

/// Runs the serving process: the hidden verb `serve-inherited`.
pub(super) fn inherited(args: &InheritArgs) -> Result<u8> {
    let kept: Vec<RawFd> = args.socket.iter().copied().chain([args.recording]).collect();
    privilege::close_all_but(&kept)?;
    let mut line = String::new();
    io::stdin().lock().take(1 << 20).read_line(&mut line).context("no word from the tracing process")?;
    let errand: Errand = serde_json::from_str(&line).context("no word from the tracing process")?;
    privilege::drop_all()?;
    // After becoming another user, which undoes it.
    privilege::die_with(errand.parent)?;
    let sockets: Vec<TcpListener> =
        args.socket.iter().map(|&fd| own(fd).map(TcpListener::from)).collect::<Result<_>>()?;
    let source = Source::new(File::from(own(args.recording)?), errand.name)?;
    let token = Token::parse(&errand.token).context("no token from the tracing process")?;
    let _link = serve::write_link(errand.port, &errand.url);
    let ending = when_input_ends()?;
    let Errand { port, exposed, allow_hosts, import_bytes, .. } = errand;
    let options = Options { port, exposed, allow_hosts, import_bytes, token };
    writeln!(io::stdout(), "{READY}")?;
    server::run(sockets, Sources::new(source), options, ending).context("cannot serve")?;
    Ok(0)
}

/// A descriptor that was left open for us.
pub(super) fn own(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: asks for the flags of a number that may be no descriptor.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        bail!("{fd} was not inherited; this verb is memfrag's own");
    }
    // SAFETY: it is open, and in this process nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns true when the tracing process closes its end.
fn when_input_ends() -> Result<watch::Receiver<bool>> {
    let (ending, receiver) = watch::channel(false);
    let wait = move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // Nobody listens any more when the server has failed.
        let _ = ending.send(true);
    };
    std::thread::Builder::new().name("memfrag-end".to_owned()).spawn(wait).context("starting a thread")?;
    Ok(receiver)
}
