//! Answers against a list of all blocks that there ever were, and against one another.

use super::*;
use crate::capture::Sink as _;
use crate::heap::Footprint;
use crate::recording::{Header, Writer};
use crate::server::player::{Command, Player};
use crate::server::source::Source;
use crate::target::residency::{PAGE, Region, RegionKind, Residency};
use crate::target::{Mapping, MemorySample, ProcessInfo};
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use serde_json::json;
use std::ops::Range;
use std::time::Duration;

const PID: u32 = 7;
const BASE: u64 = 0x7f00_0000_0000;
/// Blocks begin at multiples of this, one at most in each.
const SLOT: u64 = 0x1800;
const SLOTS: u64 = 40;
const REGION: Range<u64> = BASE..BASE + SLOTS * SLOT + 0x4000;

/// A block that there was.
#[derive(Clone, Debug)]
struct Had {
    addr: u64,
    size: u64,
    from: u64,
    /// When it was not there: a reallocation took it, and perhaps gave it back.
    gone: Option<(u64, u32)>,
    away: Option<Range<u64>>,
    thread: u32,
    site: u64,
}

impl Had {
    fn is_live(&self, at: u64) -> bool {
        let away = self.away.as_ref().is_some_and(|away| away.contains(&at));
        self.from <= at && !away && self.gone.is_none_or(|(gone, _)| gone > at)
    }

    fn ended(&self, at: u64) -> Option<(u64, u32)> {
        self.gone.filter(|(gone, _)| *gone <= at)
    }
}

/// A stream of events, and what it means.
#[derive(Clone, Debug, Default)]
struct Script {
    events: Vec<Event>,
    /// Chunks end before these events.
    cuts: Vec<usize>,
    had: Vec<Had>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    slot: u64,
    to: u64,
    size: u64,
    thread: u32,
    site: u64,
    wait: u64,
    cut: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..10_u8, 0..SLOTS, 0..SLOTS, 0..SLOT - 0x40, 0..3_u32, 0..5_u64, 0..4_u64, prop::bool::weighted(0.05));
    let step = step.prop_map(|(what, slot, to, size, thread, site, wait, cut)| Step {
        what,
        slot,
        to,
        size,
        thread: PID + thread,
        site: 0x1000 + site * 0x10,
        wait: wait * 700_000,
        cut,
    });
    prop::collection::vec(step, 1..250)
}

impl Script {
    fn new(steps: &[Step]) -> Self {
        let mut script = Self::default();
        let mut time = 1000;
        let mut holder: Vec<Option<usize>> = vec![None; SLOTS as usize];
        for step in steps {
            time += step.wait;
            if step.cut {
                script.cuts.push(script.events.len());
            }
            let &Step { slot, to, size, thread, site, .. } = step;
            let addr = |slot: u64| BASE + slot * SLOT + 0x10;
            let function = Function::Malloc;
            let had = |addr, from| Had { addr, size, from, gone: None, away: None, thread, site };
            match (step.what, holder[slot as usize]) {
                (0..=4, None) => {
                    let op = Op::Alloc { function, align_log2: 0, addr: addr(slot), size, site, stack: 0 };
                    script.event(time, thread, op);
                    holder[slot as usize] = Some(script.had.len());
                    script.had.push(had(addr(slot), time));
                }
                (3..=7, Some(held)) => {
                    let op = Op::Free { function: Function::Free, addr: addr(slot), size: 0, site };
                    script.event(time, thread, op);
                    script.had[held].gone = Some((time, thread));
                    holder[slot as usize] = None;
                }
                (8, Some(held)) => {
                    // To another place, or in its own.
                    let to = if holder[to as usize].is_none() { to } else { slot };
                    let function = Function::Realloc;
                    script.event(time, thread, Op::ReallocBegin { function, old: addr(slot), size: size + 1, site });
                    script.had[held].gone = Some((time, thread));
                    holder[slot as usize] = None;
                    time += 5;
                    let op = Op::ReallocEnd { function, addr: addr(to), size: size + 1, site, stack: 0 };
                    script.event(time, thread, op);
                    holder[to as usize] = Some(script.had.len());
                    script.had.push(Had { size: size + 1, ..had(addr(to), time) });
                }
                (9, Some(held)) if script.had[held].away.is_none() => {
                    let (function, size) = (Function::Realloc, 1 << 40);
                    script.event(time, thread, Op::ReallocBegin { function, old: addr(slot), size, site });
                    script.had[held].away = Some(time..time + 5);
                    time += 5;
                    script.event(time, thread, Op::ReallocEnd { function, addr: 0, size, site, stack: 0 });
                }
                _ => {}
            }
        }
        script
    }

