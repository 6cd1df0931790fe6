//! Wherever a model was before, what it tells of a moment is what a reading of the recording up to that moment makes.

use super::Modelling;
use super::course::Course;
use super::figures::Shown;
use super::worker::{Target, Worker};
use crate::capture::Sink as _;
use crate::glibc::Version;
use crate::heap::{Footprint, Heaps};
use crate::model::{CHOICES, Choice, Lifetimes, Models, Recipe, Setting};
use crate::recording::{Header, Item, Reader, Writer};
use crate::report::ReportBuilder;
use crate::report::policies::{Outcome, Real};
use crate::server::limits::Places;
use crate::server::player::{Command, Extent, Player};
use crate::server::queries::State;
use crate::server::source::Source;
use crate::server::sources::Sources;
use crate::server::watching::Watching;
use crate::target::Mapping;
use memfrag_common::{Event, Function, Op};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PID: u32 = 100;
const BASE: u64 = 0x5500_0000_0000;

#[derive(Clone, Debug)]
enum Step {
    Alloc(u32, u64, u64),
    Free(u32, u64),
    Resize(u32, u64, u64),
    Leave(u32),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let (tid, at) = (|| 0..3_u32, || 0..40_u64);
    let step = prop_oneof![
        20 => (tid(), at(), 1..200_000_u64).prop_map(|(tid, at, size)| Step::Alloc(tid, at, size)),
        16 => (tid(), at()).prop_map(|(tid, at)| Step::Free(tid, at)),
        4 => (tid(), at(), 1..3000_u64).prop_map(|(tid, at, size)| Step::Resize(tid, at, size)),
        1 => (1..3_u32).prop_map(Step::Leave),
        3 => Just(Step::Flush),
    ];
    let wait = prop_oneof![6 => 0..200_000_000_i64, 2 => Just(0), 2 => -150_000_000..0_i64];
    prop::collection::vec((wait, step), 1..150)
}

fn record(path: &Path, steps: &[(i64, Step)]) {
    let mut writer = Writer::create(path, &Header { backend: "ebpf".into(), ..Header::default() }).unwrap();
    writer.set_patience(Duration::MAX);
    let libc = Mapping { path: "/lib/libc-2.36.so".into(), executable: true, ..Mapping::default() };
    writer.mappings(0, PID, &[libc]);
    let (mut time, mut last) = (1_000_000_000_u64, 0);
    for (wait, step) in steps {
        time = time.saturating_add_signed(*wait);
        last = last.max(time);
        let addr = |at: u64| BASE + at * 0x40_000 + 16;
        let (malloc, realloc) = (Function::Malloc, Function::Realloc);
        let (thread, ops) = match *step {
            Step::Flush => {
                writer.flush();
                continue;
            }
            Step::Alloc(thread, at, size) => {
                let caller = 0x1000 + at % 5;
                let (function, addr) = (malloc, addr(at));
                (thread, vec![Op::Alloc { function, align_log2: 0, addr, size, site: caller, stack: 0 }])
            }
            Step::Free(thread, at) => {
                (thread, vec![Op::Free { function: Function::Free, addr: addr(at), size: 0, site: 0 }])
            }
            Step::Resize(thread, at, size) => (
                thread,
                vec![
                    Op::ReallocBegin { function: realloc, old: addr(at), size, site: 1 },
                    Op::ReallocEnd { function: realloc, addr: addr(at), size, site: 1, stack: 0 },
                ],
            ),
            Step::Leave(thread) => (thread, vec![Op::ThreadExit]),
        };
        let events: Vec<Event> = ops.into_iter().map(|op| Event { time, pid: PID, tid: PID + thread, op }).collect();
        writer.events(&events);
    }
    writer.finish(last + 1, None).unwrap();
}

/// The recipe for a policy, as the verb `model` has it.
fn recipe(reader: &Reader, choice: &'static Choice) -> Recipe {
    let setting = Setting {
        version: Version { major: 2, minor: 36 },
        arena_max: 8,
        environment: Vec::new(),
        lifetimes: Lifetimes::default(),
    };
    let mut builder = ReportBuilder::new(None);
    let mut items = reader.items();
    while let Some(item) = items.next_item() {
        builder.take(item);
    }
    let heaps: &Heaps = builder.heaps();
    let recipe = Recipe::new(heaps, PID, &setting, vec![choice]);
    if let Some(learner) = recipe.learner() {
        read(Models::new(learner), reader, None);
    }
    recipe
}

/// A reading as the verb `model` does it.
fn read(mut models: Models, reader: &Reader, until: Option<u64>) -> Models {
    let mut items = until.map_or_else(|| reader.items(), |until| reader.items_until(until));
    while let Some(item) = items.next_item() {
        if let Item::Events(events) = item {
            models.apply_all(events);
        }
    }
    models
}

