//! A client: what it watches, what it has been told, and when it is told more.
//!
//! Each has a thread of its own, so that what takes long for one holds nobody else up. What one client does not read
//! fills its own short queue; its thread waits then, and what has changed meanwhile is sent as it is afterwards.

use super::asking::Asking;
use super::http::Server;
use super::limits::Place;
use super::losses::Losses;
use super::map::Map;
use super::modelling::{self, Modelling};
use super::protocol::{self, Inbound, Outbound, Unreadable};
use super::ranges::Ranges;
use super::sources::About;
use super::watching::Watching;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use warp::ws::Message;

/// Time between two status messages.
const STATUS: Duration = Duration::from_millis(250);
/// Time between two lists of processes of which only figures have changed.
const FIGURES: Duration = Duration::from_secs(2);

/// A client that has been let in.
#[derive(Debug)]
pub struct Session {
    server: Arc<Server>,
    _place: Place,
}

/// The client went.
#[derive(Debug)]
pub(super) struct Gone;

/// The way to a client.
#[derive(Clone, Debug)]
pub(super) struct Line(mpsc::Sender<Message>);

impl Line {
    /// Tells it something; waits while it does not take more.
    pub(super) fn tell(&self, message: &Outbound) -> Result<(), Gone> {
        self.send(Message::text(message.text()))
    }

    fn send(&self, message: Message) -> Result<(), Gone> {
        self.0.blocking_send(message).map_err(|_| Gone)
    }
}

impl Session {
    /// It takes a place.
    pub fn new(server: Arc<Server>, place: Place) -> Self {
        Self { server, _place: place }
    }

    /// Turns true when all is to end.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.server.ending.clone()
    }

    /// Serves the client until it goes.
    pub fn run(self, runtime: &Handle, mut inbound: mpsc::Receiver<String>, to_client: mpsc::Sender<Message>) {
        let line = Line(to_client);
        let Ok(mut client) = Client::greet(&self.server, line) else { return };
        loop {
            // The timer is made within the runtime: this thread is none of its own.
            let next = runtime.block_on(async { timeout_at(client.next_due(), inbound.recv()).await });
            let told = match next {
                Ok(None) => return,
                Ok(Some(text)) => client.take(&text),
                Err(_) => Ok(()),
            };
            if told.and_then(|()| client.tell_what_is_due()).is_err() {
                return;
            }
        }
    }
}

/// What is known of a client, and what it knows.
struct Client<'a> {
    server: &'a Server,
    line: Line,
    watching: Watching,
    map: Map,
    ranges: Ranges,
    asking: Asking,
    modelling: Modelling,
    losses: Losses,
    sources: Vec<About>,
    more_sources: watch::Receiver<u64>,
    /// Its processes as the client knows them, and when it was told.
    processes: Option<(Vec<protocol::Process>, Instant)>,
    /// Where the cursor stood when the client was last told.
    stood: Option<(u64, u64)>,
    status_due: Instant,
}

impl<'a> Client<'a> {
    fn greet(server: &'a Server, line: Line) -> Result<Self, Gone> {
        let more_sources = server.sources.changes();
        let sources = server.sources.about();
        line.tell(&Outbound::Hello {
            protocol: protocol::VERSION,
            version: env!("CARGO_PKG_VERSION"),
            sources: sources.clone(),
            policies: modelling::policies(),
        })?;
        let watching = match Watching::new(&server.sources, 0, 0) {
            Ok(watching) => watching,
            Err(text) => {
                line.tell(&Outbound::Notice { level: protocol::Urgency::Error, text })?;
                return Err(Gone);
            }
        };
        let status_due = Instant::now();
        Ok(Self {
            server,
            line,
            watching,
            map: Map::default(),
            ranges: Ranges::default(),
            asking: Asking::default(),
            modelling: Modelling::default(),
            losses: Losses::default(),
            sources,
            more_sources,
            processes: None,
            stood: None,
            status_due,
        })
    }

    fn next_due(&self) -> Instant {
        self.map.next_due().map_or(self.status_due, |due| due.min(self.status_due))
    }

    /// Does what the client wishes.
    fn take(&mut self, text: &str) -> Result<(), Gone> {
        match Inbound::parse(text) {
            Ok(message) => self.follow(message),
            Err(error) => Err(error),
        }
        .or_else(|Unreadable { id, message }| self.line.tell(&Outbound::Error { id, message }))
    }