    fn event(&mut self, time: u64, tid: u32, op: Op) {
        self.events.push(Event { time, pid: PID, tid, op });
    }

    fn end(&self) -> u64 {
        self.events.last().map_or(1000, |event| event.time)
    }

    fn live(&self, at: u64) -> impl Iterator<Item = &Had> {
        self.had.iter().filter(move |had| had.is_live(at))
    }

    fn live_bytes(&self, at: u64) -> u64 {
        self.live(at).map(|had| had.size).sum()
    }

    /// Writes the recording; the pages are looked at when all is over, every other one being resident.
    fn record(&self) -> (tempfile::TempDir, Arc<Source>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("t.mfrag");
        let mut writer = Writer::create(&path, &Header::default()).expect("it is writable");
        writer.process(&ProcessInfo { pid: PID, comm: "toy".to_owned(), ..ProcessInfo::default() });
        let text =
            Mapping { start: 0x1000, end: 0x2000, executable: true, path: "/bin/toy".into(), ..Mapping::default() };
        let libc = Mapping { start: 0x2000, path: "/lib/libc.so.6".into(), end: 0x3000, ..text.clone() };
        writer.mappings(0, PID, &[text, libc]);
        let mut from = 0;
        for cut in self.cuts.iter().copied().chain([self.events.len()]) {
            writer.events(&self.events[from..cut]);
            writer.flush();
            from = cut;
        }
        let end = self.end();
        let resident: Vec<Range<u64>> = REGION.step_by(2 * PAGE as usize).map(|page| page..page + PAGE).collect();
        let kind = RegionKind::Anonymous;
        let bytes = resident.len() as u64 * PAGE;
        let region = Region { range: REGION, kind, resident_bytes: bytes, swapped_bytes: 0, resident };
        writer.memory(&MemorySample { time: end, pid: PID, rss: bytes, virtual_bytes: 99, ..MemorySample::default() });
        writer.residency(&Residency { time: end, pid: PID, regions: vec![region] });
        writer.finish(end, None).expect("there is room");
        let source = Source::open(&path).expect("it was written");
        (directory, source)
    }
}

/// A server with one recording.
struct Server(Arc<Source>);

impl Server {
    fn limit() -> Limit {
        Limit::new(Duration::from_mins(1))
    }

    fn states(&self) -> Recorded<impl Fn(Option<usize>) -> Option<Arc<Source>>> {
        Recorded(|number: Option<usize>| (number.unwrap_or(0) == 0).then(|| Arc::clone(&self.0)))
    }

    fn ask(&self, at_ns: u64, kind: &str, parameters: Value) -> Result<Value, QueryError> {
        let (states, limit) = (self.states(), Self::limit());
        let state = states.at(None, at_ns, &limit)?;
        let context = Context { state: &state, pid: PID, states: &states, palette: None, limit: &limit };
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        answer(kind, parameters, &context)
    }

    fn get(&self, at_ns: u64, kind: &str, parameters: Value) -> Value {
        self.ask(at_ns, kind, parameters).unwrap_or_else(|error| panic!("{kind} at {at_ns}: {error}"))
    }
}

fn sum(rows: &Value, field: &str) -> u64 {
    rows.as_array().expect("a list").iter().map(|row| row[field].as_u64().expect("a number")).sum()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}

