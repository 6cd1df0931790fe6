//! A walked heap for the terminal.

use super::model::{HeapReport, Sums};
use crate::report::page::{Page, Style, Tone, clean};
use crate::report::units::{bytes, count, duration, plural};

/// Arenas that get a line; the smaller ones are summed up.
const ARENAS: usize = 16;

/// The report as text, with a line feed at its end.
pub fn render(report: &HeapReport, style: Style) -> String {
    let mut page = Page::new(style);
    headline(&mut page, report);
    arenas(&mut page, report);
    sizes(&mut page, report);
    settings(&mut page, report);
    page.text
}

fn headline(page: &mut Page, report: &HeapReport) {
    let name = if report.comm.is_empty() { "(unknown)" } else { &report.comm };
    let name = page.style.paint(Tone::Heading, &clean(name));
    let allocator = &report.allocator;
    page.line(&format!("{name}  pid {} · {} {}", report.pid, allocator.name, allocator.version));
    let total = &report.total;
    let mapped = &report.mmapped;
    let arenas = plural(report.arenas.len() as u64, "arena", "arenas");
    let chunks = plural(mapped.chunks, "chunk mapped by itself", "chunks mapped by themselves");
    let heap = match mapped.chunks {
        0 => format!("{} in {arenas}", bytes(total.system_bytes)),
        _ => format!("{} in {arenas}, {} in {chunks}", bytes(total.system_bytes), bytes(mapped.bytes)),
    };
    page.field("Heap", None, &heap);
    let unused = total.cached_bytes + total.free_bytes + total.top_bytes;
    if total.system_bytes > 0 {
        let share = unused as f64 / total.system_bytes as f64 * 100.0;
        let text = format!("{} of the arenas ({share:.0} %) hold no block of the program's", bytes(unused));
        page.field("Unused", None, &text);
    }
    if report.trim_yield_bytes + report.stuck_free_bytes > 0 {
        let (given, stuck) = (bytes(report.trim_yield_bytes), bytes(report.stuck_free_bytes));
        page.field("Trim", None, &format!("malloc_trim would return {given}; {stuck} are free and would stay"));
    }
    for library in &allocator.interposed {
        let text = format!("{}, taken to hand its calls over to glibc", clean(library));
        page.field("Through", None, &text);
    }
    let walk = &report.walk;
    let stopped = match &walk.not_stopped {
        Some(why) => format!("not stopped: {why}"),
        None => format!("the process stood still for {}", duration(walk.stopped_ns)),
    };
    let again = if walk.attempts > 1 { format!(", read {} times", walk.attempts) } else { String::new() };
    if walk.discrepancies.is_empty() {
        let sums = "every sum agrees with the allocator's own";
        page.field("Read", Some(Tone::Good), &format!("{}: {stopped}{again}; {sums}", walk.confidence));
    } else {
        page.field("Read", Some(Tone::Warning), &format!("{}: {stopped}{again}", walk.confidence));
        for discrepancy in &walk.discrepancies {
            page.field("", Some(Tone::Warning), &format!("! {discrepancy}"));
        }
    }
}

fn arenas(page: &mut Page, report: &HeapReport) {
    page.head(&format!(
        "  {:<15}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "arena", "threads", "obtained", "in use", "tcache", "fastbins", "free", "top"
    ));
    let mut shown: Vec<_> = report.arenas.iter().collect();
    shown.sort_by_key(|arena| (!arena.is_main, std::cmp::Reverse(arena.sums.system_bytes)));
    let rest = shown.split_off(shown.len().min(ARENAS));
    for arena in shown {
        let name = if arena.is_main { "main".to_owned() } else { format!("{:#x}", arena.address) };
        row(page, &name, &count(arena.threads), &arena.sums);
        let parts = arena.sums.parts();
        if parts != arena.sums.system_bytes {
            let text = format!("! its parts add up to {}, which it does not count so", count(parts));
            let painted = page.style.paint(Tone::Warning, &text);
            page.line(&format!("  {painted}"));
        }
    }
    if !rest.is_empty() {
        let mut sums = Sums::default();
        for arena in &rest {
            sums.add(&arena.sums);
        }
        let threads: u64 = rest.iter().map(|arena| arena.threads).sum();
        row(page, &format!("{} more", rest.len()), &count(threads), &sums);
    }
    if report.arenas.len() > 1 {
        row(page, "all", "", &report.total);
    }
}

