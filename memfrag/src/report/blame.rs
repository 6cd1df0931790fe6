//! Whose blocks keep free memory, as a document of its own and as a part of the report.

use super::ledger::source_name;
use super::model::Frame;
use super::moment::Moment;
use super::sites::{self, CallSite, Sites};
use crate::analysis::blame::{self, Owner, Share};
use crate::analysis::census::Source;
use crate::analysis::partition::{AGES, Facts};
use crate::analysis::{By, Key, Partition};
use crate::heap::{Heap, Origin, OriginId};
use serde::Serialize;

/// Owners named in the order in which to free them.
const STEPS: usize = 5;

/// The document of `memfrag blame`.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Always `memfrag-blame`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// The recording.
    pub file: String,
    /// The process.
    pub pid: u32,
    /// Its short name; empty when unknown.
    pub comm: String,
    /// Its blame.
    #[serde(flatten)]
    pub blame: Blame,
}

/// The blame of one process's heap.
#[derive(Clone, Debug, Serialize)]
pub struct Blame {
    /// By what blocks are told apart: `site`, `thread`, `size`, `age`, `module`, `stack`.
    pub by: &'static str,
    /// When the pages were looked at.
    pub at_ns: u64,
    /// How the heap's layout is known; see [`super::ledger::Ledger::source`].
    pub source: &'static str,
    /// What trimming would return as it is.
    pub trim_yield_bytes: u64,
    /// Free bytes that are resident and that trimming leaves.
    pub stuck_bytes: u64,
    /// Of these, whole pages in the tops of arenas other than the main one, which no block pins.
    pub kept_tops_bytes: u64,
    /// Resident pages that trimming leaves, by how many owners reach into them: none first, then one; the last number
    /// is of all pages with more.
    pub pages_by_owners: Vec<u64>,
    /// Live blocks that lie nowhere in the layout.
    pub elsewhere_blocks: u64,
    /// The owners, the largest release first.
    pub sites: Vec<Blamed>,
    /// An order in which to free owners, and what each step and those before it release together.
    pub order: Vec<Step>,
    /// What these numbers do not tell.
    pub limits: Vec<&'static str>,
}

impl Blame {
    /// Leaves the first `released` owners, and of the others those `stranded` that strand most: one whose blocks share
    /// all their pages with others' releases nothing, however much lies free around them.
    pub(super) fn shorten(&mut self, released: usize, stranded: usize) {
        let mut most: Vec<usize> = (0..self.sites.len()).collect();
        most.sort_by_key(|&at| std::cmp::Reverse(self.sites[at].stranded_bytes));
        most.truncate(stranded);
        let mut at = 0..;
        self.sites.retain(|_| at.next().is_some_and(|at| at < released || most.contains(&at)));
    }
}

/// What one owner accounts for.
#[derive(Clone, Debug, Serialize)]
pub struct Blamed {
    /// Its name: `function+offset (file)` of a call site, `file+offset` where no function is known, or of what kind the
    /// owner is.
    pub site: String,
    /// `program`, or whose blocks it has else: `untracked`, `cached`, `allocator`.
    pub kind: &'static str,
    /// The function that calls, where it is known.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// Return address of the call.
    pub address: Option<u64>,
    /// The file that holds it.
    pub module: Option<String>,
    /// Its offset in that file.
    pub offset: Option<u64>,
    /// By stacks: the number of the stack, 0 where only the caller was recorded.
    #[serde(skip)]
    pub stack: u32,
    /// By stacks: the frames, the call site first; absent where only the caller was recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// With `frames`: whether the last one is the outermost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Bytes that it holds.
    pub live_bytes: u64,
    /// Blocks that it holds.
    pub live_blocks: u64,
    /// Its share of the free bytes on the pages into which its blocks reach. All shares and `kept_tops_bytes` add up to
    /// `stuck_bytes`.
    pub stranded_bytes: u64,
    /// What would be returned if its blocks were freed and the heap trimmed, less what trimming returns now. Not
    /// additive: pages with several owners go only with the last of them.
    pub release_bytes: i64,
    /// What would join the top of an arena instead, which only `free` returns, above the trim threshold.
    pub joins_top_bytes: u64,
    /// `release_bytes` over `live_bytes`.
    pub pin_amplification: Option<f64>,
}

/// A step of an order.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Whom to free.
    pub site: String,
    /// What it and those before release together.
    pub release_bytes: i64,
}

/// A heap's origins, and where call sites lie.
pub(super) struct Places<'a> {
    pub(super) heap: &'a Heap,
    pub(super) sites: Sites<'a>,
}

impl Facts for Places<'_> {
    fn origin(&self, id: OriginId) -> Option<&Origin> {
        self.heap.origin(id)
    }

    fn module(&self, site: u64) -> Option<String> {
        self.sites.module(site)
    }
}

