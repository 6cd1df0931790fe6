//! ELF files: what of them matters for finding and probing an allocator.

use crate::probes::table;
use object::elf::{
    ELFCLASS32, ELFCLASS64, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE,
};
use object::read::elf::{Dyn as _, ElfFile, FileHeader as _, ProgramHeader as _, Sym as _};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationTarget,
};
use std::collections::HashMap;
use std::ops::Range;
use thiserror::Error;

/// Why a file cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// It does not begin with the ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// It is made for 32-bit processes.
    #[error("a 32-bit file; memfrag traces 64-bit programs only")]
    ThirtyTwoBit,
    /// It is made for another processor.
    #[error("made for processor type {0} (ELF e_machine), not for x86-64 (62); probes can be placed on x86-64 only")]
    Machine(u16),
    /// It is neither a program nor a shared library.
    #[error("ELF type {0}, neither a program (2) nor a shared library (3)")]
    Kind(u16),
    /// Its tables contradict each other.
    #[error("damaged ELF file: {0}")]
    Damaged(String),
}

/// A loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First virtual address.
    pub address: u64,
    /// Bytes that come from the file.
    pub size: u64,
    /// Where in the file they begin.
    pub offset: u64,
    /// Whether the bytes may run.
    pub executable: bool,
}

/// A symbol of an allocator function (see [`table::TABLE`]) that the file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorSymbol {
    /// Its position in [`table::TABLE`].
    pub rank: usize,
    /// Its virtual address.
    pub address: u64,
    /// Bytes of the function; 0 when the file does not say.
    pub size: u64,
    /// Whether the address is that of a resolver, which picks the function when the file is loaded.
    pub indirect: bool,
}

/// A function that a file defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'data> {
    /// Its name, without a version.
    pub name: &'data str,
    /// Its virtual address.
    pub address: u64,
    /// Its bytes; 0 when the file does not say.
    pub size: u64,
}

/// Symbols that tell allocators apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a find of its own; a file may have several")]
pub struct Markers {
    /// `gnu_get_libc_version`, or `malloc_info`, which a static program gets along with `malloc`: glibc.
    pub glibc: bool,
    /// `__libc_start_main`, in whichever C library.
    pub libc: bool,
    /// `_IO_2_1_stdout_`: some part of glibc, but not necessarily its allocator.
    pub glibc_stdio: bool,
    /// `mallctl`, with or without a prefix: jemalloc.
    pub jemalloc: bool,
    /// `tc_malloc`, or google's `MallocExtension` entry points: tcmalloc.
    pub tcmalloc: bool,
    /// `mi_malloc`: mimalloc.
    pub mimalloc: bool,
}

impl Markers {
    fn note(&mut self, symbol: &str) {
        match symbol {
            "gnu_get_libc_version" | "malloc_info" => self.glibc = true,
            "__libc_start_main" => self.libc = true,
            "_IO_2_1_stdout_" => self.glibc_stdio = true,
            "mallctl" | "je_mallctl" | "_rjem_mallctl" => self.jemalloc = true,
            "mi_malloc" => self.mimalloc = true,
            "tc_malloc" | "MallocExtension_Internal_GetNumericProperty" => self.tcmalloc = true,
            _ => {}
        }
    }
}

/// What was read of an ELF file. Virtual addresses are those of the file, before relocation.
#[derive(Debug)]
pub struct Image<'data> {
    /// The file's bytes.
    pub data: &'data [u8],
    /// Loadable segments, by address.
    pub segments: Vec<Segment>,
    /// The build-id; empty when there is none.
    pub build_id: Vec<u8>,
    /// The name that a library gives itself.
    pub soname: Option<String>,
    /// The program interpreter of a dynamically linked program.
    pub interpreter: Option<String>,
    /// Libraries that it needs, in order.
    pub needed: Vec<String>,
    /// `DT_RUNPATH`.
    pub runpath: Option<String>,
    /// `DT_RPATH`.
    pub rpath: Option<String>,
    /// Whether it names any function of its own.
    pub has_symbols: bool,
    /// Whether it holds the Go toolchain's build information.
    pub is_go: bool,
    /// Allocator functions that it defines, in order of their rank.
    pub allocator_symbols: Vec<AllocatorSymbol>,
    /// Symbols that tell which allocator it is.
    pub markers: Markers,
    /// Slots of the global offset table, with the address of the file's own symbol that each asks for.
    slots: HashMap<u64, u64>,
    file: ElfFile<'data, FileHeader64<Endianness>>,
}