fn amount<'a>(blocks: impl Iterator<Item = &'a Had>) -> Value {
    let (blocks, bytes) = blocks.fold((0, 0), |(blocks, bytes), had| (blocks + 1, bytes + had.size));
    json!({"blocks": blocks, "bytes": bytes})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked, the same bytes are live.
    #[test]
    fn all_answers_agree_on_what_is_live(steps in steps(), share in 0..=100_u64) {
        let script = Script::new(&steps);
        prop_assume!(!script.events.is_empty());
        let (_directory, source) = script.record();
        let server = Server(source);
        let at = script.end() * share / 100;
        prop_assume!(at >= script.events[0].time);
        let live = script.live_bytes(at);
        let report = server.get(at, "report", json!({}));
        prop_assert_eq!(number(&report["process"]["end"]["requested_bytes"]), live);
        prop_assert_eq!(number(&report["at_ns"]), at);
        let until = script.events.iter().filter(|event| event.time <= at).count() as u64;
        prop_assert_eq!(number(&report["events"]["total"]), until);
        for points in [1, 3, 2000] {
            let series = server.get(at, "series", json!({"from_ns": 0, "to_ns": at, "points": points}));
            let last = |name: &str| series[name].as_array().and_then(|list| list.last()).expect("a point").clone();
            prop_assert_eq!((number(&last("live_bytes")), number(&last("time_ns"))), (live, at));
            let allocated: u64 = script.had.iter().filter(|had| had.from <= at).map(|had| had.size).sum();
            prop_assert_eq!(number(&last("allocated_bytes")), allocated);
            prop_assert!(series["time_ns"].as_array().expect("a list").len() <= points);
            let peaks = series["live_peak_bytes"].as_array().expect("a list").iter().map(number).max();
            prop_assert_eq!(peaks, report["process"]["peak"]["requested_bytes"].as_u64());
        }
        let flame = server.get(at, "flame", json!({"measure": "live"}));
        prop_assert_eq!(number(&flame["value"]), live);
        let adds_up = |node: &Value| sum(&node["children"], "value") == number(&node["value"]);
        prop_assert!(live == 0 || adds_up(&flame));
        let count = server.get(at, "flame", json!({"measure": "count"}));
        prop_assert_eq!(number(&count["value"]), script.had.iter().filter(|had| had.from <= at).count() as u64);
        let found = server.get(at, "distributions", json!({}));
        let cells = found["live_bytes"].as_array().expect("rows").iter().flat_map(|row| row.as_array().expect("cells"));
        prop_assert_eq!(cells.map(number).sum::<u64>(), live);
        let of = |field: &str| found[field].as_array().expect("rows").clone();
        let row_sum = |row: &Value| row.as_array().expect("cells").iter().map(number).sum::<u64>();
        prop_assert_eq!(of("site_bytes").iter().map(row_sum).sum::<u64>(), live);
        for (site, row) in of("sites").iter().zip(of("site_blocks")) {
            let theirs = json!({"by": "site", "address": site["address"], "limit": 1});
            prop_assert_eq!(row_sum(&row), number(&server.get(at, "blocks", theirs)["total"]));
        }
        let ends = found["lifetimes"]["freed"].as_array().expect("rows").iter().flat_map(|row| row.as_array().expect("cells"));
        let freed = script.had.iter().filter(|had| had.ended(at).is_some());
        // A block that a reallocation has begun to move is gone when that ends.
        let moving = usize::from(script.events.iter().rfind(|event| event.time <= at).is_some_and(|event| {
            matches!(event.op, Op::ReallocBegin { size, .. } if size < 1 << 40)
        }));
        prop_assert_eq!(ends.map(number).sum::<u64>(), (freed.count() - moving) as u64);
        let mut by_site = 0;
        for site in 0..5 {
            let found = server.get(at, "blocks", json!({"by": "site", "address": hex(0x1000 + site * 0x10), "limit": 5000}));
            prop_assert_eq!(found["blocks"].as_array().expect("a list").len() as u64, number(&found["total"]));
            by_site += sum(&found["blocks"], "size");
        }
        prop_assert_eq!(by_site, live);
        if at == script.end() {
            let by_thread = server.get(at, "blame", json!({"by": "thread"}));
            let blame = server.get(at, "blame", json!({}));
            for blame in [&blame, &by_thread] {
                prop_assert_eq!(sum(&blame["sites"], "live_bytes"), live);
            }
            let ledger = &report["process"]["end"]["ledger"];
            prop_assert_eq!(number(&ledger["requested"]) + number(&ledger["untouched"]), live);
            let stranded = server.get(at, "flame", json!({"measure": "stranded"}));
            prop_assert!(number(&stranded["value"]) <= number(&blame["stuck_bytes"]));
        }
    }

    /// What grew, survived, was freed and was temporary adds up, and is what the list says.
    #[test]
    fn a_range_is_what_the_list_says(steps in steps(), shares in (0..=100_u64, 0..=100_u64)) {
        let script = Script::new(&steps);
        prop_assume!(!script.events.is_empty());
        let (_directory, source) = script.record();
        let server = Server(source);
        let at = |share: u64| (script.end() * share / 100).max(script.events[0].time);
        let (from, to) = (at(shares.0.min(shares.1)), at(shares.0.max(shares.1)));
        let range = server.get(script.end(), "range", json!({"from_ns": from, "to_ns": to}));
        let had = || script.had.iter();
        let born = |had: &Had| (from + 1..=to).contains(&had.from);
        prop_assert_eq!(&range["survivors"], &amount(had().filter(|had| had.from <= from && had.is_live(to))));
        prop_assert_eq!(&range["grown"], &amount(had().filter(|had| born(had) && had.is_live(to))));
        prop_assert_eq!(&range["temporary"], &amount(had().filter(|had| born(had) && !had.is_live(to))));
        prop_assert_eq!(&range["allocated"], &amount(had().filter(|had| born(had))));
        prop_assert_eq!(&range["freed"], &amount(had().filter(|had| had.is_live(from) && !had.is_live(to))));
        for name in ["grown", "freed", "temporary", "survivors"] {
            prop_assert_eq!(sum(&range["sites"], &format!("{name}_bytes")), number(&range[name]["bytes"]));
        }
        let compared = server.get(
            0,
            "compare",
            json!({"a": {"source": 0, "pid": PID, "at_ns": from}, "b": {"source": 0, "pid": PID, "at_ns": to}}),
        );
        prop_assert_eq!(sum(&compared["sites"], "a_bytes"), script.live_bytes(from));
        prop_assert_eq!(sum(&compared["sites"], "b_blocks"), script.live(to).count() as u64);
        prop_assert_eq!(number(&compared["b"]["process"]["end"]["requested_bytes"]), script.live_bytes(to));
        let digests = (&compared["a"]["digest"], &compared["b"]["digest"]);
        let same = script.live(from).map(|had| (had.addr, had.from)).eq(script.live(to).map(|had| (had.addr, had.from)));
        prop_assert_eq!(digests.0 == digests.1, same);
    }

    /// Who had an address, and what lies there now.
    #[test]
    fn an_address_tells_its_owners(steps in steps(), slot in 0..SLOTS, within in 0..SLOT, share in 0..=100_u64) {
        let script = Script::new(&steps);
        prop_assume!(!script.events.is_empty());
        let (_directory, source) = script.record();
        let server = Server(source);
        let at = (script.end() * share / 100).max(script.events[0].time);
        let address = BASE + slot * SLOT + within;
        let covers = |had: &&Had| (had.addr..had.addr + had.size.max(1)).contains(&address);
        let mut expected: Vec<Value> = script.had.iter().filter(|had| had.from <= at).filter(covers).map(|had| {
            let away = had.away.as_ref().filter(|away| away.contains(&at)).map(|away| away.start);
            json!({
                "address": hex(had.addr), "size": had.size, "from_ns": had.from, "thread": had.thread,
                "until_ns": had.ended(at).map(|end| end.0).or(away), "site_address": hex(had.site),
            })
        }).collect();
        expected.reverse();
        let history = server.get(at, "history", json!({"address": hex(address), "limit": 200}));
        let owners = history["owners"].as_array().expect("a list");
        let found: Vec<Value> = owners.iter().map(|owner| {
            let names = ["address", "size", "from_ns", "thread", "until_ns", "site_address"];
            Value::Object(names.iter().map(|name| ((*name).to_owned(), owner[name].clone())).collect())
        }).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(&history["complete"], &json!(true));
        let here = server.get(at, "at", json!({"address": hex(address)}));
        let live: Vec<&Had> = script.live(at).collect();
        let block = live.iter().find(|had| {
            let taken = Footprint::Glibc.of(had.addr, had.size).contains(&address);
            taken || (had.addr..had.addr + had.size).contains(&address)
        });
        prop_assert_eq!(&here["block"]["address"], &block.map_or(Value::Null, |had| json!(hex(had.addr))));
        let before = live.iter().filter(|had| had.addr < block.map_or(address, |block| block.addr)).map(|had| had.addr).max();
        prop_assert_eq!(&here["before"]["address"], &before.map_or(Value::Null, |addr| json!(hex(addr))));
        if let Some(hole) = here["hole"].as_object() {
            let at = |name: &str| u64::from_str_radix(&hole[name].as_str().expect("a text")[2..], 16).expect("hexadecimal");
            let (start, end) = (at("start"), at("end"));
            prop_assert!((start..end).contains(&address));
            let taken = live.iter().map(|had| Footprint::Glibc.of(had.addr, had.size));
            prop_assert!(taken.into_iter().all(|taken| taken.end <= start || taken.start >= end));
            prop_assert!(block.is_none());
        }
    }

    /// Pages of events put together are the recording.
    #[test]
    fn pages_of_events_are_the_recording(steps in steps(), count in 1..60_u64, slot in prop::option::of(0..SLOTS)) {
        let script = Script::new(&steps);
        let (_directory, source) = script.record();
        let server = Server(source);
        let address = slot.map(|slot| BASE + slot * SLOT + 0x10);
        let ops = slot.filter(|slot| slot % 2 == 0).map(|_| json!(["free", "realloc"]));
        let wanted = |event: &&Event| {
            let op = ops.is_none() || matches!(event.op, Op::Free { .. } | Op::ReallocEnd { .. });
            op && address.is_none_or(|address| event.block() == Some(address))
        };
        let expected: Vec<(u64, u64)> =
            (0..).zip(&script.events).filter(|(_, event)| wanted(event)).map(|(n, event)| (n, event.time)).collect();
        let mut found = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let page = server.get(script.end(), "events", json!({
                "from": at, "count": count, "ops": ops, "address": address.map(hex), "pid": slot.map(|_| PID),
            }));
            let rows = page["events"].as_array().expect("a list");
            prop_assert!(rows.len() as u64 <= count);
            found.extend(rows.iter().map(|row| (number(&row["n"]), number(&row["time_ns"]))));
            prop_assert_eq!(number(&page["total"]), script.events.len() as u64);
            from = page["next"].as_u64();
        }
        prop_assert_eq!(found, expected);
    }

    /// The holes are what lies between the blocks.
    #[test]
    fn holes_lie_between_blocks(steps in steps(), limit in 1..10_u64) {
        let script = Script::new(&steps);
        prop_assume!(!script.events.is_empty());
        let (_directory, source) = script.record();
        let server = Server(source);
        let mut live: Vec<&Had> = script.live(script.end()).collect();
        live.sort_by_key(|had| had.addr);
        let taken: Vec<Range<u64>> = live.iter().map(|had| Footprint::Glibc.of(had.addr, had.size)).collect();
        let mut expected: Vec<(u64, u64)> =
            taken.windows(2).map(|pair| (pair[1].start - pair[0].end, pair[0].end)).collect();
        expected.sort_by_key(|(bytes, start)| (std::cmp::Reverse(*bytes), *start));
        expected.truncate(limit as usize);
        let found = server.get(script.end(), "holes", json!({"limit": limit}));
        let holes = found["holes"].as_array().expect("a list");
        prop_assert_eq!(holes.len(), expected.len());
        for (hole, (bytes, start)) in holes.iter().zip(expected) {
            prop_assert_eq!((number(&hole["bytes"]), &hole["start"]), (bytes, &json!(hex(start))));
            let resident = (start..start + bytes).filter(|at| ((at - BASE) / PAGE).is_multiple_of(2)).count() as u64;
            prop_assert_eq!(number(&hole["resident_bytes"]), resident);
        }
    }
}

