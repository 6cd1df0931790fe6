//! A place of which the recording has a checkpoint, while that is being unpacked.
//!
//! That takes a second for five million blocks, in which nobody who looks at a player should have to wait.

use super::place::Place;
use super::source::Source;
use crate::recording::Reader;
use crate::report::checkpoint;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A checkpoint that spares fewer events is not worth unpacking.
const WORTH: u64 = 1 << 20;
/// Bytes of a state that take as long to unpack as an event takes to go through.
const BYTES_AN_EVENT: u64 = 4;

/// Whether a state of so many bytes that spares so many events is to be unpacked. Recordings of tests are short.
fn is_worth_it(spared: u64, bytes: u64) -> bool {
    if cfg!(test) { spared > 0 } else { spared >= WORTH + bytes / BYTES_AN_EVENT }
}

/// A place that will be there soon.
#[derive(Debug)]
pub(super) struct Coming(JoinHandle<Option<Place>>);

impl Coming {
    /// The last place with a checkpoint before which nothing is later than `time`, and which is not behind the event
    /// `event`; `None` when it takes no longer from `nearest`, an event whose state is at hand.
    pub(super) fn nearer(reader: &Arc<Reader>, source: &Source, nearest: u64, time: u64, event: u64) -> Option<Self> {
        let found = reader.checkpoints_before(time, event).next()?;
        if !is_worth_it(found.mark().event().saturating_sub(nearest), found.state_bytes()) {
            return None;
        }
        let (reader, names) = (Arc::clone(reader), Arc::clone(source.names()));
        let unpack = move || {
            let (mark, mut builder) = checkpoint::last_before(&reader, time, event)?;
            builder.name_by(names);
            Some(Place::at(&mark, builder))
        };
        std::thread::Builder::new().name("memfrag-unpack".to_owned()).spawn(unpack).ok().map(Self)
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_finished()
    }

    /// The place; `None` when there was no whole checkpoint.
    pub(super) fn take(self) -> Option<Place> {
        self.0.join().ok().flatten()
    }
}
