use super::super::sideband::Told;
use super::*;
use std::process::Command;

/// No process has this id, nor those behind it.
const PID: u32 = 4_000_000_000;

fn line(start: u64, path: &str) -> MapLine {
    let text = format!("{start:x}-{:x} r-xp 00001000 00:01 77 {path}", start + PAGE);
    MapLine::parse(text.as_bytes()).expect("a line of the format")
}

fn exec(images: &mut Images, pid: u32, time: u64, comm: &str) {
    images.waiting.put(Told { time, pid, what: What::Exec { comm: comm.to_owned() } });
}

fn code(images: &mut Images, pid: u32, time: u64, line: MapLine) {
    images.waiting.put(Told { time, pid, what: What::Code(line) });
}

fn paths(images: &mut Images, pid: u32) -> Option<Vec<String>> {
    let mappings = images.untold(pid)?;
    Some(mappings.into_iter().map(|mapping| mapping.path.display().to_string()).collect())
}

#[test]
fn processes_that_are_gone_have_told_who_they_were() {
    let mut images = Images::default();
    exec(&mut images, PID, 10, "shell");
    code(&mut images, PID, 11, line(0x1000, "/no/shell"));
    exec(&mut images, PID + 1, 40, "child");
    code(&mut images, PID + 1, 41, line(0x1000, "/no/child"));
    code(&mut images, PID + 1, 50, line(0x9000, "/no/library"));

    images.come_to(20);
    images.replaced(PID, None);
    assert_eq!(paths(&mut images, PID), Some(vec!["/no/shell".to_owned()]));
    assert_eq!(paths(&mut images, PID), None, "it was said");
    let shell = images.process(PID, 5).expect("it has told");
    assert_eq!((shell.comm.as_str(), shell.exe.as_path(), shell.time), ("shell", "/no/shell".as_ref(), 5));

    images.come_to(30);
    images.forked(PID, PID + 1);
    assert_eq!(paths(&mut images, PID + 1), Some(vec!["/no/shell".to_owned()]));
    let child = images.process(PID + 1, 6).expect("it is as its parent");
    assert_eq!((child.comm.as_str(), child.ppid, child.pid), ("shell", PID, PID + 1));

    images.come_to(45);
    images.replaced(PID + 1, None);
    let child = images.process(PID + 1, 7).expect("it has told");
    assert_eq!((child.comm.as_str(), child.exe.as_path(), child.ppid), ("child", "/no/child".as_ref(), PID));
    assert_eq!(images.code(PID + 1, 0, 0x1800), Some(line(0x1000, "/no/child")));
    assert_eq!(images.code(PID + 1, 0, 0x9800), None, "not yet");
    assert_eq!(paths(&mut images, PID + 1), Some(vec!["/no/child".to_owned()]));
    images.come_to(50);
    assert_eq!(images.catch_up(), [PID + 1]);
    assert_eq!(paths(&mut images, PID + 1).map(|paths| paths.len()), Some(2));
    images.unmapped(PID + 1, 0x9000, 1);
    images.unmapped(PID + 1, 0x1001, PAGE);
    images.unmapped(PID + 1, 0x1000, u64::MAX);
    assert_eq!(paths(&mut images, PID + 1), Some(vec!["/no/child".to_owned()]));
}

#[test]
fn an_id_that_is_used_again_is_another_process() {
    let mut images = Images::default();
    exec(&mut images, PID, 10, "first");
    code(&mut images, PID, 20, line(0x1000, "/no/late"));
    exec(&mut images, PID, 30, "second");
    code(&mut images, PID, 31, line(0x1000, "/no/second"));
    images.come_to(15);
    images.replaced(PID, None);
    images.come_to(25);
    images.ending(PID);
    assert_eq!(paths(&mut images, PID), Some(vec!["/no/late".to_owned()]));
    images.ended(PID);
    assert_eq!(images.process(PID, 0), None);
    images.come_to(40);
    images.replaced(PID, None);
    assert_eq!(images.process(PID, 0).map(|info| info.comm), Some("second".to_owned()));
    assert_eq!(paths(&mut images, PID), Some(vec!["/no/second".to_owned()]));
}

