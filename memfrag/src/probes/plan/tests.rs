//! Plans of real libraries and programs, and of damaged ones.

use super::*;
use crate::probes::Class;
use proptest::prelude::*;
use std::process::Command;

/// Symbol, offset within the function, first byte of the instruction, and whether null passes by.
type Expected = (&'static str, u32, u8, bool);

/// The placements that were found by reading the disassembly of the libraries of Debian 12.
const DEBIAN_12: &[(&str, AllocatorKind, &str, &[Expected])] = &[
    (
        "/lib/x86_64-linux-gnu/libc.so.6",
        AllocatorKind::Glibc,
        "93ac61ec5a8eb1396f9fbd350e3169a558528a40",
        &[
            ("malloc", 0, 0x41, false),
            ("calloc", 0, 0x41, false),
            ("realloc", 0, 0x41, false),
            ("free", 9, 0x55, true),
            ("memalign", 7, 0x74, false),
            ("posix_memalign", 7, 0x41, false),
            ("valloc", 7, 0x53, false),
            ("pvalloc", 7, 0x53, false),
        ],
    ),
    (
        "/lib/x86_64-linux-gnu/libjemalloc.so.2",
        AllocatorKind::Jemalloc,
        "1d5163c246dc9cd2b4d339f2ac42efd95c6e0ae1",
        &[("malloc", 7, 0x0f, false), ("free", 0x30, 0x0f, false), ("sdallocx", 10, 0x77, false)],
    ),
    (
        "/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        AllocatorKind::Tcmalloc,
        "39dfd4a5855703fa6c2469749282f75b18a1aa66",
        &[("malloc", 10, 0x75, false), ("free", 10, 0x0f, false), ("posix_memalign", 11, 0x75, false)],
    ),
    (
        "/lib/x86_64-linux-gnu/libmimalloc.so.2",
        AllocatorKind::Mimalloc,
        "d07f4e7dc9a039fcbe7747f416476bd65cb48e8b",
        &[("malloc", 0, 0x48, false), ("free", 6, 0x74, false), ("posix_memalign", 0, 0xe9, false)],
    ),
    (
        "/lib/ld-musl-x86_64.so.1",
        AllocatorKind::Musl,
        "54d00df44fce62f541ca62b56bdef5bf31ff077c",
        &[("malloc", 0, 0xe9, false), ("free", 0, 0xe9, false), ("calloc", 0, 0x41, false)],
    ),
];

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes it");
    }
    text
}

#[test]
fn the_installed_libraries_are_planned_as_read_from_their_disassembly() {
    for &(path, kind, build_id, expected) in DEBIAN_12 {
        let plan = match plan(Path::new(path)) {
            Ok(plan) => plan,
            Err(error) => {
                eprintln!("skipped: {error}");
                continue;
            }
        };
        assert_eq!(plan.allocator, kind, "{path}");
        assert_eq!(plan.version.is_none(), kind == AllocatorKind::Mimalloc, "{path}: {:?}", plan.version);
        let mut offsets: Vec<u64> = plan.points.iter().map(|point| point.start).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), plan.points.len(), "{path}: one probe a function");
        for point in &plan.points {
            let Cookie { before, after, .. } = point.cookie;
            assert_eq!(point.offset, point.start + u64::from(point.placement.offset));
            assert!(u64::from(before) + u64::from(after) >= plan.code.end - plan.code.start, "{path} {point:?}");
        }
        if hex(&plan.build_id) != build_id {
            eprintln!("skipped: {path} is another build than the one that was read: {}", hex(&plan.build_id));
            continue;
        }
        for &(symbol, offset, first, skips_null) in expected {
            let point = plan.points.iter().find(|point| point.names.contains(&symbol)).expect(symbol);
            let placement = &point.placement;
            let found = (placement.offset, placement.instruction[0], placement.skips_null);
            assert_eq!(found, (offset, first, skips_null), "{path} {symbol}");
        }
    }
}

fn planned(path: &str) -> Option<ProbePlan> {
    let plan = plan(Path::new(path));
    if let Err(error) = &plan {
        eprintln!("skipped: {error}");
    }
    plan.ok()
}