/// All that the documents tell of a policy.
fn outcome(models: &Models) -> Option<Value> {
    let heap = models.heap(PID)?;
    let policy = heap.policies()[0].as_ref();
    assert!(policy.name() == "compact" || policy.held().windows(2).all(|pair| pair[0].end < pair[1].start));
    let oddities = format!("{:?}", heap.oddities());
    Some(json!([Outcome::new(heap, policy), heap.live_blocks(), format!("{:?}", policy.held()), oddities]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_moment_looks_the_same_wherever_one_comes_from(
        steps in steps(),
        places in prop::collection::vec((0..5_u8, 0..1000_u64), 1..8),
        choice in 0..CHOICES.len(),
        (spacing, most_kept) in (1..60_u64, prop_oneof![Just(0), Just(40_000), Just(u64::MAX)]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        record(&path, &steps);
        let reader = Reader::open(&path).unwrap();
        let recipe = recipe(&reader, &CHOICES[choice]);
        let mut course = Course::new(recipe.clone(), &reader);
        course.keep_close(spacing, most_kept);
        for (kind, share) in places {
            let time = reader.last_time() * share / 1000;
            // Going to the end by the number of events is what a live cursor does.
            let (extent, until) = match kind {
                0 => (Extent::Event(reader.last_event()), None),
                _ => (Extent::Time(time), Some(time)),
            };
            while !course.approach(&reader, extent, &mut || true) {}
            let seen = course.look(&reader, extent, |models, _| outcome(models));
            let expected = outcome(&read(Models::new(recipe.factory()), &reader, until));
            prop_assert_eq!(seen, expected, "at {:?}", extent);
        }
    }

    /// By the number of events: against the first so many of them in the portions of the recording.
    #[test]
    fn a_number_of_events_looks_the_same_too(steps in steps(), numbers in prop::collection::vec(0..200_u64, 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mfrag");
        record(&path, &steps);
        let reader = Reader::open(&path).unwrap();
        let recipe = recipe(&reader, Choice::find("default").unwrap());
        let mut course = Course::new(recipe.clone(), &reader);
        course.keep_close(7, u64::MAX);
        for number in numbers {
            let number = number.min(reader.last_event());
            let extent = Extent::Event(number);
            while !course.approach(&reader, extent, &mut || true) {}
            let (seen, events) = course.look(&reader, extent, |models, cursor| (outcome(models), cursor.event()));
            prop_assert_eq!(events, number);
            let mut models = Models::new(recipe.factory());
            let (mut items, mut left) = (reader.items(), number as usize);
            while let Some(item) = items.next_item() {
                if let Item::Events(events) = item
                    && left > 0
                {
                    let taken = events.len().min(left);
                    models.apply_all(&events[..taken]);
                    left -= taken;
                }
            }
            prop_assert_eq!(seen, outcome(&models), "before {}", number);
        }
    }
}

/// A program of which something stays and something goes, in some chunks.
fn program() -> Vec<(i64, Step)> {
    let mut steps = Vec::new();
    for round in 0..2000_u64 {
        let thread = (round % 3) as u32;
        steps.push((1_000_000, Step::Alloc(thread, round % 40, 100 + round * 37 % 5000)));
        if round % 3 > 0 {
            steps.push((500_000, Step::Free(thread, (round * 7) % 40)));
        }
        if round % 100 == 99 {
            steps.push((0, Step::Flush));
        }
    }
    steps
}

/// Goes to a time with a player, as a client does, and gives what there is to see.
fn target(source: &Arc<Source>, at_ns: u64) -> Target {
    let mut player = Player::new(Arc::clone(source));
    player.command(Command::Seek { at_ns }, Duration::ZERO);
    while player.status().state != crate::server::player::State::Paused {
        player.advance(Duration::ZERO, &mut || true);
    }
    let events = player.status().events;
    Target { extent: player.extent(), at_ns: player.at_ns(), events, state: State::of(&mut player) }
}

fn wait(worker: &Worker) -> Shown {
    let begun = Instant::now();
    loop {
        if let Some(shown) = worker.news()
            && shown.behind_events == 0
        {
            return shown;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_worker_tells_what_the_verb_tells_beside_what_the_report_tells() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record(&path, &program());
    let source = Source::open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    let places = Places::new(1);
    for choice in CHOICES {
        let recipe = recipe(&reader, choice);
        // The one before has ended, or ends soon.
        let begun = Instant::now();
        let place = loop {
            match places.take() {
                Some(place) => break place,
                None => assert!(begun.elapsed() < Duration::from_secs(10), "a place did not come back"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let worker = Worker::begin(recipe.clone(), source.reader(), place).unwrap();
        // Forwards, back, and to the end.
        for share in [600, 400, 900, 1000] {
            let time = reader.last_time() * share / 1000;
            assert!(worker.give(target(&source, time)));
            let Shown { at_ns, model, real, cells, .. } = wait(&worker);
            let (model, real, cells) = (model.unwrap(), real.unwrap(), cells.unwrap());
            let models = read(Models::new(recipe.factory()), &reader, Some(time));
            let heap = models.heap(PID).unwrap();
            let expected = Outcome::new(heap, heap.policies()[0].as_ref());
            assert_eq!(at_ns, time);
            assert_eq!(json!(model.outcome), json!(expected), "{} at {time}", choice.name);
            assert_eq!(model.live_blocks, heap.live_blocks());
            assert!(model.outcome.resident_bound_bytes.is_multiple_of(4096));
            assert!(model.outcome.resident_bound_bytes >= model.outcome.taken_bytes || choice.name == "mesh");
            check_real(&real, &reader, time);
            assert_eq!(real.live_blocks, model.live_blocks);
            assert_eq!(real.requested_bytes, model.outcome.requested_bytes);
            let text = serde_json::to_value(&cells).unwrap();
            let held = |side: &str| text[side].as_str().unwrap().len() as u64 / 4 * 3 * cells.bytes;
            assert!(held("real") + 3 * cells.bytes > real.footprint_bytes);
            assert!(held("model") + 3 * cells.bytes > model.outcome.final_footprint_bytes);
        }
    }
}

/// What a client is told until a model is where the cursor is, or there is none.
fn told(modelling: &mut Modelling, watching: &Watching, sources: &Arc<Sources>, places: &Places) -> Value {
    let begun = Instant::now();
    loop {
        if let Some(message) = modelling.tell(watching, sources, places, tokio::time::Instant::now()) {
            let told: Value = serde_json::from_str(&message.text()).unwrap();
            if told["behind_events"] == 0 {
                return told;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_client_has_the_policy_that_it_chose_or_is_told_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mfrag");
    record(&path, &program());
    let sources = Arc::new(Sources::new(Source::open(&path).unwrap()));
    let mut watching = Watching::new(&sources, 0, PID).unwrap();
    // The cursor moves until all has been read.
    let begun = Instant::now();
    while watching.stage().status().state != crate::server::player::State::Ended {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
    let places = Places::new(1);
    let mut modelling = Modelling::default();
    let now = tokio::time::Instant::now();
    assert!(modelling.tell(&watching, &sources, &places, now).is_none(), "nothing was chosen");
    assert_eq!(modelling.choose(Some("worst-fit")), Err("there is no such policy".to_owned()));
    modelling.choose(Some("ptmalloc")).unwrap();
    let end = told(&mut modelling, &watching, &sources, &places);
    let kind = [&end["type"], &end["source"], &end["pid"], &end["policy"]];
    assert_eq!(kind.map(Value::to_string), ["\"model\"", "0", "100", "\"ptmalloc\""]);
    let reader = Reader::open(&path).unwrap();
    let recipe = recipe(&reader, Choice::find("ptmalloc").unwrap());
    let models = read(Models::new(recipe.factory()), &reader, None);
    let heap = models.heap(PID).unwrap();
    let expected = json!(Outcome::new(heap, heap.policies()[0].as_ref()));
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&end["model"][name], value, "{name}");
    }
    assert_eq!(end["events"], reader.last_event());
    // Its place is taken for as long as it is wanted.
    let mut other = Modelling::default();
    other.choose(Some("first-fit")).unwrap();
    let refused = told(&mut other, &watching, &sources, &places);
    assert!(refused["problem"].as_str().unwrap().contains("as many models"), "{refused}");
    assert!(other.tell(&watching, &sources, &places, now).is_none(), "told once");
    modelling.choose(None).unwrap();
    let begun = Instant::now();
    while places.taken() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "a place did not come back");
        std::thread::sleep(Duration::from_millis(1));
    }
    other.choose(Some("first-fit")).unwrap();
    assert_eq!(told(&mut other, &watching, &sources, &places)["problem"], Value::Null);
    // Whoever watches another process has the model of that one.
    watching.choose(PID + 1);
    let none = told(&mut other, &watching, &sources, &places);
    assert_eq!((&none["pid"], &none["problem"]), (&json!(PID + 1), &json!("the recording holds no process 101")));
}

/// Against what the verb tells, and the report's own state.
fn check_real(real: &Real, reader: &Reader, time: u64) {
    let mut builder = ReportBuilder::new(Some(time));
    let mut items = reader.items_until(time);
    while let Some(item) = items.next_item() {
        builder.take(item);
    }
    let heaps = builder.heaps();
    let heap = heaps.heap(heaps.find(PID).unwrap());
    assert_eq!((real.live_blocks, real.requested_bytes), (heap.live().blocks, heap.live().bytes));
    assert_eq!(real, &Real::new(heap, builder.last_residency(heaps.index_of(PID).unwrap()), time));
    assert_eq!(heap.pages().footprint(), Footprint::Glibc);
    assert_eq!(real.taken_bytes, heap.taken_bytes());
    assert_eq!(real.resident_bound_bytes, heap.pages().in_use() * 4096);
    assert!(real.free_bytes + real.taken_bytes >= real.footprint_bytes);
    assert!(real.largest_hole_bytes <= real.free_bytes && (real.holes == 0) == (real.free_bytes == 0));
}