impl<'data> Image<'data> {
    /// Reads a file's headers and symbols.
    ///
    /// # Errors
    /// Says what kind of file it is where it cannot be probed; see [`ElfError`].
    pub fn parse(data: &'data [u8]) -> Result<Self, ElfError> {
        if data.get(..4) != Some(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        match data.get(4).copied() {
            Some(ELFCLASS64) => {}
            Some(ELFCLASS32) => return Err(ElfError::ThirtyTwoBit),
            _ => return Err(ElfError::Damaged("its class is neither 32 nor 64 bits".into())),
        }
        let damaged = |error: object::read::Error| ElfError::Damaged(error.to_string());
        let header = FileHeader64::<Endianness>::parse(data).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        if header.e_machine(endian) != EM_X86_64 {
            return Err(ElfError::Machine(header.e_machine(endian)));
        }
        let kind = header.e_type(endian);
        if kind != ET_DYN && kind != ET_EXEC {
            return Err(ElfError::Kind(kind));
        }
        let file = ElfFile::<FileHeader64<Endianness>>::parse(data).map_err(damaged)?;
        let mut image = Self {
            data,
            segments: Vec::new(),
            build_id: file.build_id().ok().flatten().unwrap_or_default().to_vec(),
            soname: None,
            interpreter: None,
            needed: Vec::new(),
            runpath: None,
            rpath: None,
            has_symbols: false,
            is_go: file.section_by_name(".go.buildinfo").is_some(),
            allocator_symbols: Vec::new(),
            markers: Markers::default(),
            slots: HashMap::new(),
            file,
        };
        image.read_segments(endian);
        image.read_dynamic(endian);
        image.read_symbols(endian);
        Ok(image)
    }

    fn read_segments(&mut self, endian: Endianness) {
        for header in self.file.elf_program_headers() {
            match header.p_type(endian) {
                object::elf::PT_LOAD => self.segments.push(Segment {
                    address: header.p_vaddr(endian),
                    size: header.p_filesz(endian),
                    offset: header.p_offset(endian),
                    executable: header.p_flags(endian) & object::elf::PF_X != 0,
                }),
                object::elf::PT_INTERP => {
                    let bytes = header.interpreter(endian, self.data).ok().flatten();
                    self.interpreter = bytes.map(|path| String::from_utf8_lossy(path).into_owned());
                }
                _ => {}
            }
        }
        self.segments.sort_by_key(|segment| segment.address);
    }

    /// Reads the dynamic section through the program headers alone, as the loader does.
    fn read_dynamic(&mut self, endian: Endianness) {
        let headers = self.file.elf_program_headers();
        let Some(entries) = headers.iter().find_map(|header| header.dynamic(endian, self.data).ok().flatten()) else {
            return;
        };
        let entries: Vec<(i64, u64)> = entries
            .iter()
            .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
            .take_while(|&(tag, _)| tag != object::elf::DT_NULL)
            .collect();
        let value = |wanted: i64| entries.iter().find(|(tag, _)| *tag == wanted).map(|&(_, value)| value);
        let Some(strings) = value(object::elf::DT_STRTAB).and_then(|address| self.bytes_from(address)) else {
            return;
        };
        let size = value(object::elf::DT_STRSZ).map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX));
        let strings = &strings[..strings.len().min(size)];
        let string = |at: u64| -> Option<String> {
            let rest = strings.get(usize::try_from(at).ok()?..)?;
            let end = rest.iter().position(|&byte| byte == 0)?;
            Some(String::from_utf8_lossy(&rest[..end]).into_owned())
        };
        self.soname = value(object::elf::DT_SONAME).and_then(string);
        self.runpath = value(object::elf::DT_RUNPATH).and_then(string);
        self.rpath = value(object::elf::DT_RPATH).and_then(string);
        let needed = entries.iter().filter(|(tag, _)| *tag == object::elf::DT_NEEDED);
        self.needed = needed.filter_map(|&(_, at)| string(at)).collect();
    }

    fn read_symbols(&mut self, endian: Endianness) {
        let tables = [self.file.elf_dynamic_symbol_table(), self.file.elf_symbol_table()];
        let mut found = Vec::new();
        let mut markers = Markers::default();
        let mut has_symbols = false;
        for table in tables {
            for symbol in table.iter() {
                let kind = symbol.st_type();
                if symbol.is_undefined(endian) {
                    continue;
                }
                has_symbols |= matches!(kind, STT_FUNC | STT_GNU_IFUNC);
                // Local symbols of these names are something else: a program may have its own static `free`.
                if !matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK) {
                    continue;
                }
                let Some(name) = symbol.name(endian, table.strings()).ok().and_then(|name| str::from_utf8(name).ok())
                else {
                    continue;
                };
                markers.note(name);
                let address = symbol.st_value(endian);
                if matches!(kind, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE)
                    && let Some(rank) = table::rank(name)
                    && self.file_offset(address).is_some()
                {
                    let size = symbol.st_size(endian);
                    found.push(AllocatorSymbol { rank, address, size, indirect: kind == STT_GNU_IFUNC });
                }
            }
        }
        found.sort_by_key(|symbol| (symbol.rank, symbol.address));
        found.dedup_by_key(|symbol| (symbol.rank, symbol.address));
        self.allocator_symbols = found;
        self.markers = markers;
        self.has_symbols = has_symbols;
    }

    /// The functions that the file defines for others, by address; none in a static program.
    pub fn functions(&self) -> Vec<Function<'data>> {
        let table = self.file.elf_dynamic_symbol_table();
        let defined =
            table.iter().filter(|symbol| symbol.st_type() == STT_FUNC && !symbol.is_undefined(Endianness::Little));
        let mut functions: Vec<Function<'data>> = defined
            .filter_map(|symbol| {
                Some(Function {
                    name: str::from_utf8(symbol.name(Endianness::Little, table.strings()).ok()?).ok()?,
                    address: symbol.st_value(Endianness::Little),
                    size: symbol.st_size(Endianness::Little),
                })
            })
            .collect();
        functions.sort_by_key(|function| (function.address, function.name));
        functions
    }

    /// Whether the file defines `malloc`, so that its callers may get its blocks.
    pub fn defines_malloc(&self) -> bool {
        self.allocator_symbols.first().is_some_and(|symbol| symbol.rank == 0)
    }

    /// Whether it carries its own allocator, as a static program does, and nothing to find that by. The allocator of
    /// Go's programs is Go's own, which offers no `malloc` anyway.
    pub fn is_static_without_symbols(&self) -> bool {
        self.interpreter.is_none() && self.soname.is_none() && !self.has_symbols && !self.is_go
    }

    /// The file offset of a virtual address in an executable segment.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.executable_segment(address)?;
        (address - segment.address).checked_add(segment.offset)
    }

    fn executable_segment(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| {
            segment.executable && address.checked_sub(segment.address).is_some_and(|distance| distance < segment.size)
        })
    }

    /// The addresses of the executable segment that holds `address`.
    pub fn executable_range(&self, address: u64) -> Option<Range<u64>> {
        let segment = self.executable_segment(address)?;
        Some(segment.address..segment.address.checked_add(segment.size)?)
    }

    /// The file's bytes of a range of executable addresses, cut at the end of the segment; empty when there are none.
    pub fn code(&self, range: Range<u64>) -> &'data [u8] {
        let Some(segment) = self.executable_segment(range.start) else { return &[] };
        let left = segment.size - (range.start - segment.address);
        let size = range.end.saturating_sub(range.start).min(left);
        let cut = || {
            let start = usize::try_from(self.file_offset(range.start)?).ok()?;
            let rest = self.data.get(start..)?;
            Some(&rest[..rest.len().min(usize::try_from(size).ok()?)])
        };
        cut().unwrap_or_default()
    }

    /// The bytes of any loaded segment from an address to the segment's end in the file.
    fn bytes_from(&self, address: u64) -> Option<&'data [u8]> {
        let segment = self
            .segments
            .iter()
            .find(|segment| address.checked_sub(segment.address).is_some_and(|distance| distance < segment.size))?;
        let within = address - segment.address;
        let start = usize::try_from(segment.offset.checked_add(within)?).ok()?;
        let rest = self.data.get(start..)?;
        Some(&rest[..rest.len().min(usize::try_from(segment.size - within).ok()?)])
    }

    /// The virtual addresses of a section; `None` when there is none of this name.
    pub fn section_range(&self, name: &str) -> Option<Range<u64>> {
        let section = self.file.section_by_name(name)?;
        Some(section.address()..section.address().checked_add(section.size())?)
    }

    /// The bytes of a section, uncompressed as it stands; empty when there is none of this name.
    pub fn section(&self, name: &str) -> &'data [u8] {
        self.file.section_by_name(name).and_then(|section| section.data().ok()).unwrap_or_default()
    }

    /// The address that a slot of the global offset table gets when the file's own definition of its symbol is bound.
    /// Known after [`Image::read_slots`].
    pub fn slot(&self, address: u64) -> Option<u64> {
        self.slots.get(&address).copied()
    }

    /// Reads the relocations that bind slots of the global offset table.
    pub fn read_slots(&mut self) {
        let (Some(relocations), Some(symbols)) = (self.file.dynamic_relocations(), self.file.dynamic_symbol_table())
        else {
            return;
        };
        for (slot, relocation) in relocations {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            if let Ok(symbol) = symbols.symbol_by_index(index)
                && symbol.is_definition()
            {
                self.slots.insert(slot, symbol.address());
            }
        }
    }
}
