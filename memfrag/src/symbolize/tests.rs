use super::*;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, SegmentFlags, SymbolKind};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

const SOURCE: &str = r#"
#include <stdlib.h>
__attribute__((noinline)) static void *hidden(size_t n) { return malloc(n + 1); }
__attribute__((noinline)) void *open_one(size_t n) { return hidden(n) ? malloc(n) : 0; }
__attribute__((noinline)) void *open_two(size_t n) { return open_one(n + 2); }
extern __typeof(open_two) other_name __attribute__((alias("open_two")));
extern __typeof(open_two) __plain_name __attribute__((alias("open_two")));
"#;

const MAIN: &str = "int main(int c, char **v) { return !open_two(c) + !v; }";

/// A directory with the source compiled by `arguments`; `None` where there is no compiler.
fn compiled(arguments: &[&str]) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("p.c"), format!("{SOURCE}{MAIN}")).expect("it is writable");
    let made =
        Command::new("cc").current_dir(&directory).args(["p.c", "-O1", "-Wl,--build-id"]).args(arguments).status();
    if made.is_err() {
        eprintln!("skipped: there is no C compiler here");
        return None;
    }
    assert!(made.is_ok_and(|status| status.success()));
    Some(directory)
}

/// Functions that a file defines, with the range of the file that holds their code.
fn functions(path: &Path) -> Vec<(String, std::ops::Range<u64>)> {
    let bytes = fs::read(path).expect("it was made");
    let file = ElfFile64::<object::Endianness>::parse(&*bytes).expect("it is whole");
    let offset = |address: u64| {
        let held = file.segments().find(|segment| {
            let executable = matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & 1 != 0);
            executable && (segment.address()..segment.address() + segment.size()).contains(&address)
        });
        held.map(|segment| address - segment.address() + segment.file_range().0)
    };
    let all = file.symbols().chain(file.dynamic_symbols());
    let defined = all.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.size() > 0);
    let functions = defined.filter_map(|symbol| {
        let start = offset(symbol.address())?;
        Some((symbol.name().ok()?.to_owned(), start..start + symbol.size()))
    });
    functions.collect()
}

fn place(path: &Path, offset: u64) -> Place<'_> {
    let inode = fs::metadata(path).expect("it is there").ino();
    Place { path, inode, offset, seen_ns: u64::MAX }
}

fn named(symbols: &Symbols, path: &Path, offset: u64) -> Option<String> {
    symbols.function(&place(path, offset)).map(|function| function.name)
}

#[test]
fn every_byte_of_a_program_has_the_name_of_its_function() {
    let Some(directory) = compiled(&["-o", "p"]) else { return };
    let path = directory.path().join("p");
    let symbols = Symbols::new(1);
    let functions = functions(&path);
    for name in ["main", "hidden", "open_one", "open_two"] {
        let (_, code) = functions.iter().find(|function| function.0 == name).expect("it is in the source");
        for call in code.clone() {
            let found = symbols.function(&place(&path, call + 1)).expect("it is in a function");
            // Of the names of one function, the one that is nobody's inner affair.
            let allowed: &[&str] = if name == "open_two" { &["open_two", "other_name"] } else { &[name] };
            assert!(allowed.contains(&found.name.as_str()), "{found:?} for {name}");
            assert_eq!(found.offset, call + 1 - code.start);
        }
    }
    assert_eq!(symbols.function(&place(&path, 0)), None);
    assert_eq!(symbols.function(&place(&path, 1)), None, "the ELF header holds no code");
    assert_eq!(symbols.function(&place(&path, u64::MAX)), None);
}

#[test]
fn a_stripped_library_names_what_it_exports_and_nothing_else() {
    let Some(directory) = compiled(&["-shared", "-fPIC", "-o", "l.so"]) else { return };
    let path = directory.path().join("l.so");
    let functions = functions(&path);
    let strip = Command::new("strip").arg("-s").arg(&path).status();
    assert!(strip.is_ok_and(|status| status.success()), "strip comes with the compiler");
    let symbols = Symbols::new(0);
    for (name, code) in functions.iter().filter(|function| function.0 != "open_two" && !function.0.contains("_name")) {
        let exported = matches!(name.as_str(), "open_one" | "main");
        let found = named(&symbols, &path, code.start + 1);
        assert_eq!(found.as_deref(), exported.then_some(name.as_str()), "{name}");
    }
}

