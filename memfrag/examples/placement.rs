//! Shows where the probes of a file go, and prints the instructions as lines for the tests' fixtures.
//!
//! ```text
//! cargo run -p memfrag --example placement -- [--fixture ORIGIN] FILE…
//! ```

#![allow(clippy::print_stdout, reason = "printing is all it is for")]

use memfrag::probes::elf::Image;
use memfrag::probes::table::TABLE;
use memfrag::probes::{Class, Placement, ProbePlan, plan};
use memfrag::target::file::MappedFile;
use std::fmt::Write as _;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut origin = None;
    if arguments.next_if(|argument| argument == "--fixture").is_some() {
        origin = arguments.next().map(|origin| origin.to_string_lossy().into_owned());
    }
    for path in arguments {
        let path = Path::new(&path);
        match &origin {
            Some(origin) => fixture(path, origin)?,
            None => table(&plan(path)?),
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn placed(placement: &Placement) -> String {
    let class = match placement.class {
        Class::Emulated => "emulated",
        Class::SingleStepped => "single-stepped",
    };
    let null = if placement.skips_null { ", past free(NULL)" } else { "" };
    format!("+{:#04x} {:<14} {class}{null}", placement.offset, hex(&placement.instruction))
}

fn table(plan: &ProbePlan) {
    let version = plan.version.as_deref().unwrap_or("?");
    println!("{}: {} {version}, build-id {}", plan.path.display(), plan.allocator, hex(&plan.build_id));
    println!("  allocator's code {:#x}..{:#x}", plan.code.start, plan.code.end);
    for point in &plan.points {
        println!("  {:<16} {:#08x} {}", point.function.name(), point.start, placed(&point.placement));
        if point.names.len() > 1 {
            println!("  {:24} = {}", "", point.names[1..].join(", "));
        }
        if !point.placement.why.is_empty() {
            println!("  {:24}   passed over: {}", "", point.placement.why);
        }
        if let Some(moved) = &point.moved {
            println!("  {:24}   with moved arguments: {} {:?}", "", placed(moved), moved.arguments);
        }
    }
    for left in &plan.left_out {
        println!("  without a probe: {} ({})", left.names.join(", "), left.reason);
    }
    println!();
}

/// Functions up to this size are printed whole, longer ones cut: what is behind cannot matter for the entry's first
/// bytes, unless it branches back to them.
const WHOLE: usize = 1280;
const CUT: usize = 256;

/// One line a function, `symbol address offset instruction null|- code`, under one that says where the file is from.
fn fixture(path: &Path, origin: &str) -> anyhow::Result<()> {
    let plan = plan(path)?;
    let file = MappedFile::open(path)?;
    let image = Image::parse(&file)?;
    println!("file {origin}, build-id {}", hex(&plan.build_id));
    for point in &plan.points {
        let symbol = image.allocator_symbols.iter().find(|symbol| TABLE[symbol.rank].symbol == point.names[0]);
        let Some(symbol) = symbol.filter(|symbol| !TABLE[symbol.rank].is_operator()) else { continue };
        let code = image.code(symbol.address..symbol.address + symbol.size);
        let placement = &point.placement;
        println!(
            "{} {:#x} +{:#x} {} {} {}",
            point.names[0],
            symbol.address,
            placement.offset,
            hex(&placement.instruction),
            if placement.skips_null { "null" } else { "-" },
            hex(if code.len() <= WHOLE { code } else { cut(code) }),
        );
    }
    println!();
    Ok(())
}

/// The first instructions.
fn cut(code: &[u8]) -> &[u8] {
    let mut end = 0;
    for instruction in iced_x86::Decoder::with_ip(64, code, 0, iced_x86::DecoderOptions::NONE) {
        if end + instruction.len() > CUT {
            break;
        }
        end += instruction.len();
    }
    &code[..end]
}
