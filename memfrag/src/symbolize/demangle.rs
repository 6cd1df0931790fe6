//! Names as their authors wrote them.

use cpp_demangle::{DemangleOptions, ParseOptions};
use std::fmt::{self, Write};

/// Bytes of a name that are shown.
const MOST: usize = 512;
/// How deep the demanglers may go.
const DEPTH: u32 = 96;

/// A symbol's name, demangled where it is one of C++ or Rust, without parameters and hashes. Cut where it is long;
/// nothing in it can write to a terminal.
pub(super) fn demangle(symbol: &[u8]) -> String {
    let raw = String::from_utf8_lossy(symbol);
    rust(&raw).or_else(|| cpp(symbol)).unwrap_or_else(|| {
        let mut out = Bounded::default();
        out.cut(&raw);
        out.text
    })
}

fn rust(symbol: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(symbol).ok()?;
    let mut out = Bounded::default();
    // An error means that it was cut.
    let _cut = write!(out, "{demangled:#}");
    (!out.text.is_empty()).then_some(out.text)
}

fn cpp(symbol: &[u8]) -> Option<String> {
    if !symbol.starts_with(b"_Z") {
        return None;
    }
    let parse = ParseOptions::default().recursion_limit(DEPTH);
    let parsed = cpp_demangle::Symbol::new_with_options(symbol, &parse).ok()?;
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(DEPTH);
    let mut out = Bounded::default();
    let whole = parsed.structured_demangle(&mut out, &options).is_ok();
    ((whole || out.is_full) && !out.text.is_empty()).then_some(out.text)
}

/// Takes the beginning of a text. What is hostile can expand beyond all bounds.
#[derive(Default)]
struct Bounded {
    text: String,
    is_full: bool,
}

impl Bounded {
    fn cut(&mut self, text: &str) {
        for character in text.chars() {
            if self.text.len() + character.len_utf8() > MOST {
                self.text.push('…');
                self.is_full = true;
                return;
            }
            self.text.push(if character.is_control() { '?' } else { character });
        }
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.is_full {
            self.cut(text);
        }
        if self.is_full { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(symbol: &str, expected: &str) {
        assert_eq!(demangle(symbol.as_bytes()), expected);
    }

    #[test]
    fn names_are_those_of_the_source() {
        check("rdbLoadObject", "rdbLoadObject");
        check("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back");
        check("_Znwm", "operator new");
        check("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "core::ptr::drop_in_place");
        check("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar");
        check("_Zwhatever", "_Zwhatever");
        check("", "");
    }

    #[test]
    fn long_and_evil_names_are_cut_and_plain() {
        check("a\u{1b}[2Jb\n", "a?[2Jb?");
        let long = demangle(&vec![b'x'; 8000]);
        assert!(long.len() <= MOST + '…'.len_utf8() && long.ends_with('…'), "{long}");
        // Each template argument names the whole before it twice.
        let doubled: String = (0..30).flat_map(|at| ["S", ["0_", "1_", "2_"][at % 3]].repeat(2)).collect();
        let bomb = format!("_Z1fI1aS_{doubled}EvT_");
        assert!(demangle(bomb.as_bytes()).len() <= MOST + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn anything_has_a_bounded_name(start in "(_Z|_ZN|_R|_RNv|)", rest in prop::collection::vec(
            prop::sample::select(b"NSTILJEXvivccfsrDpDnKRPFMstabcd0123456789_.".to_vec()), 0..300,
        )) {
            let mut symbol = start.into_bytes();
            symbol.extend(rest);
            prop_assert!(demangle(&symbol).len() <= MOST + '…'.len_utf8());
        }
    }
}
