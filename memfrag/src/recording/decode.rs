//! Columns back into events.

use super::chunk::{ChunkHeader, MAX_EVENTS};
use super::columns::{Columns, Unpacker, column};
use super::encode::{ESCAPE, alloc, free};
use super::model::{Model, UNKNOWN, class_of};
use super::tables::{self, KnownCall};
use super::varint::{Input, unfold};
use memfrag_common::{Event, Kind, Op};

/// Turns the payloads of one events chunk after another into events.
pub(super) struct Decoder {
    unpacker: Unpacker,
    columns: Columns,
    model: Model,
    threads: Vec<(u32, u32)>,
    calls: Vec<KnownCall>,
}

/// The columns as they are read, each from its front.
struct Cursors<'a> {
    inputs: [Input<'a>; column::COUNT],
}

impl Cursors<'_> {
    #[inline]
    fn byte(&mut self, column: usize) -> Option<u8> {
        self.inputs[column].byte()
    }

    #[inline]
    fn pair(&mut self, column: usize) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(column)?, self.byte(column + 1)?]))
    }

    #[inline]
    fn varint(&mut self, column: usize) -> Option<u64> {
        self.inputs[column].varint()
    }

    #[inline]
    fn new_difference(&mut self, column: usize) -> Option<u64> {
        let units = [self.byte(column)?, self.byte(column + 1)?, self.byte(column + 2)?, 0];
        Some(unfold(u64::from(u32::from_le_bytes(units))) << 4)
    }

    #[inline]
    fn wide_difference(&mut self) -> Option<u64> {
        self.varint(column::NEW_WIDE).map(unfold)
    }
}

impl Decoder {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            unpacker: Unpacker::new()?,
            columns: Columns::new(),
            model: Model::new(),
            threads: Vec::new(),
            calls: Vec::new(),
        })
    }

    /// Replaces `events` by those of the chunk. `None` when the payload is damaged; `events` is then empty.
    pub(super) fn decode(&mut self, header: &ChunkHeader, payload: &[u8], events: &mut Vec<Event>) -> Option<()> {
        events.clear();
        let decoded = self.decode_all(header, payload, events);
        if decoded.is_none() {
            events.clear();
        }
        decoded
    }

    fn decode_all(&mut self, header: &ChunkHeader, payload: &[u8], events: &mut Vec<Event>) -> Option<()> {
        let count = header.items as usize;
        if count > MAX_EVENTS {
            return None;
        }
        self.unpacker.unpack(payload, header.unpacked_length as usize, &mut self.columns)?;
        tables::decode(&self.columns.bytes[column::TABLES], &mut self.threads, &mut self.calls)?;
        self.model.reset();
        let mut columns = Cursors { inputs: std::array::from_fn(|at| Input::new(&self.columns.bytes[at])) };
        columns.inputs[column::TABLES] = Input::new(&[]);
        let mut state = State { model: &mut self.model, calls: &mut self.calls, thread: 0, other_addr: 0 };
        // Each event takes at least two bytes from the columns of times, so `count` is no promise but a fact.
        if columns.inputs[column::TIME].remaining() != count {
            return None;
        }
        events.reserve(count);
        let mut time = 0u64;
        while events.len() < count {
            state.thread = u16::try_from(columns.varint(column::THREADS)?).ok()?;
            let (pid, tid) = *self.threads.get(usize::from(state.thread))?;
            let run = usize::try_from(columns.varint(column::THREADS)?).ok()?;
            if run >= count - events.len() {
                return None;
            }
            for _ in 0..=run {
                let step = u64::from(columns.pair(column::TIME)?);
                let step = if step == ESCAPE { unfold(columns.varint(column::TIME_WIDE)?) } else { step };
                time = time.wrapping_add(step);
                let op = state.op(&mut columns)?;
                events.push(Event { time, pid, tid, op });
            }
        }
        columns.inputs.iter().all(Input::is_empty).then_some(())
    }
}

/// What is carried from one event to the next.
struct State<'a> {
    model: &'a mut Model,
    calls: &'a mut [KnownCall],
    thread: u16,
    other_addr: u64,
}

