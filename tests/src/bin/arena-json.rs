//! Works wholly in an arena: builds a large JSON document, parses it, sorts and queries it, and writes it again, with the
//! arena as the program's allocator and every event of it recorded.
//!
//! `arena-json FILE RECORDS`: the recording, and how many records the document has. Prints what it found, as JSON.

use anyhow::{Context, Result, ensure};
use memfrag::arena::{Event, GlobalArena, Stamp};
use memfrag::capture::Sink as _;
use memfrag::recording::{Header, Writer};
use memfrag::target::{ProcessInfo, process};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

#[global_allocator]
static ARENA: GlobalArena = GlobalArena::new(512 << 20);

/// What happened, when, and on which thread. It lies outside of the arena.
type Seen = Arc<Mutex<Vec<(u64, u32, Event)>>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, records] = words.as_slice() else { anyhow::bail!("usage: arena-json FILE RECORDS") };
    let records: u64 = records.parse().context("RECORDS is a number")?;

    let begin = Instant::now();
    let seen = watch(begin);
    let found = work(records)?;
    ARENA.observe(None);
    GlobalArena::outside(|| record(Path::new(file), &seen, begin))?;

    let figures = ARENA.figures().context("there is no arena")?;
    ensure!(figures.misuses == 0, "the arena was misused {} times", figures.misuses);
    let own = GlobalArena::outside(|| account(&seen));
    println(&json!({ "found": found, "own": own, "peak_requested": figures.peak_requested }));
    Ok(())
}

/// What the report has to say.
fn account(seen: &Seen) -> Value {
    let mut live = std::collections::HashMap::new();
    let (mut allocations, mut reallocations, mut frees) = (0_u64, 0_u64, 0_u64);
    for (_, _, event) in seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        match event {
            Event::Allocated(block) => {
                allocations += 1;
                live.insert(block.address, block.requested);
            }
            Event::Freed(block) => {
                frees += 1;
                live.remove(&block.address);
            }
            Event::Resized { before, after } => {
                reallocations += 1;
                live.remove(&before.address);
                live.insert(after.address, after.requested);
            }
            Event::Refused(_) => {}
        }
    }
    let requested: u64 = live.values().sum();
    json!({
        "totals": { "allocations": allocations, "reallocations": reallocations, "frees": frees },
        "end": { "live_blocks": live.len(), "requested_bytes": requested },
    })
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn println(value: &Value) {
    println!("{value}");
}

/// Has every event of the arena kept.
fn watch(begin: Instant) -> Seen {
    let seen = GlobalArena::outside(Seen::default);
    let film = Arc::clone(&seen);
    let observer = GlobalArena::outside(|| {
        Box::new(move |event: &Event| {
            // SAFETY: asks for a number.
            let thread = unsafe { libc::gettid() }.cast_unsigned();
            let time = begin.elapsed().as_nanos() as u64;
            film.lock().unwrap_or_else(PoisonError::into_inner).push((time, thread, *event));
        })
    });
    ARENA.observe(Some(observer));
    seen
}

/// A document of orders: parsed, sorted, summed up and written again.
fn work(records: u64) -> Result<Value> {
    let text = GlobalArena::tagged("text", || {
        let order = |n: u64| {
            let scattered = n.wrapping_mul(2_654_435_761) % 1_000_003;
            json!({
                "id": n,
                "customer": format!("customer-{}", scattered % 977),
                "amount": scattered % 10_000,
                "tags": (0..n % 5).map(|tag| format!("tag-{tag}")).collect::<Vec<_>>(),
                "note": "\u{e9}\u{fc}\n\"quoted\"".repeat((n % 7) as usize),
            })
        };
        serde_json::to_string(&(0..records).map(order).collect::<Vec<_>>())
    })?;
    let mut orders: Vec<Value> = GlobalArena::tagged("parse", || serde_json::from_str(&text))?;
    ensure!(orders.len() as u64 == records, "{} orders of {records} were parsed", orders.len());

    let amount = |order: &Value| order["amount"].as_u64().unwrap_or(u64::MAX);
    GlobalArena::tagged("sort", || {
        orders.sort_by(|a, b| amount(a).cmp(&amount(b)).then(a["id"].as_u64().cmp(&b["id"].as_u64())));
    });
    ensure!(orders.windows(2).all(|pair| amount(&pair[0]) <= amount(&pair[1])), "the orders are not sorted");
    let total: u64 = orders.iter().map(amount).sum();

    // Several threads, which free what others have allocated.
    let quarters: Vec<Vec<Value>> = {
        let each = orders.len().div_ceil(4).max(1);
        let mut quarters = Vec::new();
        while !orders.is_empty() {
            quarters.push(orders.split_off(orders.len().saturating_sub(each)));
        }
        quarters
    };
    let threads: Vec<_> = quarters
        .into_iter()
        .map(|orders| {
            std::thread::spawn(move || {
                GlobalArena::tagged("query", || {
                    let mut customers = std::collections::BTreeMap::<String, u64>::new();
                    for order in orders {
                        let name = order["customer"].as_str().unwrap_or_default().to_owned();
                        *customers.entry(name).or_default() += order["amount"].as_u64().unwrap_or(0);
                    }
                    customers
                })
            })
        })
        .collect();
    let mut customers = std::collections::BTreeMap::<String, u64>::new();
    for thread in threads {
        let part = thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?;
        for (customer, amount) in part {
            *customers.entry(customer).or_default() += amount;
        }
    }
    ensure!(customers.values().sum::<u64>() == total, "the customers' sums are not the total");
    let again: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(serde_json::to_string(&again)? == text, "the document changes when it is written again");
    Ok(json!({ "orders": records, "total": total, "customers": customers.len(), "bytes": text.len() }))
}

/// Writes what was seen as a recording of this process.
fn record(path: &Path, seen: &Seen, begin: Instant) -> Result<()> {
    let header =
        Header { backend: "arena".into(), clock: "CLOCK_MONOTONIC".into(), page_size: 4096, ..Header::default() };
    let mut writer = Writer::create(path, &header)?;
    let pid = std::process::id();
    let own = ProcessInfo::read(pid, 0)?;
    // Without libc, whose heap this is not.
    let files: Vec<_> = process::files(pid)?.into_iter().filter(|file| file.path == own.exe).collect();
    writer.process(&own);
    writer.mappings(0, pid, &files);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for part in seen.chunks(4096) {
        let events = part.iter().flat_map(|&(time, tid, event)| {
            event.recorded(Stamp { time, pid, tid, site: work as *const () as u64 + 1 })
        });
        writer.events(&events.collect::<Vec<_>>());
    }
    drop(seen);
    let summary = writer.finish(begin.elapsed().as_nanos() as u64, Some(0))?;
    ensure!(summary.complete && summary.not_recorded == 0, "the recording is not whole: {summary:?}");
    Ok(())
}
