//! What the loader tells the BPF programs.

/// Most calls in flight that are remembered for one thread. More than one is rare: a signal handler that allocates
/// while the allocator is at work.
pub const MAX_IN_FLIGHT: usize = 4;

/// Which processes the allocator's probes report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// Those that the links themselves are limited to.
    Link = 0,
    /// Those in the programs' table of traced processes, to which children are added.
    Map = 1,
    /// All but the tracer.
    All = 2,
}

/// A probe's cookie: which function it sits on and where the allocator's own code lies around it.
///
/// A call whose return address lies in the allocator's own code, made while another call of the thread is in flight,
/// is that call's inner work and no event of its own. The cookie carries the distances from the probe to both ends
/// of that code, so that the test needs no address of any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// A [`crate::Function`].
    pub function: u8,
    /// Whether a free that the allocator's own code calls is its own affair even when no other call is in flight:
    /// glibc empties the cache of a thread that ends by calling `free` for blocks that the program freed long ago.
    pub frees_by_itself: bool,
    /// Bytes from the start of the allocator's code to the probe, at most 2²⁸ − 1.
    pub before: u32,
    /// Bytes from the probe to the end of the allocator's code, at most 2²⁸ − 1.
    pub after: u32,
}

impl Cookie {
    /// The top bit of the function's byte: there are far fewer functions.
    const FREES_BY_ITSELF: u8 = 0x80;
    const SPAN: u32 = (1 << 28) - 1;

    /// The cookie as the kernel hands it to the program.
    pub const fn pack(self) -> u64 {
        let before = if self.before > Self::SPAN { Self::SPAN } else { self.before };
        let after = if self.after > Self::SPAN { Self::SPAN } else { self.after };
        let function = self.function | if self.frees_by_itself { Self::FREES_BY_ITSELF } else { 0 };
        function as u64 | (before as u64) << 8 | (after as u64) << 36
    }

    /// Takes a cookie apart.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::inline_always, reason = "BPF programs are one function each")]
    pub const fn unpack(value: u64) -> Self {
        Self {
            function: value as u8 & !Self::FREES_BY_ITSELF,
            frees_by_itself: value as u8 & Self::FREES_BY_ITSELF != 0,
            before: (value >> 8) as u32 & Self::SPAN,
            after: (value >> 36) as u32 & Self::SPAN,
        }
    }
}

impl Cookie {
    /// Whether a return address lies in the allocator's own code, for a probe that is hit at `ip`.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::inline_always, reason = "BPF programs are one function each")]
    pub const fn is_own_code(self, ip: u64, address: u64) -> bool {
        address >= ip.wrapping_sub(self.before as u64) && address < ip.wrapping_add(self.after as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_round_trip_and_saturate() {
        let cookie = Cookie { function: 7, frees_by_itself: true, before: 0x0123_4567, after: 0x0fff_fff0 };
        assert_eq!(Cookie::unpack(cookie.pack()), cookie);
        let far = Cookie { function: 127, frees_by_itself: false, before: u32::MAX, after: u32::MAX };
        assert_eq!(Cookie::unpack(far.pack()), Cookie { before: Cookie::SPAN, after: Cookie::SPAN, ..far });
    }
}