#[test]
fn a_digest_does_not_depend_on_the_way() {
    let blocks: Vec<Step> = (0..SLOTS)
        .map(|slot| Step {
            what: 0,
            slot,
            to: 0,
            size: 100 + slot,
            thread: PID,
            site: 0x1000,
            wait: 1000,
            cut: slot % 7 == 0,
        })
        .collect();
    let script = Script::new(&blocks);
    let (_directory, source) = script.record();
    let server = Server(Arc::clone(&source));
    let at = script.end() / 2;
    let straight = server.get(at, "report", json!({}))["digest"].clone();
    let mut player = Player::new(source);
    for at_ns in [script.end(), 0, script.end() / 3, at] {
        player.command(Command::Seek { at_ns }, Duration::ZERO);
        while player.status().state == crate::server::player::State::Seeking {
            player.advance(Duration::ZERO, &mut || true);
        }
    }
    let state = State::of(&mut player);
    let (states, limit) = (server.states(), Server::limit());
    let context = Context { state: &state, pid: PID, states: &states, palette: None, limit: &limit };
    let travelled = answer("report", Map::new(), &context).expect("the process is there")["digest"].clone();
    assert_eq!(straight, travelled);
    assert_ne!(straight, server.get(at + 1000, "report", json!({}))["digest"]);
}

