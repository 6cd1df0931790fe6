//! A place in a recording, with what was gathered up to it.

use crate::recording::{Cursor, Item, Limit, Mark, Next, Reader};
use crate::report::{Names, ReportBuilder};
use std::sync::Arc;

/// Events that are taken at once: what must not take long is looked at between two such pieces.
const AT_ONCE: usize = 8192;

/// A place in a recording, and the state there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) builder: ReportBuilder,
    pub(super) cursor: Cursor,
}

/// How a [`Place::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// There is more, and it lies beyond the limit.
    Beyond,
    /// Everything was taken that the recording has so far.
    End,
    /// There was no more time.
    OutOfTime,
}

impl Place {
    /// The beginning of a recording.
    pub(super) fn new(reader: &Reader, names: Arc<Names>) -> Self {
        let mut builder = ReportBuilder::new(None);
        builder.name_by(names);
        builder.count_lifetimes();
        Self { builder, cursor: Cursor::new(reader) }
    }

    /// A place where a cursor has been, with what was gathered then.
    pub(super) fn at(mark: &Mark, builder: ReportBuilder) -> Self {
        Self { builder, cursor: Cursor::at(mark) }
    }

    /// A second one at the same place.
    pub(super) fn share(&mut self) -> Self {
        Self { builder: self.builder.share(), cursor: self.cursor.clone() }
    }

    /// Goes on up to the limit, for as long as there is time; `between` is called wherever a chunk has been used up.
    pub(super) fn run(
        &mut self,
        reader: &Reader,
        limit: &Limit,
        has_time: &mut dyn FnMut() -> bool,
        between: &mut dyn FnMut(&Mark, &mut ReportBuilder),
    ) -> Ran {
        let limit = Limit { at_once: AT_ONCE, ..*limit };
        loop {
            match self.cursor.next(reader, &limit) {
                Next::Item(item) => {
                    let is_events = matches!(item, Item::Events(_));
                    self.builder.take(item);
                    if is_events && let Some(mark) = self.cursor.mark() {
                        between(&mark, &mut self.builder);
                    }
                }
                Next::Beyond => return Ran::Beyond,
                Next::End => return Ran::End,
            }
            if !has_time() {
                return Ran::OutOfTime;
            }
        }
    }
}
