//! A place in a recording that moves: live, at a speed, to a time, by events; and the heaps there.
//!
//! A player goes through the events in the order of the recording, which is that of their causes. Their times nearly
//! rise: two threads may be recorded the other way round than their clocks say. So the state *at a time* is not quite
//! that of any place: `memfrag report --at` takes every event that is not later, wherever it stands. A player that is
//! asked for a time goes to the first event that is later; if any behind it is not, it takes those too, into a copy.
//! When it goes on, it goes on from the place.
//!
//! All work is done in slices: [`Player::advance`] looks at the clock that it is given after some thousand events, so
//! that whoever waits for the player never waits long.

use super::coming::Coming;
use super::place::{Place, Ran};
use super::source::{Facts, Source};
use crate::heap::Heaps;
use crate::recording::{Limit, Mark, Reader};
use crate::report::ReportBuilder;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a growing recording is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How often a player that stands looks whether something came that belongs before it.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// How often it is looked whether a checkpoint is unpacked.
const COMING_LOOK: Duration = Duration::from_millis(1);
/// How often a player that plays moves.
const FRAME: Duration = Duration::from_millis(16);
/// How far behind its clock a player may be before it says so and sets the clock back.
const PATIENCE: Duration = Duration::from_millis(250);
/// An event that is so much later than what follows it is no reason to wait.
const ASTRAY_NS: u64 = 1_000_000_000;
/// Where a state that was kept spares fewer events than this, it is not taken instead of the one at hand.
const WORTH: u64 = 1 << 17;
/// The speeds at which a player can play.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.25..=64.0;

/// What a player is told to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// Go to the newest event and stay there.
    Live,
    /// Stand still.
    Pause,
    /// Play from here, so many times as fast as it happened, from 0.25 to 64; 0 for as fast as possible.
    Play {
        /// How fast.
        speed: f64,
    },
    /// Stand at a time.
    Seek {
        /// In nanoseconds since the trace began.
        at_ns: u64,
    },
    /// Go so many events further or back, and stand there.
    Step {
        /// How many.
        events: i64,
    },
    /// Back to the newest event, or to the end of a recording that has ended.
    Stop,
}

/// What a player is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It stands at the newest event, or is on its way there, and goes along.
    Live,
    /// It stands.
    Paused,
    /// It plays.
    Playing,
    /// It is on its way to where it will stand. What can be seen meanwhile is of the time that the status tells.
    Seeking,
    /// It stands at the end of a recording to which nothing is added any more.
    Ended,
}

/// Which events of the recording are in what can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those before the event of this number.
    Event(u64),
    /// Those that are not later than this, in nanoseconds since the trace began; while a player is on its way, in what
    /// will be seen.
    Time(u64),
}

/// How a player is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The time of what can be seen, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// The newest time of the recording.
    pub end_ns: u64,
    /// What it is doing.
    pub state: State,
    /// How fast it plays, as it was told; 1 when it does not.
    pub speed: f64,
    /// Whether it cannot keep up with what it was told.
    pub behind: bool,
    /// How much of its way to a place it has gone, from 0 to 1.
    pub progress: f64,
    /// Events before the place where it is.
    pub events: u64,
    /// Events in the second before, about.
    pub events_per_s: u64,
    /// Events that are known to be missing before.
    pub lost: u64,
    /// Which copy of the heaps can be seen: another number means that they are not what they were a moment before, but
    /// for time passing.
    pub epoch: u64,
}

/// What an [`advance`](Player::advance) leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Whether anything that can be seen has changed.
    pub changed: bool,
    /// How long there is nothing to do, unless a command comes. `None`: until one comes.
    pub rest: Option<Duration>,
}

/// What a player was told and has not finished.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    /// The end, wherever it is.
    Newest,
    /// A time, the later events to be left out. Never finished: what comes may belong before it.
    Time(u64),
    /// The number of the event that comes next.
    Event(u64),
    /// To play, having been at a time at a moment.
    Play { speed: f64, from_ns: u64, since: Duration },
}

/// The recording as a player saw it last.
#[derive(Clone, Debug)]
struct Chunks(Option<Arc<Reader>>);