#[test]
fn aliases_share_a_probe_and_covers_have_none() {
    if let Some(plan) = planned("/lib/x86_64-linux-gnu/libc.so.6") {
        let free = plan.points.iter().find(|point| point.function == Function::Free).expect("glibc frees");
        assert!(free.names.starts_with(&["free"]));
        // It jumps to realloc, which the stack tells from a call of its own.
        assert!(plan.points.iter().any(|point| point.function == Function::Reallocarray));
        assert!(plan.left_out.is_empty());
    }
    // Every free of these reaches exactly one probe, whichever operator it comes by.
    for path in ["/lib/x86_64-linux-gnu/libjemalloc.so.2", "/lib/x86_64-linux-gnu/libmimalloc.so.2"] {
        let Some(plan) = planned(path) else { continue };
        let left: Vec<_> = plan.left_out.iter().flat_map(|left| &left.names).collect();
        let probed: Vec<_> = plan.points.iter().flat_map(|point| &point.names).collect();
        assert!(left.contains(&&"_ZdlPvSt11align_val_t"), "{path}: it jumps to free");
        assert!(left.contains(&&"_ZdlPvmSt11align_val_t"), "{path}: it ends in a probed free");
        assert!(probed.contains(&&"free") && probed.contains(&&"_Znwm"), "{path}");
    }
}

#[test]
fn programs_without_symbols_and_libraries_without_malloc_are_told_apart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    let text = "#include <stdlib.h>\nint main(int c, char **v) { free(malloc(c)); return !v; }";
    std::fs::write(at.join("p.c"), text).expect("it is writable");
    let compile = |arguments: &[&str]| Command::new("cc").current_dir(at).arg("p.c").args(arguments).status();
    if !compile(&["-o", "static", "-static"]).is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no C compiler here that links statically");
        return;
    }
    assert!(compile(&["-o", "stripped", "-static", "-s"]).expect("cc runs").success());
    assert!(compile(&["-o", "dynamic"]).expect("cc runs").success());
    let whole = plan(&at.join("static")).expect("it has its symbols");
    assert_eq!(whole.allocator, AllocatorKind::Glibc);
    let functions: Vec<_> = whole.points.iter().map(|point| point.function).collect();
    for function in [Function::Malloc, Function::Calloc, Function::Realloc, Function::Free] {
        assert!(functions.contains(&function), "{function:?} in {functions:?}");
    }
    assert!(whole.points.iter().all(|point| point.placement.class == Class::Emulated), "{whole:?}");
    let musl = Command::new("musl-gcc").current_dir(at).args(["p.c", "-static", "-o", "musl"]).status();
    if musl.is_ok_and(|status| status.success()) {
        let plan = plan(&at.join("musl")).expect("it has its symbols");
        assert_eq!(plan.allocator, AllocatorKind::Musl);
        assert!(plan.points.iter().any(|point| point.function == Function::Free));
    } else {
        eprintln!("skipped: musl-gcc is not installed here");
    }
    assert!(matches!(plan(&at.join("stripped")), Err(PlanError::StaticWithoutSymbols { .. })));
    assert!(matches!(plan(&at.join("dynamic")), Err(PlanError::NoAllocator { .. })));
    let elf = |path: &Path| match plan(path) {
        Err(PlanError::Elf { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(elf(&at.join("p.c")), ElfError::NotElf);
    assert!(matches!(plan(&at.join("none")), Err(PlanError::Io { .. })));
    let mut bytes = std::fs::read(at.join("dynamic")).expect("it was made");
    bytes[4] = 1;
    std::fs::write(at.join("other"), &bytes).expect("it is writable");
    assert_eq!(elf(&at.join("other")), ElfError::ThirtyTwoBit);
    bytes[4] = 2;
    bytes[18] = 183;
    std::fs::write(at.join("other"), &bytes).expect("it is writable");
    assert_eq!(elf(&at.join("other")), ElfError::Machine(183));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_library_does_no_harm(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8), cut: u32) {
        let path = Path::new("/lib/x86_64-linux-gnu/libmimalloc.so.2");
        let Ok(mut data) = std::fs::read(path) else { return Ok(()) };
        for (at, value) in changes {
            // The headers and symbols stand at the beginning, the section headers at the end.
            let at = if value & 1 == 0 { at as usize % 0x4000 } else { data.len() - 1 - at as usize % 0x1000 };
            data[at] = value;
        }
        if cut % 4 == 0 {
            data.truncate(cut as usize % data.len());
        }
        let _ = plan_bytes(path, &data);
    }
}