#[test]
fn a_debug_file_of_the_same_build_names_the_rest() {
    let Some(directory) = compiled(&["-o", "p"]) else { return };
    let at = directory.path();
    let path = at.join("p");
    let hidden = functions(&path).into_iter().find(|function| function.0 == "hidden").expect("it is in the source").1;
    let bytes = fs::read(&path).expect("it was made");
    let elf = ElfFile64::<object::Endianness>::parse(&*bytes).expect("it is whole");
    let id = elf.build_id().expect("it is whole").expect("it was asked for");
    let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = at.join(format!(".build-id/{}/{}.debug", hex[0], hex[1..].concat()));
    fs::create_dir_all(debug.parent().expect("it has one")).expect("it is writable");
    let split = |arguments: &[&Path]| {
        let status = Command::new("objcopy").args(arguments).status().expect("objcopy comes with the compiler");
        assert!(status.success());
    };
    split(&[Path::new("--only-keep-debug"), &path, &debug]);
    split(&[Path::new("--strip-all"), &path]);
    let with = |debug_files: &Path| Symbols { debug_files: debug_files.into(), ..Symbols::new(0) };
    assert_eq!(named(&with(at), &path, hidden.start + 1).as_deref(), Some("hidden"));
    assert_eq!(named(&with(Path::new("/nowhere")), &path, hidden.start + 1), None);
    // A debug file of another build, under the right name.
    fs::write(at.join("q.c"), "int main(void) { return 7; }").expect("it is writable");
    let made = Command::new("cc").current_dir(at).args(["q.c", "-Wl,--build-id", "-o", "q"]).status();
    assert!(made.is_ok_and(|status| status.success()));
    split(&[Path::new("--only-keep-debug"), &at.join("q"), &debug]);
    assert_eq!(named(&with(at), &path, hidden.start + 1), None);
}

#[test]
fn a_file_that_is_not_the_mapped_one_has_no_names() {
    let Some(directory) = compiled(&["-o", "p"]) else { return };
    let path = directory.path().join("p");
    let main = functions(&path).into_iter().find(|function| function.0 == "main").expect("it is in the source").1;
    let offset = main.start + 1;
    let right = place(&path, offset);
    assert!(Symbols::new(0).function(&right).is_some());
    assert_eq!(Symbols::new(0).function(&Place { inode: right.inode + 1, ..right }), None);
    assert_eq!(Symbols::new(0).function(&Place { path: Path::new("p"), ..right }), None);
    assert_eq!(Symbols::new(0).function(&Place { path: directory.path(), ..right }), None);
    let changed = fs::metadata(&path).expect("it is there");
    let changed = (changed.ctime() * 1_000_000_000 + changed.ctime_nsec()).unsigned_abs();
    let seen = |seen_ns| Symbols::new(changed - CLOCKS_APART - 10).function(&Place { seen_ns, ..right });
    assert!(seen(10).is_some(), "it was changed before it was mapped");
    assert_eq!(seen(9), None, "it was changed since");
    // Names stay known once the file was opened, as long as the process has it mapped.
    let symbols = Symbols::new(0);
    assert!(symbols.function(&right).is_some());
    fs::remove_file(&path).expect("it is there");
    assert!(symbols.function(&right).is_some());
    assert_eq!(Symbols::new(0).function(&right), None);
}

#[test]
fn what_is_no_program_has_no_names() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello"), ("magic", b"\x7fELF\x02\x01\x01")] {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("it is writable");
        assert_eq!(named(&Symbols::new(0), &path, 4), None);
    }
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    assert_eq!(named(&Symbols::new(0), &pipe, 4), None, "and nobody waits for a writer");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever a file says, looking for names ends, and gives only names that are in it.
    #[test]
    fn a_damaged_file_does_no_harm(
        cut in prop::option::of(any::<prop::sample::Index>()),
        changes in prop::collection::vec((0..4096_usize, any::<u8>()), 0..40),
        far in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
    ) {
        let Some(directory) = compiled(&["-o", "p"]) else { return Ok(()) };
        let path = directory.path().join("p");
        let mut bytes = fs::read(&path).expect("it was made");
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        for (at, byte) in far {
            bytes[at.index(length)] = byte;
        }
        bytes.truncate(cut.map_or(length, |cut| cut.index(length)));
        fs::write(&path, &bytes).expect("it is writable");
        let symbols = Symbols::new(0);
        for offset in (0..length as u64 + 100).step_by(41) {
            if let Some(name) = named(&symbols, &path, offset) {
                prop_assert!(name.len() < 600);
            }
        }
    }
}
