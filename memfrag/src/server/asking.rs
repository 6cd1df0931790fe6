//! A client's queries: each on a thread of its own, on a state that stands still, and in bounded time.

use super::limits::{self, Places};
use super::map::Map;
use super::player::{Command, Player, State as PlayerState};
use super::protocol::{Outbound, Query};
use super::queries::{self, Class, Context, Limit, Palette, QueryError, State, States};
use super::session::Line;
use super::sources::Sources;
use super::tiles;
use super::watching::{self, Watching};
use crate::capture::idle;
use serde_json::{Map as Fields, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The queries of a client that are under way.
#[derive(Debug)]
pub(super) struct Asking {
    places: Places,
    limits: Vec<Limit>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { places: Places::new(limits::QUERIES), limits: Vec::new() }
    }
}

impl Drop for Asking {
    /// The client has gone, and nobody waits any more.
    fn drop(&mut self) {
        self.limits.iter().for_each(Limit::cancel);
    }
}

impl Asking {
    /// Begins to answer a query on what the client watches now.
    ///
    /// # Errors
    /// When too many are under way, or the system has no thread for it.
    pub(super) fn ask(
        &mut self,
        query: Query,
        (watching, map): (&Watching, &Map),
        sources: &Arc<Sources>,
        line: &Line,
    ) -> Result<(), String> {
        let place = self.places.take().ok_or("four queries are under way already")?;
        let Query { id, kind, parameters } = query;
        let source = sources.get(watching.source()).ok_or("the source has gone")?;
        // A timeline goes on beyond the cursor: it is there to move the cursor on.
        let newest = if kind == "series" { Some(watching::live(sources, watching.source())?) } else { None };
        let watched = newest.as_ref().unwrap_or_else(|| watching.stage());
        let taken = |player: &mut Player| (player.builder_mut().share(), player.at_ns(), player.is_behind());
        let (builder, at_ns, waits) = watched.with(taken);
        let state = State { builder, at_ns, reader: source.reader(), name: source.name().to_owned() };
        let known = Known::of(&parameters, map);
        let others = Others { sources: Arc::clone(sources), own: watching.source() };
        let limit = Limit::new(limits::QUERY);
        // Those that have ended need not be called off.
        self.limits.retain(Limit::has_time);
        self.limits.push(limit.clone());
        let (line, pid) = (line.clone(), watching.pid());
        let answer = move || {
            if waits {
                // What is asked while the cursor is on its way is out of date before it is answered.
                idle::after_others();
            }
            let context = Context { state: &state, pid, states: &others, palette: Some(&known), limit: &limit };
            let message = match queries::answer(&kind, parameters, &context) {
                Ok(result) => Outbound::Reply { id, result },
                Err(error) => Outbound::Error { id: Some(id), message: error.to_string() },
            };
            drop(place);
            // A client that has gone needs no answer.
            let _ = line.tell(&message);
        };
        let thread = std::thread::Builder::new().name("memfrag-query".to_owned());
        thread.spawn(answer).map_err(|error| format!("no thread for the query: {error}"))?;
        Ok(())
    }
}

/// The class that a query names by its value on the map, as the client sees it now.
struct Known(Option<(String, u8, Class)>);

impl Known {
    fn of(parameters: &Fields<String, Value>, map: &Map) -> Self {
        let find = || {
            let by = parameters.get("by")?.as_str()?;
            let value = u8::try_from(parameters.get("value")?.as_u64()?).ok()?;
            let class = match map.class(by, value)? {
                tiles::Class::Site(address) => Class::Site(address),
                tiles::Class::Thread(tid) => Class::Thread(tid),
                tiles::Class::Size(class) => {
                    let (least, most) = tiles::Class::sizes(class);
                    Class::Size(least, most)
                }
                tiles::Class::Older => Class::Older,
            };
            Some((by.to_owned(), value, class))
        };
        Self(find())
    }
}

impl Palette for Known {
    fn class(&self, mode: &str, value: u8) -> Option<Class> {
        self.0.as_ref().filter(|(by, known, _)| by == mode && *known == value).map(|(_, _, class)| *class)
    }
}

/// States at other moments, and of other recordings.
struct Others {
    sources: Arc<Sources>,
    own: usize,
}

impl States for Others {
    fn at(&self, source: Option<usize>, at_ns: u64, limit: &Limit) -> Result<State, QueryError> {
        let source_number = source.unwrap_or(self.own);
        let source = self.sources.get(source_number).ok_or(QueryError::NoSource { source_number })?;
        let mut player = Player::new(Arc::clone(&source));
        player.command(Command::Seek { at_ns }, Duration::ZERO);
        let begun = Instant::now();
        while player.status().state == PlayerState::Seeking {
            limit.check()?;
            player.advance(begun.elapsed(), &mut || limit.has_time());
        }
        let builder = player.builder_mut().share();
        Ok(State { builder, at_ns, reader: source.reader(), name: source.name().to_owned() })
    }
}
