//! The function table: every symbol under which an allocator offers its functions.

use memfrag_common::Function;
use std::collections::HashMap;
use std::sync::OnceLock;

/// A general register, by its number in x86-64 instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the registers' own names say it")]
pub enum Register {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl Register {
    /// All registers, in order of their number.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];
}

/// What a call does to blocks, and so what its probes report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Makes a block: reported when the call returns.
    Alloc,
    /// Moves or resizes a block: reported when the call begins and when it returns.
    Realloc,
    /// Gives a block back: reported when the call begins.
    Free,
}

/// Which arguments a function takes, in the order of the C declaration, and the register that holds each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arguments {
    /// `(size)`
    Size(Register),
    /// `(size, flags)`, jemalloc's `mallocx`: the low six bits of the flags are the alignment's logarithm.
    SizeFlags(Register, Register),
    /// `(size, alignment)`, the aligned `operator new`.
    SizeAlign(Register, Register),
    /// `(count, size)`
    CountSize(Register, Register),
    /// `(alignment, size)`
    AlignSize(Register, Register),
    /// `(out, alignment, size)`: the block's address is written to `*out`.
    OutAlignSize(Register, Register, Register),
    /// `(block)`
    Pointer(Register),
    /// `(block, size)`
    PointerSize(Register, Register),
    /// `(block, count, size)`
    PointerCountSize(Register, Register, Register),
    /// `(block, alignment, size)`
    PointerAlignSize(Register, Register, Register),
    /// `(block, size, alignment)`
    PointerSizeAlign(Register, Register, Register),
}

impl Arguments {
    /// The registers, in the order of the declaration.
    pub fn registers(&self) -> impl Iterator<Item = Register> + use<> {
        let (list, len) = match *self {
            Self::Size(a) | Self::Pointer(a) => ([a, a, a], 1),
            Self::SizeFlags(a, b)
            | Self::SizeAlign(a, b)
            | Self::CountSize(a, b)
            | Self::AlignSize(a, b)
            | Self::PointerSize(a, b) => ([a, b, b], 2),
            Self::OutAlignSize(a, b, c)
            | Self::PointerCountSize(a, b, c)
            | Self::PointerAlignSize(a, b, c)
            | Self::PointerSizeAlign(a, b, c) => ([a, b, c], 3),
        };
        list.into_iter().take(len)
    }

    /// The same arguments in other registers.
    #[must_use]
    pub fn map(self, mut to: impl FnMut(Register) -> Register) -> Self {
        match self {
            Self::Size(a) => Self::Size(to(a)),
            Self::SizeFlags(a, b) => Self::SizeFlags(to(a), to(b)),
            Self::SizeAlign(a, b) => Self::SizeAlign(to(a), to(b)),
            Self::CountSize(a, b) => Self::CountSize(to(a), to(b)),
            Self::AlignSize(a, b) => Self::AlignSize(to(a), to(b)),
            Self::OutAlignSize(a, b, c) => Self::OutAlignSize(to(a), to(b), to(c)),
            Self::Pointer(a) => Self::Pointer(to(a)),
            Self::PointerSize(a, b) => Self::PointerSize(to(a), to(b)),
            Self::PointerCountSize(a, b, c) => Self::PointerCountSize(to(a), to(b), to(c)),
            Self::PointerAlignSize(a, b, c) => Self::PointerAlignSize(to(a), to(b), to(c)),
            Self::PointerSizeAlign(a, b, c) => Self::PointerSizeAlign(to(a), to(b), to(c)),
        }
    }

    /// The register that holds the block which a call gives back or resizes.
    pub fn pointer(&self) -> Option<Register> {
        match *self {
            Self::Pointer(a)
            | Self::PointerSize(a, _)
            | Self::PointerCountSize(a, ..)
            | Self::PointerAlignSize(a, ..)
            | Self::PointerSizeAlign(a, ..) => Some(a),
            _ => None,
        }
    }
}

/// One symbol of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The symbol, without a version.
    pub symbol: &'static str,
    /// The function that it names.
    pub function: Function,
    /// What a call does.
    pub shape: Shape,
    /// Where its arguments are when it is called.
    pub arguments: Arguments,
}

impl Entry {
    /// Whether the symbol belongs to C++: such functions are often thin covers of the C functions.
    pub fn is_operator(&self) -> bool {
        matches!(self.function, Function::OperatorNew | Function::OperatorDelete)
    }
}

const fn entry(symbol: &'static str, function: Function, shape: Shape, arguments: Arguments) -> Entry {
    Entry { symbol, function, shape, arguments }
}

const SIZE: Arguments = Arguments::Size(Register::Rdi);
const SIZE_FLAGS: Arguments = Arguments::SizeFlags(Register::Rdi, Register::Rsi);
const SIZE_ALIGN: Arguments = Arguments::SizeAlign(Register::Rdi, Register::Rsi);
const COUNT_SIZE: Arguments = Arguments::CountSize(Register::Rdi, Register::Rsi);
const ALIGN_SIZE: Arguments = Arguments::AlignSize(Register::Rdi, Register::Rsi);
const OUT_ALIGN_SIZE: Arguments = Arguments::OutAlignSize(Register::Rdi, Register::Rsi, Register::Rdx);
const POINTER: Arguments = Arguments::Pointer(Register::Rdi);
const POINTER_SIZE: Arguments = Arguments::PointerSize(Register::Rdi, Register::Rsi);
const POINTER_COUNT_SIZE: Arguments = Arguments::PointerCountSize(Register::Rdi, Register::Rsi, Register::Rdx);
const POINTER_ALIGN_SIZE: Arguments = Arguments::PointerAlignSize(Register::Rdi, Register::Rsi, Register::Rdx);
const POINTER_SIZE_ALIGN: Arguments = Arguments::PointerSizeAlign(Register::Rdi, Register::Rsi, Register::Rdx);