impl Chunks {
    /// Looks again. What nobody holds need not be copied when it becomes more, so this lets go first.
    fn look(&mut self, source: &Source) {
        self.0 = None;
        self.0 = Some(source.reader());
    }

    fn shared(&self) -> &Arc<Reader> {
        self.0.as_ref().expect("held but for the moment of a look")
    }
}

impl std::ops::Deref for Chunks {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.shared()
    }
}

/// A place in a recording that moves, and the heaps there.
#[derive(Debug)]
pub struct Player {
    source: Arc<Source>,
    chunks: Chunks,
    /// Everything up to a place of the recording.
    base: Place,
    /// A place to go on from instead, once its checkpoint is unpacked.
    coming: Option<Coming>,
    /// That, and what stands behind the place but is not later than the time aimed at.
    exact: Option<Place>,
    aim: Aim,
    /// Whether what was aimed at has been reached.
    arrived: bool,
    /// Where the way began, by the number of the event.
    began: u64,
    /// The time that it stands at.
    at_ns: u64,
    behind: bool,
    epoch: u64,
    /// Processes whose heaps are watched.
    watched: BTreeSet<u32>,
}

impl Player {
    /// One that goes to the newest event.
    pub fn new(source: Arc<Source>) -> Self {
        let chunks = Chunks(Some(source.reader()));
        let base = source
            .states()
            .last_before(u64::MAX, u64::MAX)
            .unwrap_or_else(|| Place::new(&chunks, Arc::clone(source.names())));
        let at_ns = base.cursor.latest();
        let began = base.cursor.event();
        let mut player = Self {
            source,
            chunks,
            base,
            coming: None,
            exact: None,
            aim: Aim::Newest,
            arrived: false,
            began,
            at_ns,
            behind: true,
            epoch: 0,
            watched: BTreeSet::new(),
        };
        player.jump(u64::MAX, u64::MAX, |_| true);
        player
    }