#[test]
fn classes_are_those_of_the_palette_or_of_blame() {
    struct Threads;
    impl Palette for Threads {
        fn class(&self, mode: &str, value: u8) -> Option<Class> {
            (mode == "thread").then_some(Class::Thread(PID + u32::from(value)))
        }
    }
    let step = |slot, size, thread| Step { what: 0, slot, to: 0, size, thread, site: 0x1000, wait: 1, cut: false };
    let script = Script::new(&[step(0, 10, PID), step(1, 40, PID + 1), step(2, 64, PID + 1), step(3, 65, PID)]);
    let (_directory, source) = script.record();
    let server = Server(source);
    let (states, limit) = (server.states(), Server::limit());
    let state = states.at(None, script.end(), &limit).expect("it is recorded");
    let context = Context { state: &state, pid: PID, states: &states, palette: Some(&Threads), limit: &limit };
    let sizes = |parameters: Value| {
        let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
        let found = answer("blocks", parameters, &context).map_err(|error| error.to_string())?;
        Ok::<_, String>(
            found["blocks"].as_array().expect("a list").iter().map(|block| number(&block["size"])).collect(),
        )
    };
    assert_eq!(sizes(json!({"by": "thread", "value": 1, "limit": 10})), Ok(vec![64, 40]));
    assert_eq!(sizes(json!({"by": "thread", "value": "thread 7", "limit": 1})), Ok(vec![65]));
    assert_eq!(sizes(json!({"by": "size", "value": "33 to 64 B", "limit": 9})), Ok(vec![64, 40]));
    assert_eq!(sizes(json!({"by": "size", "value": "up to 16 B", "limit": 9})), Ok(vec![10]));
    let none = sizes(json!({"by": "size", "value": 3, "limit": 9})).expect_err("there is none");
    assert_eq!(none, "blocks: the palette of size has no class 3");
}

