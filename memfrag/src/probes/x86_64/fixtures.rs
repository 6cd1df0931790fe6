//! Placements on the allocators of many distributions, from the bytes of their functions.
//!
//! `cargo run -p memfrag --example placement -- --fixture ORIGIN FILE` prints the lines for a file.

use super::{Class, Site, oracle, place};
use crate::probes::Shape;
use crate::probes::table::{TABLE, rank};

const FIXTURES: &str = include_str!("../../../fixtures/placement.txt");

struct Line<'a> {
    symbol: &'a str,
    address: u64,
    offset: u32,
    instruction: Vec<u8>,
    skips_null: bool,
    code: Vec<u8>,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex.trim_start_matches('+').trim_start_matches("0x"), 16).expect("a number")
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let &[symbol, address, offset, instruction, null, code] = &words[..] else { panic!("{line}") };
        Self {
            symbol,
            address: number(address),
            offset: number(offset) as u32,
            instruction: bytes(instruction),
            skips_null: null == "null",
            code: bytes(code),
        }
    }
}

/// Runs `test` on every line, with the line that says where the file is from.
fn each(mut test: impl FnMut(&str, &Line<'_>)) {
    let mut origin = "";
    for line in FIXTURES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("file ") {
            Some(file) => origin = file,
            None => test(origin, &Line::parse(line)),
        }
    }
}

#[test]
fn every_build_is_placed_as_expected() {
    let mut lines = 0;
    each(|origin, line| {
        lines += 1;
        let entry = &TABLE[rank(line.symbol).expect("a symbol of the table")];
        let site = Site {
            code: &line.code,
            address: line.address,
            arguments: entry.arguments,
            null_is_nothing: entry.shape == Shape::Free,
            standard_registers: true,
            incoming: &[],
        };
        let placement = place(&site).expect("it can carry a probe");
        let found = (placement.offset, &placement.instruction, placement.skips_null);
        assert_eq!(found, (line.offset, &line.instruction, line.skips_null), "{origin}: {}", line.symbol);
        oracle::check(&site, &placement).expect("the rules hold");
    });
    assert!(lines > 80, "only {lines} lines");
}

#[test]
fn the_c_libraries_need_no_single_steps() {
    let mut builds = 0;
    each(|origin, line| {
        if origin.contains("glibc") && ["malloc", "calloc", "realloc", "free"].contains(&line.symbol) {
            builds += u32::from(line.symbol == "malloc");
            let opcode = line.instruction[usize::from(line.instruction[0] == 0x41)];
            assert!((0x50..0x58).contains(&opcode), "{origin}: {} is not on a push", line.symbol);
            assert_eq!(line.skips_null, line.symbol == "free", "{origin}: {}", line.symbol);
        }
    });
    assert!(builds >= 2, "only {builds} builds of glibc");
}

#[test]
fn the_fallback_is_known_where_it_is_taken() {
    let mut stepped = Vec::new();
    each(|origin, line| {
        if oracle_class(&line.instruction) == Class::SingleStepped {
            let name = origin.split(',').next().unwrap_or_default();
            stepped.push(format!("{name}: {}", line.symbol));
        }
    });
    // mimalloc moves the size out of its register before its first branch, and musl's valloc before its only one.
    assert!(stepped.iter().all(|line| line.contains("mimalloc") || line.contains("valloc")), "{stepped:#?}");
}

fn oracle_class(instruction: &[u8]) -> Class {
    if super::emulated(instruction) { Class::Emulated } else { Class::SingleStepped }
}
