//! States of the recordings that the server has.

use super::{Limit, QueryError, State, States};
use crate::server::player::{self, Command, Player};
use crate::server::source::Source;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// States of recordings, which a function gives by their numbers; without one, that of the client's cursor.
pub struct Recorded<F>(pub F);

impl<F> std::fmt::Debug for Recorded<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

impl<F: Fn(Option<usize>) -> Option<Arc<Source>>> States for Recorded<F> {
    fn at(&self, source: Option<usize>, at_ns: u64, limit: &Limit) -> Result<State, QueryError> {
        let found = (self.0)(source).ok_or(QueryError::NoSource { source_number: source.unwrap_or(0) })?;
        state_at(found, at_ns, limit)
    }
}

impl State {
    /// What a player shows now, frozen. Takes a moment, by the regions in use and not by the blocks.
    pub fn of(player: &mut Player) -> Self {
        let (at_ns, reader, name) = (player.at_ns(), player.source().reader(), player.source().name().to_owned());
        Self { builder: player.builder_mut().share(), at_ns, reader, name }
    }
}

/// The state of a recording at a time, from the nearest one that is kept.
fn state_at(source: Arc<Source>, at_ns: u64, limit: &Limit) -> Result<State, QueryError> {
    /// Events are taken for so long between two looks at the limit.
    const SLICE: Duration = Duration::from_millis(50);
    let begin = Instant::now();
    let mut player = Player::new(source);
    player.command(Command::Seek { at_ns }, begin.elapsed());
    loop {
        let slice = Instant::now();
        player.advance(begin.elapsed(), &mut || slice.elapsed() < SLICE);
        limit.check()?;
        if player.status().state != player::State::Seeking {
            return Ok(State { at_ns, ..State::of(&mut player) });
        }
    }
}