fn row(page: &mut Page, name: &str, threads: &str, sums: &Sums) {
    let cells =
        [sums.system_bytes, sums.used_bytes, sums.tcache_bytes, sums.fastbin_bytes, sums.free_bytes, sums.top_bytes];
    let cells = cells.map(|cell| format!("{:>11}", amount(cell))).concat();
    page.line(&format!("  {name:<15}{threads:>8}{cells}"));
    let chunks = [
        format!("{} chunks", count(sums.used_chunks)),
        number(sums.tcache_chunks),
        number(sums.fastbin_chunks),
        number(sums.free_chunks),
    ];
    let chunks = chunks.map(|cell| format!("{cell:>11}")).concat();
    // The first of these may be wider than its column, towards the empty one before it.
    let line = format!("  {:<15}{:>8}{:>11}{}", "", "", "", chunks);
    let line = page.style.paint(Tone::Quiet, &line);
    page.line(&line);
}

fn sizes(page: &mut Page, report: &HeapReport) {
    if report.sizes.is_empty() {
        return;
    }
    page.head(&format!(
        "  {:<18}{:>12}{:>11}{:>12}{:>11}{:>12}{:>11}",
        "chunks of", "in use", "", "cached", "", "free", ""
    ));
    for class in &report.sizes {
        let name = format!("{} …", amount(class.from_bytes));
        page.line(&format!(
            "  {name:<18}{:>12}{:>11}{:>12}{:>11}{:>12}{:>11}",
            number(class.used_chunks),
            amount(class.used_bytes),
            number(class.cached_chunks),
            amount(class.cached_bytes),
            number(class.free_chunks),
            amount(class.free_bytes),
        ));
    }
}

fn settings(page: &mut Page, report: &HeapReport) {
    let found = &report.parameters;
    page.line("");
    let dynamic = if found.dynamic_thresholds { "which frees may raise" } else { "which stays" };
    page.field(
        "mmap",
        None,
        &format!("chunks from {} on are mapped by themselves, a limit {dynamic}", bytes(found.mmap_threshold_bytes)),
    );
    page.field(
        "trim",
        None,
        &format!(
            "a free that leaves {} or more on top gives it back, but for {}",
            bytes(found.trim_threshold_bytes),
            bytes(found.top_pad_bytes)
        ),
    );
    let arenas = match found.arena_max {
        0 => "as many as eight a processor".to_owned(),
        max => format!("{} at most", count(max)),
    };
    page.field("arenas", None, &arenas);
    let caches = match found.tcache_count {
        0 => "none, by a tunable".to_owned(),
        each => {
            let largest = 32 + found.tcache_bins.saturating_sub(1) * 16;
            let found = plural(report.thread_caches.len() as u64, "is", "are");
            format!("each thread keeps up to {} chunks of each size up to {largest} B; {found} filled", count(each))
        }
    };
    page.field("tcache", None, &caches);
    if found.huge_page_bytes > 0 {
        let text = format!("pages of {} are asked for", bytes(found.huge_page_bytes));
        page.field("hugetlb", None, &text);
    }
}

/// Bytes, a dash for none.
fn amount(size: u64) -> String {
    if size == 0 { "–".to_owned() } else { bytes(size) }
}

/// A count, a dash for none.
fn number(chunks: u64) -> String {
    if chunks == 0 { "–".to_owned() } else { count(chunks) }
}
