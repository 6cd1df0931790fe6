//! Values as a checkpoint of state holds them: one behind the other, numbers as varints, lists behind their lengths.
//!
//! Whatever [`Saved::load`] is given, it ends and gives nothing that the state could not have held: a list is believed
//! for as long as there are bytes for it, and a count that no recording reaches is refused, so that counting on
//! overflows nowhere.

use super::notes::{self, Note};
use super::varint::{Input, fold, put, put_bytes, unfold};
use crate::capture::Counters;
use crate::glibc::Layout;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::Function;

/// What a checkpoint can hold.
pub(crate) trait Saved: Sized {
    /// Appends the value. Takes one byte at least.
    fn save(&self, out: &mut Vec<u8>);

    /// The value at the front of the input; `None` when that is none.
    fn load(input: &mut Input<'_>) -> Option<Self>;
}

/// Makes a struct [`Saved`], field by field in the order given: of each its name and what it is coded as.
macro_rules! saved {
    ($name:ident { $($field:ident: $code:ty),* $(,)? }) => {
        impl $crate::recording::Saved for $name {
            fn save(&self, out: &mut Vec<u8>) {
                $(<$code>::save(&self.$field, out);)*
            }

            fn load(input: &mut $crate::recording::Input<'_>) -> Option<Self> {
                Some(Self { $($field: <$code>::load(input)?),* })
            }
        }
    };
}
pub(crate) use saved;

/// A `u64` that counts events, or what there can be no more of than events.
pub(crate) struct Count;

impl Count {
    /// More than any recording has: at a byte each they would take a terabyte.
    pub(crate) const MOST: u64 = 1 << 40;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as all are saved")]
    pub(crate) fn save(count: &u64, out: &mut Vec<u8>) {
        put(out, *count);
    }

    pub(crate) fn load(input: &mut Input<'_>) -> Option<u64> {
        input.varint().filter(|&count| count <= Self::MOST)
    }
}

impl Saved for u64 {
    fn save(&self, out: &mut Vec<u8>) {
        put(out, *self);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        input.varint()
    }
}

impl Saved for u32 {
    fn save(&self, out: &mut Vec<u8>) {
        put(out, u64::from(*self));
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        input.varint32()
    }
}

impl Saved for i64 {
    fn save(&self, out: &mut Vec<u8>) {
        put(out, fold(self.cast_unsigned()));
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        Some(unfold(input.varint()?).cast_signed())
    }
}

impl Saved for i32 {
    fn save(&self, out: &mut Vec<u8>) {
        self.cast_unsigned().save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        u32::load(input).map(u32::cast_signed)
    }
}

impl Saved for u8 {
    fn save(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        input.byte()
    }
}

impl Saved for bool {
    fn save(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        match input.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// Finite ones alone, to the bit.
impl Saved for f64 {
    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.to_bits().to_le_bytes());
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        input.u64().map(Self::from_bits).filter(|value| value.is_finite())
    }
}

impl<T: Saved> Saved for Option<T> {
    fn save(&self, out: &mut Vec<u8>) {
        self.is_some().save(out);
        if let Some(value) = self {
            value.save(out);
        }
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        Some(if bool::load(input)? { Some(T::load(input)?) } else { None })
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.len() as u64);
        for value in self {
            value.save(out);
        }
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut all = Self::new();
        for _ in 0..input.varint()? {
            all.push(T::load(input)?);
        }
        Some(all)
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    fn save(&self, out: &mut Vec<u8>) {
        self.0.save(out);
        self.1.save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        Some((A::load(input)?, B::load(input)?))
    }
}

impl Saved for Function {
    fn save(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        Self::from_u8(input.byte()?)
    }
}

/// What the recording has a note for is saved as that.
macro_rules! as_note {
    ($name:ident, $note:ident, $put:ident) => {
        impl Saved for $name {
            fn save(&self, out: &mut Vec<u8>) {
                let mut run = Vec::new();
                notes::$put(&mut run, 0, self);
                put_bytes(out, &run);
            }

            fn load(input: &mut Input<'_>) -> Option<Self> {
                if let Note::$note(value) = one_note(input)? { Some(value) } else { None }
            }
        }
    };
}

as_note!(ProcessInfo, Process, put_process);
as_note!(MemorySample, Memory, put_memory);
as_note!(Residency, Residency, put_residency);

fn one_note(input: &mut Input<'_>) -> Option<Note> {
    let mut notes = notes::decode(input.bytes()?)?;
    let last = notes.pop()?;
    notes.is_empty().then_some(last.note)
}

/// Appends the mappings of a process, seen at a time.
pub(crate) fn save_mappings(time: u64, mappings: &[Mapping], out: &mut Vec<u8>) {
    let mut run = Vec::new();
    notes::put_mappings(&mut run, 0, time, 0, mappings);
    put_bytes(out, &run);
}

/// What [`save_mappings`] wrote.
pub(crate) fn load_mappings(input: &mut Input<'_>) -> Option<(u64, Vec<Mapping>)> {
    if let Note::Mappings { time, mappings, .. } = one_note(input)? { Some((time, mappings)) } else { None }
}

/// Appends what the backend has counted, by name.
pub(crate) fn save_counters(pid: Option<u32>, counters: &Counters, out: &mut Vec<u8>) {
    let mut run = Vec::new();
    notes::put_counters(&mut run, 0, 0, pid, counters);
    put_bytes(out, &run);
}

/// What [`save_counters`] wrote.
pub(crate) fn load_counters(input: &mut Input<'_>) -> Option<(Option<u32>, Counters)> {
    if let Note::Counters { pid, counters, .. } = one_note(input)? { Some((pid, counters)) } else { None }
}

impl Saved for Layout {
    fn save(&self, out: &mut Vec<u8>) {
        let mut run = Vec::new();
        notes::put_layout(0, 0, self, |put| put(&mut run, 0));
        put_bytes(out, &run);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut notes = notes::decode(input.bytes()?)?.into_iter();
        let Note::Outline(mut outline) = notes.next()?.note else { return None };
        for placed in notes {
            let Note::Chunks { chunks, .. } = placed.note else { return None };
            outline.add(&chunks);
        }
        outline.complete()
    }
}
