//! The functions of an allocator, by number.

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $symbol:literal;)*) => {
        /// The allocator function through which an event came.
        ///
        /// The numbers are part of the wire format and of the recording: they are only ever added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Function { $($(#[$doc])* $name = $value,)* }

        impl Function {
            /// Every function, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The function with this number, if there is one.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name under which people know the function: its C symbol, or the C++ operator.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $symbol,)* }
            }
        }
    };
}

functions! {
    /// `malloc(size)`.
    Malloc = 1, "malloc";
    /// `calloc(count, size)`; the event carries the product.
    Calloc = 2, "calloc";
    /// `realloc(old, size)`.
    Realloc = 3, "realloc";
    /// `reallocarray(old, count, size)`; the event carries the product.
    Reallocarray = 4, "reallocarray";
    /// `memalign(alignment, size)`.
    Memalign = 5, "memalign";
    /// `aligned_alloc(alignment, size)`; in glibc the same code as `memalign`, so probes cannot tell them apart.
    AlignedAlloc = 6, "aligned_alloc";
    /// `posix_memalign(out, alignment, size)`.
    PosixMemalign = 7, "posix_memalign";
    /// `valloc(size)`: page-aligned.
    Valloc = 8, "valloc";
    /// `pvalloc(size)`: page-aligned, the size rounded up to pages.
    Pvalloc = 9, "pvalloc";
    /// `free(block)`.
    Free = 10, "free";
    /// `cfree(block)`: an old alias of `free`.
    Cfree = 11, "cfree";
    /// C23's `free_sized(block, size)`.
    FreeSized = 12, "free_sized";
    /// C23's `free_aligned_sized(block, alignment, size)`.
    FreeAlignedSized = 13, "free_aligned_sized";
    /// C++ `operator new` of any form, where the allocator itself defines it.
    OperatorNew = 14, "operator new";
    /// C++ `operator delete` of any form, where the allocator itself defines it.
    OperatorDelete = 15, "operator delete";
    /// jemalloc's `mallocx(size, flags)`.
    Mallocx = 16, "mallocx";
    /// jemalloc's `rallocx(block, size, flags)`.
    Rallocx = 17, "rallocx";
    /// jemalloc's `dallocx(block, flags)`.
    Dallocx = 18, "dallocx";
    /// jemalloc's `sdallocx(block, size, flags)`.
    Sdallocx = 19, "sdallocx";
}

impl Function {
    /// The same function with those names folded into one that share their code in glibc
    /// (`aligned_alloc` is `memalign`, `cfree` is `free`): what two backends can agree upon.
    #[must_use]
    pub const fn canonical(self) -> Self {
        match self {
            Self::AlignedAlloc => Self::Memalign,
            Self::Cfree => Self::Free,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for &function in Function::ALL {
            assert_eq!(Function::from_u8(function as u8), Some(function));
        }
        assert_eq!(Function::from_u8(0), None);
        assert_eq!(Function::from_u8(255), None);
    }
}
