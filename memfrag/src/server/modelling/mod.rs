//! A policy beside the heap that a client watches: the message `model` of `docs/PROTOCOL.md`.
//!
//! Each has a thread of its own, which reads the recording by itself and follows the client's cursor. Neither the capture
//! nor the client's other messages ever wait for it: what it has come to is taken when it is there, and when it is behind
//! it says by how much.
//!
//! | module | job |
//! |---|---|
//! | `course` | the recording under a policy: going to a place, and back |
//! | `worker` | the thread |
//! | `figures` | what is told of the policy and of the heap |
//! | `grid` | both as cells of one size |
//! | `setting` | what a policy has to know of the process |

mod course;
mod figures;
mod grid;
mod setting;
#[cfg(test)]
mod tests;
mod worker;

pub use figures::{Cells, Shown};

use super::limits::Places;
use super::player::Extent;
use super::protocol::Outbound;
use super::queries::State;
use super::sources::Sources;
use super::watching::{self, Watching};
use crate::model::{CHOICES, Choice, Recipe};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use worker::{Target, Worker};

/// Time between two places of the cursor that a worker is given, and while it is behind.
const EVERY: Duration = Duration::from_millis(250);
const EVERY_BEHIND: Duration = Duration::from_secs(1);
/// Time between two messages of which only the distance to the cursor has changed.
const DISTANCE: Duration = Duration::from_millis(500);

/// A policy that a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Named {
    pub name: &'static str,
    pub about: &'static str,
    pub environment: Option<&'static str>,
}

/// All of them.
pub fn policies() -> Vec<Named> {
    let named = |choice: &Choice| Named { name: choice.name, about: choice.about, environment: choice.environment };
    CHOICES.iter().map(named).collect()
}

/// The policy that a client wants beside the heap, if any.
#[derive(Debug, Default)]
pub(super) struct Modelling {
    wanted: Option<&'static Choice>,
    running: Option<Running>,
    /// Why there is none though one is wanted, and of what that was told.
    problem: Option<(usize, u32)>,
}

#[derive(Debug)]
struct Running {
    source: usize,
    pid: u32,
    worker: Worker,
    /// The cursor's place that the worker knows, and when it may be given another.
    given: Option<(Extent, u64)>,
    due: Instant,
    /// What the client was told last, while that is behind, and when.
    told: Option<(Shown, Instant)>,
}

impl Modelling {
    /// Wants another policy from now on, or none.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(super) fn choose(&mut self, policy: Option<&str>) -> Result<(), String> {
        let find = |name| Choice::find(name).ok_or("there is no such policy");
        self.wanted = policy.map(find).transpose()?;
        self.running = None;
        self.problem = None;
        Ok(())
    }

    /// Tells the worker where the cursor is, and the client what the worker has come to since.
    pub(super) fn tell(
        &mut self,
        watching: &Watching,
        sources: &Arc<Sources>,
        places: &Places,
        now: Instant,
    ) -> Option<Outbound> {
        let choice = self.wanted?;
        let watched = (watching.source(), watching.pid());
        if watched.1 == 0 {
            return None;
        }
        self.running.take_if(|running| (running.source, running.pid) != watched);
        self.problem.take_if(|about| *about != watched);
        if self.problem.is_some() {
            return None;
        }
        if self.running.is_none() {
            match begin(choice, watching, sources, places) {
                Ok(None) => return None,
                Ok(Some(worker)) => {
                    let (source, pid) = watched;
                    self.running = Some(Running { source, pid, worker, given: None, due: now, told: None });
                }
                Err(problem) => {
                    self.problem = Some(watched);
                    return Some(told(watched, choice, Shown { problem: Some(problem), ..Shown::default() }));
                }
            }
        }
        let running = self.running.as_mut()?;
        running.follow(watching, now);
        let shown = running.worker.news().or_else(|| running.distance(watching, now))?;
        running.told = (shown.behind_events > 0 && !shown.learning).then(|| (shown.clone(), now));
        if shown.problem.is_some() {
            self.running = None;
            self.problem = Some(watched);
        } else if shown.behind_events == 0 {
            running.due = running.due.min(now + EVERY);
        }
        Some(told(watched, choice, shown))
    }
}

fn told((source, pid): (usize, u32), choice: &Choice, shown: Shown) -> Outbound {
    Outbound::Model { source, pid, policy: choice.name, shown: Box::new(shown) }
}

impl Running {
    /// What was told last with how far that is behind the cursor by now: it moves on, and figures take their time.
    fn distance(&self, watching: &Watching, now: Instant) -> Option<Shown> {
        let (shown, _) = self.told.as_ref().filter(|(_, when)| now >= *when + DISTANCE)?;
        let (events, at_ns) = watching.stage().with(|player| (player.status().events, player.at_ns()));
        let behind_events = events.saturating_sub(self.worker.events()).max(1);
        let behind_ns = at_ns.saturating_sub(shown.at_ns);
        let same = (shown.behind_events, shown.behind_ns) == (behind_events, behind_ns);
        (!same).then(|| Shown { behind_events, behind_ns, ..shown.clone() })
    }

    fn follow(&mut self, watching: &Watching, now: Instant) {
        if now < self.due || self.worker.is_busy() {
            return;
        }
        let given = self.given;
        let target = watching.stage().with(|player| {
            let place = (player.extent(), player.at_ns());
            if given == Some(place) {
                return None;
            }
            let events = player.status().events;
            Some((place, Target { extent: place.0, at_ns: place.1, events, state: State::of(player) }))
        });
        let Some((place, target)) = target else { return };
        if self.worker.give(target) {
            self.given = Some(place);
            self.due = now + if self.worker.is_behind() { EVERY_BEHIND } else { EVERY };
        }
    }
}

/// Begins to model a process. `None` while the recording has not been read far enough to know it.
fn begin(
    choice: &'static Choice,
    watching: &Watching,
    sources: &Sources,
    places: &Places,
) -> Result<Option<Worker>, String> {
    let pid = watching.pid();
    // The newest state knows most about the process, wherever the cursor is.
    let newest = watching::live(sources, watching.source())?;
    let (is_read, is_there, allocator, environment) = newest.with(|player| {
        let process = player.heaps().index_of(pid);
        let allocator = process.and_then(|process| player.builder().allocator(process));
        let info = process.and_then(|process| player.heaps().info(process));
        let environment = info.map(|info| info.settings.clone()).unwrap_or_default();
        (player.status().progress >= 1.0, process.is_some(), allocator, environment)
    });
    let is_known = is_there && (allocator.is_some() || !choice.needs_version());
    if !is_known && !is_read {
        return Ok(None);
    }
    if !is_there {
        return Err(format!("the recording holds no process {pid}"));
    }
    let setting = setting::of(choice, allocator.as_ref(), environment)?;
    let source = sources.get(watching.source()).ok_or("the source has gone")?;
    let Some(place) = places.take() else {
        return Err("as many models as the server has room for are beside other pages already".to_owned());
    };
    let recipe = newest.with(|player| Recipe::new(player.heaps(), pid, &setting, vec![choice]));
    Worker::begin(recipe, source.reader(), place).map(Some).map_err(|error| format!("no thread for the model: {error}"))
}