impl State<'_> {
    #[inline]
    fn op(&mut self, columns: &mut Cursors<'_>) -> Option<Op> {
        let number = usize::from(columns.pair(column::CALL)?);
        let call = *self.calls.get(number)?;
        let KnownCall { function, align_log2, site, stack, .. } = call;
        Some(match call.kind {
            Kind::Alloc => {
                let size = self.size(columns, number, call.size)?;
                let addr = self.alloc(columns, size)?;
                Op::Alloc { function, align_log2, addr, size, site, stack }
            }
            Kind::Free => {
                let size = if call.sized { self.size(columns, number, call.size)? } else { 0 };
                let addr = self.free(columns)?;
                Op::Free { function, addr, size, site }
            }
            Kind::ReallocBegin => {
                let size = self.size(columns, number, call.size)?;
                let old = self.free(columns)?;
                let lane = self.model.lane(self.thread);
                lane.old = old;
                lane.resized = size;
                Op::ReallocBegin { function, old, size, site }
            }
            Kind::ReallocEnd => {
                let resized = self.model.lane(self.thread).resized;
                let size = self.size(columns, number, resized)?;
                let addr = self.alloc(columns, size)?;
                Op::ReallocEnd { function, addr, size, site, stack }
            }
            kind => self.other(columns, kind)?,
        })
    }

    #[inline]
    fn size(&mut self, columns: &mut Cursors<'_>, call: usize, expected: u64) -> Option<u64> {
        let size = match u64::from(columns.pair(column::SIZE)?) {
            0 => expected,
            ESCAPE => columns.varint(column::SIZE_WIDE)?,
            size => size - 1,
        };
        self.calls[call].size = size;
        Some(size)
    }

    /// The number of the block `distance` back.
    #[inline]
    fn earlier(&self, distance: usize) -> Option<u16> {
        if distance == 0 {
            return None;
        }
        self.model.count().checked_sub(distance).map(|number| number as u16)
    }

    #[inline]
    fn alloc(&mut self, columns: &mut Cursors<'_>, size: u64) -> Option<u64> {
        let thread = self.thread;
        let token = columns.byte(column::ALLOC)?;
        if token == alloc::NULL {
            return Some(0);
        }
        let lane = self.model.lane(thread);
        let top = lane.top;
        let (old, freed) = (lane.old, lane.freed);
        let number = match token {
            alloc::RECENT..alloc::UNKNOWN_RECENT => self.recent(class_of(size), token - alloc::RECENT)?,
            alloc::UNKNOWN_RECENT..alloc::TOP => self.recent(UNKNOWN, token - alloc::UNKNOWN_RECENT)?,
            alloc::NEAR..alloc::OLD => self.earlier(usize::from(token - alloc::NEAR) + 1)?,
            alloc::FAR => self.earlier(usize::from(columns.pair(column::FAR)?))?,
            alloc::OLD if self.model.addr(usize::from(freed)) == Some(old) => {
                self.model.take_back(thread, freed);
                freed
            }
            _ => {
                let addr = match token {
                    alloc::TOP => top,
                    alloc::SLOT => self.model.next_slot(thread, size),
                    alloc::OLD => old,
                    alloc::NEW => top.wrapping_add(columns.new_difference(column::ALLOC_NEW)?),
                    _ => top.wrapping_add(columns.wide_difference()?),
                };
                self.model.fresh(thread, addr, size);
                return Some(addr);
            }
        };
        let addr = self.model.addr(usize::from(number))?;
        self.model.reuse(number, size);
        Some(addr)
    }

    /// The block `depth` below the one of its class freed last, which is taken off its stack.
    #[inline]
    fn recent(&mut self, class: u8, depth: u8) -> Option<u16> {
        let number = self.model.recent(self.thread, class, usize::from(depth))?;
        self.model.drop_recent(self.thread, class, usize::from(depth));
        Some(number)
    }

    #[inline]
    fn free(&mut self, columns: &mut Cursors<'_>) -> Option<u64> {
        let thread = self.thread;
        let token = columns.byte(column::FREE)?;
        let number = match token {
            0..free::NEAR => {
                let freed = i32::from(self.model.lane(thread).freed);
                u16::try_from(freed + i32::from(token) - free::STEPS).ok()?
            }
            free::NEAR..free::NULL => self.earlier(usize::from(token - free::NEAR) + 1)?,
            free::NULL => return Some(0),
            free::FAR => self.earlier(usize::from(columns.pair(column::FAR)?))?,
            free::NEW | free::WIDE => {
                let difference = if token == free::NEW {
                    columns.new_difference(column::FREE_NEW)?
                } else {
                    columns.wide_difference()?
                };
                let addr = self.model.lane(thread).freed_addr.wrapping_add(difference);
                self.model.free_unknown(thread, addr);
                return Some(addr);
            }
        };
        let addr = self.model.addr(usize::from(number))?;
        self.model.free(thread, number);
        Some(addr)
    }

    #[cold]
    fn other(&mut self, columns: &mut Cursors<'_>, kind: Kind) -> Option<Op> {
        let input = &mut columns.inputs[column::OTHER];
        let mut addr = 0;
        if matches!(
            kind,
            Kind::Mmap
                | Kind::Munmap
                | Kind::MunmapFailed
                | Kind::MremapBegin
                | Kind::MremapEnd
                | Kind::Brk
                | Kind::Madvise
        ) {
            self.other_addr = self.other_addr.wrapping_add(unfold(input.varint()?));
            addr = self.other_addr;
        }
        Some(match kind {
            Kind::Fork => Op::Fork { child: input.varint32()?, flags: input.varint()? },
            Kind::Exec => Op::Exec,
            Kind::Exit => {
                let status = match input.varint()?.checked_sub(1) {
                    None => None,
                    Some(status) => Some(u32::try_from(status).ok()?.cast_signed()),
                };
                Op::Exit { status }
            }
            Kind::ThreadStart => Op::ThreadStart,
            Kind::ThreadExit => Op::ThreadExit,
            Kind::Mmap => Op::Mmap {
                addr,
                size: input.varint()?,
                protection: input.varint32()?,
                flags: input.varint32()?,
                fd: i32::try_from(unfold(input.varint()?).cast_signed()).ok()?,
            },
            Kind::Munmap => Op::Munmap { addr, size: input.varint()? },
            Kind::MunmapFailed => Op::MunmapFailed { addr, size: input.varint()? },
            Kind::MremapBegin => Op::MremapBegin { addr, size: input.varint()? },
            Kind::MremapEnd => Op::MremapEnd { addr, size: input.varint()? },
            Kind::Brk => Op::Brk { end: addr },
            Kind::Madvise => Op::Madvise { addr, size: input.varint()?, advice: input.varint32()? },
            Kind::Gap => Op::Gap { lost: input.varint()? },
            Kind::Alloc | Kind::Free | Kind::ReallocBegin | Kind::ReallocEnd => return None,
        })
    }
}
