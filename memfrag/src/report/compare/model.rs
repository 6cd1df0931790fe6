//! What two states have in common, and what not. Field names are those of the JSON document; they are added to, never
//! renamed within a version. Sizes are bytes.

use crate::analysis::between::{self, Course};
use crate::heap;
use crate::report::ReportBuilder;
use crate::report::model::{Amount, Process};
use crate::report::sites::{CallSite, Place, Sites};
use serde::Serialize;
use std::collections::HashMap;
use std::convert::Infallible;

/// Two states of processes side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Always `memfrag-compare`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// The first state.
    pub a: Side,
    /// The second state.
    pub b: Side,
    /// What became of blocks between the two; null unless they are of one process of one recording.
    pub between: Option<Between>,
    /// Call sites, the greatest difference first. A place in a file is one site in both.
    pub sites: Vec<ComparedSite>,
}

/// One of the two states.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The recording.
    pub file: String,
    /// The moment, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// The process, as in the report.
    pub process: Process,
}

/// What became of blocks between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Between {
    /// Allocated between, and live at the second.
    pub grown: Amount,
    /// Live at the first, and not at the second.
    pub freed: Amount,
    /// Allocated between, and freed before the second.
    pub temporary: Amount,
    /// Live at both.
    pub survivors: Amount,
    /// Allocated between, whatever became of them.
    pub allocated: Amount,
}

impl From<Course> for Between {
    fn from(course: Course) -> Self {
        Self {
            grown: course.grown.into(),
            freed: course.freed.into(),
            temporary: course.temporary.into(),
            survivors: course.survivors.into(),
            allocated: course.allocated.into(),
        }
    }
}

/// A call site in both states.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedSite {
    /// Its name: `function+offset (file)`, `file+offset` where no function is known, or its address.
    pub site: String,
    /// The function that calls, where it is known.
    pub function: Option<String>,
    /// The file that holds it; null when it lies in no known mapping.
    pub module: Option<String>,
    /// Its offset in that file.
    pub offset: Option<u64>,
    /// Bytes live in the first state.
    pub a_bytes: u64,
    /// Bytes live in the second state.
    pub b_bytes: u64,
    /// Blocks live in the first state.
    pub a_blocks: u64,
    /// Blocks live in the second state.
    pub b_blocks: u64,
    /// What became of its blocks between the two, as in the whole.
    pub between: Option<Between>,
}

/// A state to compare.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// What was gathered until then.
    pub builder: &'a ReportBuilder,
    /// The recording.
    pub file: &'a str,
    /// How it was captured.
    pub backend: &'a str,
    /// The moment, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// The process.
    pub pid: u32,
}

impl State<'_> {
    fn live(&self) -> Option<HashMap<u64, heap::Amount>> {
        let heaps = self.builder.heaps();
        let heap = heaps.heap(heaps.find(self.pid)?);
        let Ok(live) = between::live_by_site(heap, || Ok::<(), Infallible>(()));
        Some(live)
    }

    fn side(&self) -> Option<Side> {
        let process = self.builder.about(self.pid, self.at_ns, self.backend)?;
        Some(Side { file: self.file.to_owned(), at_ns: self.at_ns, process })
    }
}

/// Compares two states; `one_recording` says that they are of the same, the first not later than the second. `None`
/// when one of the processes is not there.
pub fn compare(a: &State<'_>, b: &State<'_>, one_recording: bool) -> Option<Comparison> {
    let mut courses = HashMap::new();
    let mut whole = None;
    let (from, to) = (a.builder.heaps(), b.builder.heaps());
    if one_recording && a.pid == b.pid && from.index_of(a.pid) == to.index_of(b.pid) {
        let (begin, end) = (from.find(a.pid)?, to.find(b.pid)?);
        let Ok(found) =
            between::courses(
                Some((begin, from.heap(begin))),
                a.at_ns,
                (end, to.heap(end)),
                || Ok::<(), Infallible>(()),
            );
        whole = Some(Course::sum(found.values()).into());
        let sites = b.builder.sites(b.pid);
        for (address, course) in found {
            let sum: &mut Course = courses.entry(Place::of(&sites.find(address))).or_default();
            *sum = Course::sum([*sum, course].iter());
        }
    }
    let rows = side_by_side([(a.builder.sites(a.pid), a.live()?), (b.builder.sites(b.pid), b.live()?)]);
    let sites = rows.into_iter().map(|Beside { site, a, b }| {
        let course = courses.get(&Place::of(&site)).copied();
        let CallSite { site, module, offset, function, .. } = site;
        ComparedSite {
            site,
            function,
            module,
            offset,
            a_bytes: a.bytes,
            b_bytes: b.bytes,
            a_blocks: a.blocks,
            b_blocks: b.blocks,
            between: course.map(Between::from),
        }
    });
    Some(Comparison {
        format: "memfrag-compare",
        version: 1,
        a: a.side()?,
        b: b.side()?,
        between: whole,
        sites: sites.collect(),
    })
}

/// What a call site holds in two states.
#[derive(Clone, Debug)]
pub struct Beside {
    /// The call site, as the first state that has it names it.
    pub site: CallSite,
    /// In the first.
    pub a: heap::Amount,
    /// In the second.
    pub b: heap::Amount,
}

/// The call sites of two states, each with what it holds by address, the greatest difference in bytes first.
pub fn side_by_side(states: [(Sites<'_>, impl IntoIterator<Item = (u64, heap::Amount)>); 2]) -> Vec<Beside> {
    let mut rows: HashMap<Place, Beside> = HashMap::new();
    for (second, (sites, live)) in [false, true].into_iter().zip(states) {
        for (address, live) in live {
            let site = sites.find(address);
            let row = rows.entry(Place::of(&site));
            let row = row.or_insert_with(|| Beside { site, a: heap::Amount::default(), b: heap::Amount::default() });
            let amount = if second { &mut row.b } else { &mut row.a };
            amount.bytes = amount.bytes.wrapping_add(live.bytes);
            amount.blocks += live.blocks;
        }
    }
    let mut rows: Vec<(Place, Beside)> = rows.into_iter().collect();
    rows.sort_by(|(one_place, one), (other_place, other)| {
        let size = |row: &Beside| row.a.bytes.abs_diff(row.b.bytes);
        size(other).cmp(&size(one)).then_with(|| one_place.cmp(other_place))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}