/// Lays blame for a moment of a process; with `order`, also finds one in which to free owners.
pub(super) fn of(moment: &Moment<'_>, by: By, places: &Places<'_>, order: bool) -> Blame {
    let census = moment.census();
    let pages = moment.pages();
    let partition = Partition::new(by, &moment.blocks, moment.residency.time, places);
    let found = blame::blame(&census, &pages, &partition);
    let steps = if order { blame::order(&census, &pages, &partition, STEPS) } else { Vec::new() };
    Blame {
        by: name_of(by),
        at_ns: moment.residency.time,
        source: source_name(census.source()),
        trim_yield_bytes: found.trim_yield_bytes,
        stuck_bytes: found.stuck_bytes,
        kept_tops_bytes: found.kept_tops_bytes,
        pages_by_owners: found.pages_by_owners.to_vec(),
        elsewhere_blocks: found.elsewhere.blocks,
        sites: found.shares.iter().map(|share| Blamed::new(share, &places.sites)).collect(),
        order: steps
            .iter()
            .map(|step| Step { site: Name::of(&step.owner, &places.sites).text, release_bytes: step.release_bytes })
            .collect(),
        limits: limits(census.source()),
    }
}

impl Blamed {
    fn new(share: &Share, sites: &Sites<'_>) -> Self {
        let name = Name::of(&share.owner, sites);
        let place = name.place.unwrap_or_default();
        Self {
            site: name.text,
            kind: name.kind,
            function: place.function,
            file: place.file,
            line: place.line,
            address: (place.address != 0).then_some(place.address),
            module: place.module,
            offset: place.offset,
            stack: if let Owner::Key(Key::Stack(_, number)) = share.owner { number } else { 0 },
            complete: (!name.frames.is_empty()).then_some(name.complete),
            frames: name.frames,
            live_bytes: share.live.bytes,
            live_blocks: share.live.blocks,
            stranded_bytes: share.stranded_bytes,
            release_bytes: share.release_bytes,
            joins_top_bytes: share.joins_top_bytes,
            pin_amplification: share.amplification(),
        }
    }
}

/// What an owner is called.
struct Name {
    text: String,
    kind: &'static str,
    /// Of a call site, or of a file.
    place: Option<CallSite>,
    /// Of a stack.
    frames: Vec<Frame>,
    complete: bool,
}

impl Name {
    fn of(owner: &Owner, sites: &Sites<'_>) -> Self {
        let named =
            |text: &str, kind| Self { text: text.to_owned(), kind, place: None, frames: Vec::new(), complete: false };
        let key = match owner {
            Owner::Allocator => return named("(the allocator's own data)", "allocator"),
            Owner::Cached => return named("(freed blocks in threads' caches)", "cached"),
            Owner::Untracked => return named("(blocks older than the trace)", "untracked"),
            Owner::Key(key) => key,
        };
        match key {
            Key::Site(address) => {
                let place = sites.find(*address);
                Self { place: Some(place.clone()), ..named(&place.site, "program") }
            }
            Key::Stack(address, number) => {
                let (frames, complete) = sites::frames(sites, *number).unwrap_or_default();
                Self { frames, complete, ..Self::of(&Owner::Key(Key::Site(*address)), sites) }
            }
            Key::Thread(tid) => named(&format!("thread {tid}"), "program"),
            Key::Size(most) if *most <= 16 => named("up to 16 B", "program"),
            Key::Size(most) => named(&format!("{} to {most} B", most / 2 + 1), "program"),
            Key::Age(class) => named(age(*class), "program"),
            Key::Module(Some(module)) => {
                let place = CallSite { module: Some(module.clone()), ..CallSite::default() };
                Self { place: Some(place), ..named(module, "program") }
            }
            Key::Module(None) => named("(in no known file)", "program"),
        }
    }
}

fn age(class: usize) -> &'static str {
    const NAMES: [&str; AGES.len() + 1] = [
        "younger than 10 ms",
        "10 to 100 ms old",
        "100 ms to 1 s old",
        "1 to 10 s old",
        "10 s to 1 min old",
        "1 to 10 min old",
        "10 min to 1 h old",
        "older than 1 h",
    ];
    NAMES[class.min(NAMES.len() - 1)]
}

const fn name_of(by: By) -> &'static str {
    match by {
        By::Site => "site",
        By::Thread => "thread",
        By::Size => "size",
        By::Age => "age",
        By::Module => "module",
        By::Stack => "stack",
    }
}

fn limits(source: Source) -> Vec<&'static str> {
    let mut limits = vec![
        "releases do not add up: a page with several owners goes only with the last of them",
        "blocks freed for real first fill each thread's cache (7 of a size), and those stay",
        "freed now is not never allocated: without these calls the other blocks would lie elsewhere",
        "blocks older than the trace have no call site and stand as one owner",
    ];
    match source {
        Source::Walk => {}
        Source::Blocks => limits.push(
            "the layout is made from the live blocks: freed blocks in caches and blocks older than the trace, where no \
             walk of the heap told of them, count as free",
        ),
        Source::Unknown => {
            limits[1] = "how this allocator lays out its memory is not known: a release is the pages without a block \
                         of others, the most that it could return";
        }
    }
    limits
}