#[test]
fn what_cannot_be_answered_says_why() {
    let step = Step { what: 0, slot: 0, to: 0, size: 10, thread: PID, site: 0x1000, wait: 1, cut: false };
    let script = Script::new(&[step]);
    let (_directory, source) = script.record();
    let server = Server(source);
    let end = script.end();
    let check = |kind: &str, parameters: Value, words: &str| {
        let error = server.ask(end, kind, parameters).expect_err(kind).to_string();
        assert!(error.contains(words) && error.len() < 300, "{error:?} does not say {words:?}");
    };
    check("nonsense", json!({}), "there is no query \"nonsense\"");
    for kind in [
        "report",
        "distributions",
        "at",
        "holes",
        "series",
        "flame",
        "blame",
        "range",
        "compare",
        "history",
        "blocks",
        "events",
    ] {
        check(kind, json!({"surprise": 1}), kind);
        check(
            kind,
            json!({"address": [], "limit": -1, "measure": {}, "by": 7, "a": "b", "from": 1.5, "from_ns": "x"}),
            kind,
        );
    }
    check("at", json!({"address": 4096}), "invalid type");
    for address in ["", "0x", "4096", "0x+1", "0x1_0", "0x1ffffffffffffffff", "-0x1"] {
        check("at", json!({"address": address}), "an address is a string like");
    }
    check("series", json!({"from_ns": 0, "to_ns": 9, "points": 0}), "points is 1 to 2000, not 0");
    check("series", json!({"from_ns": 0, "to_ns": 9, "points": 2001}), "points is 1 to 2000");
    check("series", json!({"from_ns": 10, "to_ns": 9, "points": 1}), "from_ns is later than to_ns");
    check("series", json!({"from_ns": -1, "to_ns": 9, "points": 1}), "invalid value");
    check("range", json!({"from_ns": 10, "to_ns": 9}), "from_ns is later than to_ns");
    check("history", json!({"address": "0x1", "limit": 201}), "limit is 1 to 200");
    check("holes", json!({"limit": 1_000_000}), "limit is 1 to 5000");
    check("blocks", json!({"by": "site", "limit": 5}), "either value or address");
    check("blocks", json!({"by": "size", "address": "0x1", "limit": 5}), "is not site");
    check("blocks", json!({"by": "thread", "value": "thread x", "limit": 5}), "there is no thread");
    check("events", json!({"from": 0, "count": 501}), "count is 1 to 500");
    check("events", json!({"from": 0, "count": 5, "ops": ["malloc"]}), "there is no op \"malloc\"");
    check("blame", json!({"by": "moon"}), "unknown variant");
    check("flame", json!({"measure": "\u{1b}[2J".repeat(1000)}), "unknown variant");
    let missing = json!({"source": 3, "pid": PID, "at_ns": 0});
    check("compare", json!({"a": missing, "b": missing}), "there is no source 3");
    // Numbers at the ends of their ranges are numbers like any others.
    for address in [0, 1, u64::MAX] {
        server.get(end, "at", json!({"address": hex(address)}));
        server.get(end, "history", json!({"address": hex(address), "limit": 1}));
    }
    server.get(end, "range", json!({"from_ns": 0, "to_ns": u64::MAX}));
    server.get(end, "series", json!({"from_ns": 0, "to_ns": u64::MAX, "points": 2000}));
    server.get(end, "series", json!({"from_ns": u64::MAX, "to_ns": u64::MAX, "points": 1}));
    assert_eq!(server.get(end, "events", json!({"from": u64::MAX, "count": 1}))["next"], Value::Null);
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let step = Step { what: 0, slot: 0, to: 0, size: 10, thread: PID, site: 0x1000, wait: 1, cut: false };
    let script = Script::new(&[step]);
    let (_directory, source) = script.record();
    let server = Server(source);
    let states = server.states();
    let state = states.at(None, script.end(), &Server::limit()).expect("it is recorded");
    let ask = |limit: &Limit| {
        let context = Context { state: &state, pid: PID, states: &states, palette: None, limit };
        answer("report", Map::new(), &context).map(drop)
    };
    assert_eq!(ask(&Limit::new(Duration::ZERO)), Err(QueryError::TooLong { seconds: 0 }));
    let limit = Server::limit();
    assert_eq!(ask(&limit), Ok(()));
    limit.clone().cancel();
    assert_eq!(ask(&limit), Err(QueryError::Cancelled));
    let other = Context { state: &state, pid: 99, states: &states, palette: None, limit: &Server::limit() };
    assert_eq!(
        answer("report", Map::new(), &other).map(drop),
        Err(QueryError::NoProcess { pid: 99, at_ns: script.end() })
    );
}