#[test]
fn another_program_begins_with_its_event() {
    let mut images = Images::default();
    exec(&mut images, PID, 10, "first");
    code(&mut images, PID, 11, line(0x1000, "/no/first"));
    exec(&mut images, PID, 20, "second");
    code(&mut images, PID, 21, line(0x1000, "/no/second"));
    images.come_to(15);
    images.replaced(PID, None);
    // Events of others tell that it is later.
    images.come_to(22);
    assert_eq!(images.catch_up(), [PID]);
    assert_eq!(paths(&mut images, PID), Some(vec!["/no/first".to_owned()]));
    let mut ended = Images::default();
    std::mem::swap(&mut ended.waiting, &mut images.waiting);
    std::mem::swap(&mut ended.known, &mut images.known);
    ended.come_to(22);
    ended.ending(PID);
    assert_eq!(ended.code(PID, 0, 0x1800), Some(line(0x1000, "/no/first")), "a program that is not recorded");
    // An event that does not come in a second has been lost.
    ended.come_to(22 + PATIENCE);
    ended.catch_up();
    assert_eq!(ended.code(PID, 0, 0x1800), Some(line(0x1000, "/no/second")));
}

#[test]
fn of_who_has_told_nothing_the_event_has_the_name() {
    let mut images = Images::default();
    images.come_to(5);
    images.replaced(PID, Some("called".to_owned()));
    let info = images.process(PID, 3).expect("it has a name");
    assert_eq!((info.comm.as_str(), info.exe.as_os_str().is_empty(), info.time), ("called", true, 3));
}

#[test]
fn whoever_is_not_traced_is_forgotten() {
    let mut images = Images::default();
    exec(&mut images, PID, 10, "known");
    exec(&mut images, PID + 1, 10, "unknown");
    images.come_to(5);
    images.meet(PID);
    images.sweep(10 + PATIENCE);
    assert_eq!(images.waiting.processes(), [PID]);
}

#[test]
fn a_process_that_runs_is_looked_at() {
    let own = std::process::id();
    let mut images = Images::default();
    images.come_to(monotonic());
    images.meet(own);
    let exe = std::env::current_exe().expect("it has a path").display().to_string();
    assert!(paths(&mut images, own).is_some_and(|paths| paths.contains(&exe)));
    let here = a_process_that_runs_is_looked_at as *const () as u64;
    assert!(images.code(own, 1, here).is_some_and(|line| line.executable));
    let info = images.process(own, 9).expect("it is there");
    assert_eq!((info.exe.display().to_string(), info.time, info.cmdline.is_empty()), (exe, 9, false));
    // That it is another program by now does not tell what it was.
    let mut images = Images::default();
    exec(&mut images, own, 20, "later");
    images.come_to(10);
    images.meet(own);
    assert_eq!(paths(&mut images, own), Some(vec![]));
}

#[test]
fn what_was_lost_is_looked_for() {
    let own = std::process::id();
    let here = what_was_lost_is_looked_for as *const () as u64;
    for (began, lost, found) in [(10, 15, true), (20, 15, false)] {
        let mut images = Images::default();
        exec(&mut images, own, began, "x");
        images.waiting.lost_at = lost;
        images.come_to(30);
        images.replaced(own, None);
        assert_eq!(images.known[&own].image.at(here).is_some(), found, "{began} {lost}");
    }
}

#[test]
fn a_real_process_that_is_gone_is_known() {
    let Ok(sideband) = Sideband::open() else {
        eprintln!("skipped: no side-band events here");
        return;
    };
    let mut images = Images::new(Some(sideband));
    let mut child = Command::new("/bin/true").spawn().expect("it runs");
    let pid = child.id();
    child.wait().expect("it ends");
    images.come_to(monotonic());
    images.replaced(pid, None);
    let info = images.process(pid, 0).expect("it has told");
    assert!(info.comm == "true" && info.exe.ends_with("true"), "{info:?}");
    let paths = paths(&mut images, pid).expect("they have changed");
    assert!(paths.iter().any(|path| path.ends_with("/libc.so.6")), "{paths:?}");
    assert_eq!(images.lost(), 0);
}