/// Every symbol, the best-known first: where several name the same code, the first gives it its function.
pub const TABLE: &[Entry] = &[
    entry("malloc", Function::Malloc, Shape::Alloc, SIZE),
    entry("calloc", Function::Calloc, Shape::Alloc, COUNT_SIZE),
    entry("realloc", Function::Realloc, Shape::Realloc, POINTER_SIZE),
    entry("free", Function::Free, Shape::Free, POINTER),
    entry("memalign", Function::Memalign, Shape::Alloc, ALIGN_SIZE),
    entry("aligned_alloc", Function::AlignedAlloc, Shape::Alloc, ALIGN_SIZE),
    entry("posix_memalign", Function::PosixMemalign, Shape::Alloc, OUT_ALIGN_SIZE),
    entry("valloc", Function::Valloc, Shape::Alloc, SIZE),
    entry("pvalloc", Function::Pvalloc, Shape::Alloc, SIZE),
    entry("reallocarray", Function::Reallocarray, Shape::Realloc, POINTER_COUNT_SIZE),
    entry("cfree", Function::Cfree, Shape::Free, POINTER),
    entry("free_sized", Function::FreeSized, Shape::Free, POINTER_SIZE),
    entry("free_aligned_sized", Function::FreeAlignedSized, Shape::Free, POINTER_ALIGN_SIZE),
    entry("mallocx", Function::Mallocx, Shape::Alloc, SIZE_FLAGS),
    entry("rallocx", Function::Rallocx, Shape::Realloc, POINTER_SIZE),
    entry("dallocx", Function::Dallocx, Shape::Free, POINTER),
    entry("sdallocx", Function::Sdallocx, Shape::Free, POINTER_SIZE),
    // operator new and new[]: plain, nothrow, aligned, aligned nothrow.
    entry("_Znwm", Function::OperatorNew, Shape::Alloc, SIZE),
    entry("_Znam", Function::OperatorNew, Shape::Alloc, SIZE),
    entry("_ZnwmRKSt9nothrow_t", Function::OperatorNew, Shape::Alloc, SIZE),
    entry("_ZnamRKSt9nothrow_t", Function::OperatorNew, Shape::Alloc, SIZE),
    entry("_ZnwmSt11align_val_t", Function::OperatorNew, Shape::Alloc, SIZE_ALIGN),
    entry("_ZnamSt11align_val_t", Function::OperatorNew, Shape::Alloc, SIZE_ALIGN),
    entry("_ZnwmSt11align_val_tRKSt9nothrow_t", Function::OperatorNew, Shape::Alloc, SIZE_ALIGN),
    entry("_ZnamSt11align_val_tRKSt9nothrow_t", Function::OperatorNew, Shape::Alloc, SIZE_ALIGN),
    // operator delete and delete[]: plain, nothrow, sized, aligned, sized and aligned, aligned nothrow.
    entry("_ZdlPv", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdaPv", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdlPvRKSt9nothrow_t", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdaPvRKSt9nothrow_t", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdlPvm", Function::OperatorDelete, Shape::Free, POINTER_SIZE),
    entry("_ZdaPvm", Function::OperatorDelete, Shape::Free, POINTER_SIZE),
    entry("_ZdlPvSt11align_val_t", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdaPvSt11align_val_t", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdlPvmSt11align_val_t", Function::OperatorDelete, Shape::Free, POINTER_SIZE_ALIGN),
    entry("_ZdaPvmSt11align_val_t", Function::OperatorDelete, Shape::Free, POINTER_SIZE_ALIGN),
    entry("_ZdlPvSt11align_val_tRKSt9nothrow_t", Function::OperatorDelete, Shape::Free, POINTER),
    entry("_ZdaPvSt11align_val_tRKSt9nothrow_t", Function::OperatorDelete, Shape::Free, POINTER),
];

/// The position in [`TABLE`] of a symbol (without version), if it is an allocator's function.
pub fn rank(symbol: &str) -> Option<usize> {
    static INDEX: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    let index = INDEX.get_or_init(|| TABLE.iter().enumerate().map(|(rank, entry)| (entry.symbol, rank)).collect());
    index.get(symbol).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_stands_once_and_every_function_has_one() {
        for (position, entry) in TABLE.iter().enumerate() {
            assert_eq!(rank(entry.symbol), Some(position), "{}", entry.symbol);
        }
        for function in Function::ALL {
            assert!(TABLE.iter().any(|entry| entry.function == *function), "{function:?}");
        }
        assert_eq!(rank("mallocs"), None);
    }

    #[test]
    fn frees_and_reallocations_take_a_block_and_allocations_take_none() {
        for entry in TABLE {
            let arguments = entry.arguments;
            assert_eq!(arguments.pointer().is_some(), entry.shape != Shape::Alloc, "{}", entry.symbol);
            assert_eq!(arguments.map(|register| register), arguments);
            let order = [Register::Rdi, Register::Rsi, Register::Rdx];
            assert!(arguments.registers().zip(order).all(|(have, want)| have == want), "{}", entry.symbol);
        }
    }
}
