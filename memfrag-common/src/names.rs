//! Which programs a trace is limited to, by the names that the kernel gives them.
//!
//! A process has the name of the file that it executes, of which the kernel keeps the first fifteen bytes and fills up
//! with zeros to sixteen (`TASK_COMM_LEN`). Tests of a name are masks and comparisons of two words, so that BPF programs
//! can make them.

/// Bytes of a name, at least the last of which is zero.
pub const NAME_BYTES: usize = 16;

/// Most names that a trace is limited to.
pub const MOST_NAMES: usize = 8;

/// Bits of what the BPF programs note of a traced process.
pub mod noted {
    /// Its children are traced, too.
    pub const FOLLOWED: u32 = 1;
    /// It is not recorded: it runs a program of another name.
    pub const LEFT_OUT: u32 = 2;
}

/// Whether names are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Limit {
    /// No: a process is recorded whatever it runs.
    #[default]
    None = 0,
    /// Of traced processes and their children.
    Family = 1,
    /// Of every process of the machine.
    Machine = 2,
}

/// A name, or the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Name {
    /// The bytes that are compared.
    value: [u64; 2],
    /// Ones where they are.
    mask: [u64; 2],
}

impl Name {
    /// What no program is called.
    const NOBODY: Self = Self { value: [u64::MAX; 2], mask: [u64::MAX; 2] };

    /// A name in full, of which no more than the kernel keeps is compared; if `begins`, what a name begins with. `None`
    /// for what no name can be: one with a zero in it, or of no bytes.
    pub fn new(text: &[u8], begins: bool) -> Option<Self> {
        if text.contains(&0) || (text.is_empty() && !begins) {
            return None;
        }
        let text = text.get(..NAME_BYTES - 1).unwrap_or(text);
        let (mut value, mut mask) = ([0; NAME_BYTES], [0; NAME_BYTES]);
        value.get_mut(..text.len())?.copy_from_slice(text);
        // The zero behind a whole name belongs to it.
        mask.get_mut(..text.len() + usize::from(!begins))?.fill(0xff);
        Some(Self { value: words(value), mask: words(mask) })
    }

    /// Whether this is the name.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::inline_always, reason = "BPF programs are one function each")]
    pub const fn matches(&self, name: [u64; 2]) -> bool {
        name[0] & self.mask[0] == self.value[0] && name[1] & self.mask[1] == self.value[1]
    }

    /// As words in shared memory.
    pub const fn to_words(self) -> [u64; 4] {
        [self.value[0], self.value[1], self.mask[0], self.mask[1]]
    }

    /// What [`Name::to_words`] gave.
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self { value: [words[0], words[1]], mask: [words[2], words[3]] }
    }
}

/// A name as the kernel keeps it, in words.
#[inline(always)]
#[must_use]
#[allow(clippy::inline_always, reason = "BPF programs are one function each")]
pub const fn words(name: [u8; NAME_BYTES]) -> [u64; 2] {
    let (halves, _) = name.as_chunks::<8>();
    [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
}

/// A name in words out of `/proc/PID/comm`, whose last byte ends the line.
pub fn words_of(comm: &[u8]) -> [u64; 2] {
    let name = comm.strip_suffix(b"\n").unwrap_or(comm);
    let mut bytes = [0; NAME_BYTES];
    bytes.iter_mut().zip(name).take(NAME_BYTES - 1).for_each(|(byte, &kept)| *byte = kept);
    words(bytes)
}

/// The bytes of a name in words, without the zeros behind it.
pub fn bytes_of(words: [u64; 2]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u64::to_ne_bytes).take_while(|&byte| byte != 0)
}

/// The names that a trace is limited to, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names([Name; MOST_NAMES]);

impl Default for Names {
    fn default() -> Self {
        Self([Name::NOBODY; MOST_NAMES])
    }
}

impl Names {
    /// These; `None` when they are too many.
    pub fn new(names: &[Name]) -> Option<Self> {
        let mut all = Self::default();
        all.0.get_mut(..names.len())?.copy_from_slice(names);
        Some(all)
    }

    /// Whether there are none, so that the trace is not limited.
    pub fn is_empty(&self) -> bool {
        self.0[0] == Name::NOBODY
    }

    /// Whether a program of this name is to be recorded.
    pub fn record(&self, name: [u64; 2]) -> bool {
        self.is_empty() || self.0.iter().any(|wanted| wanted.matches(name))
    }

    /// All places, those that are not used included: these are the name of nobody.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[(&str, bool)]) -> Names {
        let names: Vec<Name> =
            texts.iter().map(|&(text, begins)| Name::new(text.as_bytes(), begins).unwrap()).collect();
        Names::new(&names).unwrap()
    }

    #[test]
    fn a_name_is_all_of_it_or_its_beginning() {
        let exact = names(&[("cc1", false)]);
        assert!(exact.record(words_of(b"cc1\n")) && exact.record(words_of(b"cc1")));
        assert!(!exact.record(words_of(b"cc1plus")) && !exact.record(words_of(b"cc")) && !exact.record(words_of(b"")));
        let begins = names(&[("cc1", true), ("as", false)]);
        assert!(
            begins.record(words_of(b"cc1")) && begins.record(words_of(b"cc1plus")) && begins.record(words_of(b"as"))
        );
        assert!(!begins.record(words_of(b"ascii")) && !begins.record(words_of(b"cc")));
        assert!(names(&[("", true)]).record(words_of(b"anything")));
    }

    #[test]
    fn of_a_long_name_counts_what_the_kernel_keeps() {
        let long = names(&[("memfrag-with-a-long-name", false)]);
        assert!(long.record(words_of(b"memfrag-with-a-")));
        assert!(long.record(words_of(b"memfrag-with-a-long-name")));
        assert!(!long.record(words_of(b"memfrag-with-a")));
    }

    #[test]
    fn names_come_back_from_words() {
        for name in ["cc1", "", "fifteen-letters"] {
            assert_eq!(bytes_of(words_of(name.as_bytes())).collect::<Vec<_>>(), name.as_bytes());
        }
    }

    #[test]
    fn without_names_everything_is_recorded() {
        assert!(Names::default().is_empty() && Names::default().record(words_of(b"sh")));
        assert!(!names(&[("sh", false)]).is_empty());
    }

    #[test]
    fn what_is_no_name_or_one_too_many_is_refused() {
        assert_eq!(Name::new(b"", false), None);
        assert_eq!(Name::new(b"a\0b", true), None);
        let name = Name::new(b"a", false).unwrap();
        assert_eq!(Name::from_words(name.to_words()), name);
        assert!(Names::new(&[name; MOST_NAMES]).is_some());
        assert!(Names::new(&[name; MOST_NAMES + 1]).is_none());
    }
}