    /// A second one, that stands where this one is.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut fork = Self {
            source: Arc::clone(&self.source),
            chunks: self.chunks.clone(),
            base: self.base.share(),
            coming: None,
            exact: self.exact.as_mut().map(Place::share),
            watched: self.watched.clone(),
            ..*self
        };
        if self.aim == Aim::Newest {
            fork.pause();
        }
        fork
    }

    /// The recording.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// What was gathered up to where it is.
    pub fn builder(&self) -> &ReportBuilder {
        &self.exact.as_ref().unwrap_or(&self.base).builder
    }

    /// The same, for [`ReportBuilder::share`].
    pub fn builder_mut(&mut self) -> &mut ReportBuilder {
        &mut self.exact.as_mut().unwrap_or(&mut self.base).builder
    }

    /// Keeps account of what happens on the pages of a process's heap, wherever the player goes: see [`Heaps::watch`].
    /// A heap that the process gets later is watched when this is called again, which costs nothing while it is.
    pub fn watch(&mut self, pid: u32) {
        self.watched.insert(pid);
        self.watch_again();
    }

    /// Ends what [`Self::watch`] began.
    pub fn unwatch(&mut self, pid: u32) {
        self.watched.remove(&pid);
        for place in [Some(&mut self.base), self.exact.as_mut()].into_iter().flatten() {
            if let Some(process) = place.builder.heaps().index_of(pid) {
                place.builder.unwatch(process);
            }
        }
    }

    /// Another copy of the heaps may come from somebody who watched others.
    fn watch_again(&mut self) {
        for place in [Some(&mut self.base), self.exact.as_mut()].into_iter().flatten() {
            for &pid in &self.watched {
                if let Some(process) = place.builder.heaps().index_of(pid) {
                    place.builder.watch(process);
                }
            }
        }
    }

    /// The heaps where it is.
    pub fn heaps(&self) -> &Heaps {
        self.builder().heaps()
    }

    /// The time of what can be seen, in nanoseconds since the trace began.
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// Whether it goes along with a recording, or plays it, and does not keep up.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Which events are in what can be seen.
    pub fn extent(&self) -> Extent {
        match self.aim {
            Aim::Time(time) => Extent::Time(time),
            Aim::Newest | Aim::Event(_) | Aim::Play { .. } => Extent::Event(self.base.cursor.event()),
        }
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let Facts { end_ns, .. } = self.source.facts();
        let event = self.exact.as_ref().unwrap_or(&self.base).cursor.event();
        Status {
            at_ns: self.at_ns,
            end_ns: end_ns.max(self.at_ns),
            state: match self.aim {
                Aim::Newest if self.arrived && self.chunks.is_settled() => State::Ended,
                Aim::Newest => State::Live,
                Aim::Play { .. } => State::Playing,
                Aim::Time(_) | Aim::Event(_) if self.arrived => State::Paused,
                Aim::Time(_) | Aim::Event(_) => State::Seeking,
            },
            speed: if let Aim::Play { speed, .. } = self.aim { speed } else { 1.0 },
            behind: self.behind,
            progress: self.progress(),
            events: event,
            events_per_s: self.chunks.rate_at(self.base.cursor.chunk() + 1, self.at_ns),
            lost: self.builder().lost(),
            epoch: self.epoch,
        }
    }

    fn progress(&self) -> f64 {
        if self.arrived {
            return 1.0;
        }
        let now = self.base.cursor.event();
        let share =
            |from: u64, at: u64, to: u64| at.saturating_sub(from) as f64 / to.saturating_sub(from).max(1) as f64;
        let share = match self.aim {
            Aim::Newest => share(self.began, now, self.chunks.events()),
            Aim::Event(to) => share(self.began, now, to),
            Aim::Time(to) => share(self.began, now, self.chunks.event_at(to)),
            Aim::Play { .. } => 1.0,
        };
        share.min(1.0)
    }

    /// Takes a command at a moment of the clock that [`advance`](Self::advance) is given.
    pub fn command(&mut self, command: Command, now: Duration) {
        match command {
            Command::Live | Command::Stop => self.go_newest(),
            Command::Pause => self.pause(),
            Command::Seek { at_ns } => self.seek(at_ns),
            Command::Step { events } => self.step(events),
            Command::Play { speed } => self.play(speed, now),
        }
    }

    fn go_newest(&mut self) {
        self.leave_exact();
        self.look();
        let newest = self.chunks.events();
        self.jump(u64::MAX, newest, |_| true);
        self.set_out(Aim::Newest);
    }

    fn pause(&mut self) {
        match self.aim {
            Aim::Newest | Aim::Play { .. } => self.seek(self.at_ns),
            // What is under way ends where it is.
            Aim::Time(_) | Aim::Event(_) if !self.arrived => self.seek(self.at_ns),
            Aim::Time(_) | Aim::Event(_) => {}
        }
    }

    fn seek(&mut self, at_ns: u64) {
        self.leave_exact();
        self.look();
        let at_ns = at_ns.min(self.chunks.last_time());
        self.jump(at_ns, u64::MAX, |base| base.cursor.latest() <= at_ns);
        self.at_ns = self.base.cursor.latest();
        self.set_out(Aim::Time(at_ns));
    }

    fn step(&mut self, events: i64) {
        // From where it will be: several steps in a row add up.
        let on_its_way = match self.aim {
            Aim::Event(to) if !self.arrived => Some(to),
            Aim::Time(to) if !self.arrived => Some(self.chunks.event_at(to)),
            _ => None,
        };
        self.leave_exact();
        self.look();
        let here = on_its_way.unwrap_or_else(|| self.base.cursor.event());
        let event = here.saturating_add_signed(events).min(self.chunks.last_event());
        self.jump(u64::MAX, event, |base| base.cursor.event() <= event);
        self.at_ns = self.base.cursor.latest();
        self.set_out(Aim::Event(event));
    }

    fn play(&mut self, speed: f64, now: Duration) {
        self.leave_exact();
        self.coming = None;
        let speed = if speed == 0.0 { 0.0 } else { speed.clamp(*SPEEDS.start(), *SPEEDS.end()) };
        self.set_out(Aim::Play { speed, from_ns: self.at_ns, since: now });
    }

    fn set_out(&mut self, aim: Aim) {
        self.aim = aim;
        self.arrived = false;
        self.behind = false;
        self.began = self.base.cursor.event();
    }

    /// Goes back from the state at a time to that of a place.
    fn leave_exact(&mut self) {
        if self.exact.take().is_some() {
            self.epoch += 1;
        }
    }

    /// Goes to the nearest state that was kept, before which nothing is later than `time`, and which is not behind the
    /// event; unless the one at hand, if it is `usable`, is nearer. Without either, to the beginning.
    fn jump(&mut self, time: u64, event: u64, usable: impl Fn(&Place) -> bool) {
        let here = Some(self.base.cursor.event()).filter(|_| usable(&self.base));
        let mut states = self.source.states();
        let kept = states.event_before(time, event);
        let nearest = here.max(kept).unwrap_or(0);
        self.coming = Coming::nearer(self.chunks.shared(), &self.source, nearest, time, event);
        if here.is_some_and(|here| kept.is_none_or(|kept| kept <= here.saturating_add(WORTH))) {
            return;
        }
        let kept = states.last_before(time, event);
        drop(states);
        self.base = kept.unwrap_or_else(|| Place::new(&self.chunks, Arc::clone(self.source.names())));
        self.epoch += 1;
        self.watch_again();
    }

    /// Goes to the place that was to come, if its checkpoint is unpacked; false when it is still to come.
    fn has_come(&mut self, has_time: &mut dyn FnMut() -> bool) -> bool {
        let Some(coming) = &self.coming else { return true };
        if !coming.is_there() {
            if has_time() {
                std::thread::sleep(COMING_LOOK);
            }
            return false;
        }
        // One that is damaged leaves everything as it was: the way is longer then.
        if let Some(place) = self.coming.take().and_then(Coming::take) {
            self.base = place;
            self.began = self.base.cursor.event();
            self.epoch += 1;
            self.watch_again();
        }
        true
    }

    /// Looks what the recording has now.
    fn look(&mut self) {
        self.chunks.look(&self.source);
    }

    /// Goes on for as long as `has_time` says; `now` is the time since any moment, the same each time.
    pub fn advance(&mut self, now: Duration, has_time: &mut dyn FnMut() -> bool) -> Advanced {
        let before = (self.seen(), self.arrived, self.behind, self.aim);
        if !self.has_come(has_time) {
            return Advanced { changed: false, rest: Some(COMING_LOOK) };
        }
        let rest = match self.aim {
            Aim::Newest => Some(self.follow(has_time)),
            Aim::Time(time) => self.approach(time, has_time),
            Aim::Event(event) => self.count_to(event, has_time),
            Aim::Play { speed, from_ns, since } => Some(self.play_on(speed, from_ns, since, now, has_time)),
        };
        Advanced { changed: before != (self.seen(), self.arrived, self.behind, self.aim), rest }
    }

    /// What changes when anything that can be seen does.
    fn seen(&self) -> (u64, u64, u64, u64) {
        let shown = self.exact.as_ref().unwrap_or(&self.base);
        (self.epoch, self.at_ns, shown.cursor.event(), shown.cursor.chunk() as u64)
    }

    fn run(&mut self, limit: &Limit, near: usize, has_time: &mut dyn FnMut() -> bool) -> Ran {
        let source = &self.source;
        let mut keep = |mark: &Mark, builder: &mut ReportBuilder| {
            // A chunk of notes may lie between.
            let is_near = (mark.chunk()..=mark.chunk() + 1).contains(&near);
            let mut states = source.states();
            let is_wanted = states.wants(mark.event(), builder);
            if is_wanted || is_near {
                states.keep(*mark, builder, !is_wanted);
            }
        };
        let ran = self.base.run(&self.chunks, limit, has_time, &mut keep);
        if ran == Ran::End {
            self.source.found(self.base.cursor.damage());
        }
        ran
    }

    fn follow(&mut self, has_time: &mut dyn FnMut() -> bool) -> Duration {
        self.look();
        let ran = self.run(&Limit::default(), usize::MAX, has_time);
        self.at_ns = self.base.cursor.latest();
        if ran == Ran::OutOfTime {
            // A chunk more or less is what comes at once anyway.
            self.behind = self.chunks.chunk_count() > self.base.cursor.chunk() + 4;
            self.arrived &= !self.behind;
            return Duration::ZERO;
        }
        self.at_ns = self.at_ns.max(self.chunks.last_time());
        (self.arrived, self.behind) = (true, false);
        if self.chunks.is_settled() { IDLE_LOOK } else { LOOK }
    }

    fn approach(&mut self, time: u64, has_time: &mut dyn FnMut() -> bool) -> Option<Duration> {
        self.look();
        if self.exact.is_none() {
            let near = self.chunks.start_of(time);
            let ran = self.run(&Limit { time, ..Limit::default() }, near, has_time);
            if ran == Ran::OutOfTime {
                self.at_ns = self.base.cursor.latest().min(time);
                return Some(Duration::ZERO);
            }
            if ran == Ran::Beyond && self.base.cursor.has_until(&self.chunks, time) {
                let mut exact = self.base.share();
                exact.cursor.keep_to(0..=time);
                self.exact = Some(exact);
                self.epoch += 1;
            }
        }
        if let Some(exact) = &mut self.exact {
            let limit = Limit { chunk: self.chunks.end_of(time), ..Limit::default() };
            if exact.run(&self.chunks, &limit, has_time, &mut |_, _| {}) == Ran::OutOfTime {
                return Some(Duration::ZERO);
            }
        }
        self.at_ns = time;
        self.arrived = true;
        (!self.chunks.is_settled()).then_some(IDLE_LOOK)
    }

    fn count_to(&mut self, event: u64, has_time: &mut dyn FnMut() -> bool) -> Option<Duration> {
        let near = self.chunks.chunk_of(event);
        let ran = self.run(&Limit { event, ..Limit::default() }, near, has_time);
        self.at_ns = self.base.cursor.latest();
        if ran == Ran::OutOfTime {
            return Some(Duration::ZERO);
        }
        self.arrived = true;
        None
    }

    fn play_on(
        &mut self,
        speed: f64,
        from_ns: u64,
        since: Duration,
        now: Duration,
        has_time: &mut dyn FnMut() -> bool,
    ) -> Duration {
        self.look();
        let passed = now.saturating_sub(since);
        let clock = if speed == 0.0 {
            u64::MAX
        } else {
            from_ns.saturating_add(u64::try_from(passed.mul_f64(speed).as_nanos()).unwrap_or(u64::MAX))
        };
        let mut ran = self.run(&Limit { time: clock, ..Limit::default() }, usize::MAX, has_time);
        if ran == Ran::Beyond
            && let Some(far) = clock.checked_sub(ASTRAY_NS)
        {
            let chunk = self.chunks.end_of(far);
            if chunk > self.base.cursor.chunk() {
                ran = self.run(&Limit { chunk, ..Limit::default() }, usize::MAX, has_time);
            }
        }
        let reached = self.base.cursor.latest();
        match ran {
            Ran::OutOfTime => {
                self.at_ns = self.at_ns.max(reached.min(clock));
                let late = clock.saturating_sub(self.at_ns) as f64;
                if speed > 0.0 && late > PATIENCE.as_nanos() as f64 * speed {
                    self.behind = true;
                    self.aim = Aim::Play { speed, from_ns: self.at_ns, since: now };
                }
                Duration::ZERO
            }
            Ran::Beyond => {
                self.at_ns = self.at_ns.max(clock);
                // Set back clocks are behind for as long as they would be set back again.
                self.behind &= passed < PATIENCE;
                FRAME
            }
            Ran::End => {
                let end = self.chunks.last_time();
                self.at_ns = self.at_ns.max(clock.min(end.max(reached)));
                self.behind = false;
                if self.at_ns >= end {
                    self.set_out(Aim::Newest);
                    self.arrived = true;
                }
                FRAME
            }
        }
    }
}

#[cfg(test)]
mod tests;