    fn follow(&mut self, message: Inbound) -> Result<(), Unreadable> {
        let wrong = |message| Unreadable { id: None, message };
        match message {
            Inbound::Watch(wanted) => {
                if wanted.source == self.watching.source() {
                    self.watching.choose(wanted.pid);
                } else {
                    self.watching = Watching::new(&self.server.sources, wanted.source, wanted.pid).map_err(wrong)?;
                }
                self.processes = None;
                self.ranges.forget();
                self.status_due = Instant::now();
            }
            Inbound::Cursor(command) => {
                self.watching.command(&self.server.sources, &self.server.stages, command).map_err(wrong)?;
                self.status_due = Instant::now();
            }
            Inbound::View(view) => self.map.set_view(&view).map_err(wrong)?,
            Inbound::Ack { seq } => self.map.acknowledged(seq),
            Inbound::Model { policy } => {
                self.modelling.choose(policy.as_deref()).map_err(wrong)?;
                self.status_due = Instant::now();
            }
            Inbound::Query(query) => {
                let id = query.id;
                let asked = self.asking.ask(query, (&self.watching, &self.map), &self.server.sources, &self.line);
                asked.map_err(|message| Unreadable { id: Some(id), message })?;
            }
        }
        Ok(())
    }

    fn tell_what_is_due(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        if now >= self.status_due {
            self.tell_sources()?;
            let status = self.watching.status(self.server.clients.taken(), self.map.rates(now));
            // Whoever is told that the cursor stands has been told what is there: nothing will change it later.
            let standing = status.standing();
            let arrives = standing.is_some() && standing != self.stood;
            self.stood = standing;
            self.tell_processes(arrives, now)?;
            if let Some(ranges) = self.ranges.tell(&self.watching, arrives, now) {
                self.line.tell(&ranges)?;
            }
            if let Some(notice) = self.losses.notice(&status, now) {
                self.line.tell(&notice)?;
            }
            self.line.tell(&Outbound::Status(status))?;
            let (sources, places) = (&self.server.sources, &self.server.models);
            if let Some(model) = self.modelling.tell(&self.watching, sources, places, now) {
                self.line.tell(&model)?;
            }
            self.status_due = now + STATUS;
        }
        if let Some(drawn) = self.map.draw(&self.watching, now) {
            if let Some(palette) = drawn.palette {
                self.line.tell(&palette)?;
            }
            self.line.send(Message::binary(drawn.frame))?;
        }
        Ok(())
    }

    /// New ones, those that are gone, and what has changed of those that the client knows.
    fn tell_sources(&mut self) -> Result<(), Gone> {
        self.more_sources.mark_unchanged();
        let sources = self.server.sources.about();
        let same = sources.len() == self.sources.len()
            && sources.iter().zip(&self.sources).all(|(now, before)| !now.differs(before));
        if same {
            return Ok(());
        }
        let name = self.sources.iter().find(|one| one.number() == self.watching.source()).map(About::name);
        let name = name.unwrap_or_default().to_owned();
        self.sources.clone_from(&sources);
        self.line.tell(&Outbound::Sources { sources })?;
        if self.server.sources.get(self.watching.source()).is_some() {
            return Ok(());
        }
        // It was removed: the first one never is.
        let text = format!("{name} was removed; this is the recording that the server was started with");
        self.line.tell(&Outbound::Notice { level: protocol::Urgency::Info, text })?;
        if let Ok(first) = Watching::new(&self.server.sources, 0, 0) {
            self.watching = first;
            self.processes = None;
            self.ranges.forget();
        }
        Ok(())
    }

    /// At once when the set has changed or the cursor `arrives` where it will stand, now and then when only figures have.
    fn tell_processes(&mut self, arrives: bool, now: Instant) -> Result<(), Gone> {
        let processes = self.watching.processes();
        if let Some((known, when)) = &self.processes {
            let same_set = known.len() == processes.len()
                && known.iter().zip(&processes).all(|(known, process)| known.is_as(process));
            if *known == processes || same_set && !arrives && now < *when + FIGURES {
                return Ok(());
            }
        }
        self.processes = Some((processes.clone(), now));
        self.line.tell(&Outbound::Processes { source: self.watching.source(), processes })
    }
}
