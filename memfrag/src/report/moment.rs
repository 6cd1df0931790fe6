//! The last moment at which it was seen which pages of a process were resident, with the heap as it was then.

use crate::analysis::census::{Census, Source};
use crate::analysis::metrics;
use crate::analysis::{Ledger, ResidentPages, reconstruct};
use crate::glibc::Layout;
use crate::heap::{Block, Heaps, Snapshot};
use crate::recording::{Input, Saved, put};
use crate::target::Residency;
use std::collections::HashMap;
use std::sync::Arc;

/// What was seen last of each process, by its index. Copies share what was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    looks: HashMap<usize, Look>,
}

#[derive(Clone, Debug, Default)]
struct Look {
    /// How often the process had become another program: what was seen of the one before is of no use.
    execs: u64,
    /// The heaps [remember](Heaps::remember) what there was then.
    pages: Option<Arc<Residency>>,
    walk: Option<Arc<(u64, Layout, Snapshot)>>,
}

impl Looks {
    fn of(&mut self, process: usize, execs: u64) -> &mut Look {
        let look = self.looks.entry(process).or_default();
        if look.execs != execs {
            *look = Look { execs, ..Look::default() };
        }
        look
    }

    /// The pages of a process were looked at; the heaps remember what it held.
    pub(super) fn pages(&mut self, process: usize, execs: u64, residency: &Residency) {
        self.of(process, execs).pages = Some(Arc::new(residency.clone()));
    }

    /// The heap of a process was walked at `time`.
    pub(super) fn walk(&mut self, process: usize, execs: u64, time: u64, layout: &Layout, heap: Snapshot) {
        self.of(process, execs).walk = Some(Arc::new((time, layout.clone(), heap)));
    }

    /// Appends what was seen of the programs that the processes are.
    pub(super) fn save(&self, heaps: &Heaps, out: &mut Vec<u8>) {
        let execs = |process: &usize| heaps.processes()[*process].execs();
        let current = self.looks.iter().filter(|(process, look)| look.execs == execs(process));
        let mut current: Vec<(usize, &Look)> = current.map(|(process, look)| (*process, look)).collect();
        current.sort_unstable_by_key(|(process, _)| *process);
        put(out, current.len() as u64);
        for (process, look) in current {
            put(out, process as u64);
            let pages = look.pages.as_deref().filter(|_| heaps.remembers(process));
            pages.is_some().save(out);
            if let Some(residency) = pages {
                residency.save(out);
                heaps.save_remembered(process, out);
            }
            look.walk.is_some().save(out);
            if let Some((time, layout, heap)) = look.walk.as_deref() {
                time.save(out);
                layout.save(out);
                heaps.save_snapshot(process, heap, out);
            }
        }
    }

    /// What [`Self::save`] wrote.
    pub(super) fn load(input: &mut Input<'_>, heaps: &mut Heaps) -> Option<Self> {
        let mut looks = Self::default();
        for _ in 0..input.varint()? {
            let process = usize::try_from(input.varint()?).ok()?;
            let mut look = Look { execs: heaps.processes().get(process)?.execs(), ..Look::default() };
            if bool::load(input)? {
                look.pages = Some(Arc::new(Saved::load(input)?));
                heaps.load_remembered(process, input)?;
            }
            if bool::load(input)? {
                let (time, layout) = (Saved::load(input)?, Saved::load(input)?);
                look.walk = Some(Arc::new((time, layout, heaps.load_snapshot(process, input)?)));
            }
            looks.looks.insert(process, look);
        }
        Some(looks)
    }

    /// The resident pages of a process as they were seen last.
    pub(super) fn residency(&self, process: usize, execs: u64) -> Option<&Residency> {
        let look = self.looks.get(&process).filter(|look| look.execs == execs)?;
        look.pages.as_deref()
    }

    /// The last moment of a process whose pages were seen at all. Unless the heap was walked at that moment, the layout is made from the
    /// blocks if it is glibc's.
    pub(super) fn moment(&self, heaps: &Heaps, process: usize, is_glibc: bool) -> Option<Moment<'_>> {
        let execs = heaps.processes().get(process)?.execs();
        let look = self.looks.get(&process).filter(|look| look.execs == execs)?;
        let residency = look.pages.as_deref()?;
        let moment = |blocks, layout, source| Moment { residency, blocks, layout, source };
        if let Some((time, layout, heap)) = look.walk.as_deref()
            && *time == residency.time
        {
            return Some(moment(heap.sorted(), layout.clone(), Source::Walk));
        }
        let blocks = heaps.remembered(process)?;
        if is_glibc {
            let layout = reconstruct::layout(&blocks, residency);
            return Some(moment(blocks, layout, Source::Blocks));
        }
        Some(moment(blocks, Layout::default(), Source::Unknown))
    }
}

/// A process at a moment: its blocks, its resident pages, and how its heap is laid out.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) residency: &'a Residency,
    pub(super) blocks: Vec<Block>,
    layout: Layout,
    source: Source,
}

impl Moment<'_> {
    /// The chunks and the blocks in them.
    pub(super) fn census(&self) -> Census<'_> {
        match self.source {
            Source::Unknown => Census::bare(&self.blocks, self.residency),
            source => Census::new(&self.layout, &self.blocks, self.residency, source),
        }
    }

    /// The resident pages.
    pub(super) fn pages(&self) -> ResidentPages {
        ResidentPages::new(self.residency)
    }

    /// The moment as measures of fragmentation take it. A layout that was made from the blocks is held back: in it
    /// cached chunks are free ones.
    pub(super) fn look<'a>(&'a self, resident: &'a ResidentPages) -> metrics::Look<'a> {
        let layout = (self.source == Source::Walk).then_some(&self.layout);
        metrics::Look { blocks: &self.blocks, layout, resident }
    }

    /// Where its resident bytes go.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(&self.census(), self.residency, None)
    }
}
