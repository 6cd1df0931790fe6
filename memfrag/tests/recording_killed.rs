//! A memfrag that is killed loses at most the last second of its recording.

use memfrag::capture::Sink;
use memfrag::recording::{Header, Item, Reader, Writer};
use memfrag_common::{Event, Function, Op};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the process that is to be killed: where it records.
const VICTIM: &str = "MEMFRAG_TEST_KILLED_RECORDING";

fn event(number: u64, time: u64) -> Event {
    let op = Op::Alloc {
        function: Function::Malloc,
        align_log2: 0,
        addr: 0x1000 + number * 48,
        size: 40,
        site: 0x40_0000 + number % 7,
        stack: 0,
    };
    Event { time, pid: 1, tid: 1, op }
}

/// Not a test but the victim: records for ever, and tells each time before it records it.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let mut writer = Writer::create(Path::new(&path), &Header::default()).unwrap();
    let begin = Instant::now();
    let mut stderr = std::io::stderr();
    for number in 0.. {
        let time = begin.elapsed().as_nanos() as u64;
        stderr.write_all(&time.to_le_bytes()).unwrap();
        let events: Vec<_> = (number * 50..number * 50 + 50).map(|number| event(number, time)).collect();
        writer.events(&events);
        writer.tick(time);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_recorder_loses_at_most_a_second() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let path = dir.path().join(format!("{round}.mfrag"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = child.stderr.take().unwrap();
        let mut last = 0;
        let mut bytes = [0; 8];
        // The moment of death differs from round to round, as seen by the victim's own clock.
        let death = 1_100_000_000 + round * 173_000_000;
        while last < death {
            told.read_exact(&mut bytes).unwrap();
            last = u64::from_le_bytes(bytes);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while told.read_exact(&mut bytes).is_ok() {
            last = u64::from_le_bytes(bytes);
        }

        let reader = Reader::open(&path).unwrap();
        assert!(!reader.complete());
        let (mut count, mut time) = (0, 0);
        let mut items = reader.items();
        while let Some(item) = items.next_item() {
            match item {
                Item::Events(events) => {
                    for found in events {
                        assert_eq!(*found, event(count, found.time));
                        count += 1;
                        time = found.time;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(items.damage().chunks, 0);
        assert!(last - time <= 1_000_000_000, "round {round}: told {last}, recorded {time}");
    }
}
