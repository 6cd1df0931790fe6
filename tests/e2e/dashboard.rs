//! `memfrag serve` over real sockets: what clients get, and what they cannot do to the server or to each other.

use anyhow::{Context, Result, ensure};
use memfrag::capture::Sink as _;
use memfrag::recording::{Header, Writer};
use memfrag_common::{Event, Function, Op};
use memfrag_tests::dashboard::{Client, Dashboard};
use memfrag_tests::memfrag::{Backend, Report, memfrag, traced};
use memfrag_tests::{events, place, tests};
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tungstenite::Message;

tests!(
    a_client_is_greeted_and_told_what_the_report_says,
    the_cursor_moves,
    tiles_come_as_they_are_asked_for_and_acknowledged,
    eight_clients_and_no_more,
    a_client_that_never_reads_holds_nobody_up,
    whatever_a_client_sends_the_server_lives,
    clients_come_again,
    recordings_go_out_and_come_back,
    who_watches_what_is_removed_is_told,
    what_is_lost_meanwhile_is_told,
    nothing_is_served_to_strangers,
    a_growing_file_is_cut_behind_its_last_whole_chunk,
);

/// A recording of some thousand events, made once.
fn recording() -> Result<&'static Path> {
    static RECORDING: OnceLock<Result<(tempfile::TempDir, PathBuf), String>> = OnceLock::new();
    let made = RECORDING.get_or_init(|| {
        let make = || {
            let dir = place::scratch()?;
            let path = dir.path().join("exits.mfrag");
            let mut target = Command::new(place::program("exits_by")?);
            traced(Backend::Preload, &path, target.args(["status", "0"]))?;
            Ok((dir, path))
        };
        make().map_err(|error: anyhow::Error| format!("{error:#}"))
    });
    made.as_ref().map(|(_, path)| path.as_path()).map_err(|error| anyhow::anyhow!("{error}"))
}

fn serve(recording: &Path) -> Result<Dashboard> {
    Dashboard::start(memfrag(&["serve", "--addr", "0"])?.arg(recording))
}

/// A client that watches the largest process of the first recording.
fn watching(dashboard: &Dashboard) -> Result<(Client, u64)> {
    let (mut client, _) = dashboard.connect()?;
    let status = client.wait("status", |status| status["state"] == "ended" && status["pid"] != 0)?;
    Ok((client, status["pid"].as_u64().context("no pid")?))
}

fn a_client_is_greeted_and_told_what_the_report_says() -> Result<()> {
    let report = Report::of(recording()?)?;
    let dashboard = serve(recording()?)?;
    let (mut client, hello) = dashboard.connect()?;
    let source = &hello["sources"][0];
    ensure!(source["source"] == 0 && source["name"] == "exits.mfrag" && source["backend"] == "preload", "{source}");
    ensure!(source["events"] == report.0["events"]["total"] && source["complete"] == true, "{source}");
    let process = &report.processes("exits_by").first().copied().context("no process")?.clone();
    client.say(&json!({ "type": "watch", "source": 0, "pid": process["pid"] }))?;
    let processes = client.wait("processes", |list| list["processes"][0]["pid"] == process["pid"])?;
    ensure!(processes["processes"][0]["comm"] == "exits_by", "{processes}");
    let status = client.wait("status", |status| status["state"] == "ended" && status["pid"] == process["pid"])?;
    ensure!(status["live_bytes"] == process["end"]["requested_bytes"], "{status} and {}", process["end"]);
    ensure!(status["live_blocks"] == process["end"]["live_blocks"], "{status} and {}", process["end"]);
    ensure!(status["peak_bytes"] == process["peak"]["requested_bytes"], "{status} and {}", process["peak"]);
    ensure!(status["events"] == report.0["events"]["total"] && status["lost"] == 0, "{status}");
    ensure!(status["clients"] == 1, "{status}");
    let ended = dashboard.stop()?;
    ensure!(ended.code() == 0, "{}: {}", ended.code(), ended.stderr);
    Ok(())
}

fn the_cursor_moves() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (mut client, _) = watching(&dashboard)?;
    let (mut other, _) = watching(&dashboard)?;
    client.say(&json!({ "type": "cursor", "command": "seek", "at_ns": 0 }))?;
    let status = client.wait("status", |status| status["state"] == "paused" && status["behind"] == false)?;
    ensure!(status["at_ns"].as_u64() < status["end_ns"].as_u64(), "{status}");
    let before = status["events"].as_u64().context("no events")?;
    client.say(&json!({ "type": "cursor", "command": "step", "events": 10 }))?;
    client.wait("status", |status| status["events"] == before + 10)?;
    client.say(&json!({ "type": "cursor", "command": "step", "events": -3 }))?;
    client.wait("status", |status| status["events"] == before + 7)?;
    // Another one's cursor is another one's.
    let status = other.wait("status", |_| true)?;
    ensure!(status["state"] == "ended", "{status}");
    client.say(&json!({ "type": "cursor", "command": "play", "speed": 0 }))?;
    client.wait("status", |status| status["at_ns"] == status["end_ns"])?;
    client.say(&json!({ "type": "cursor", "command": "stop" }))?;
    client.wait("status", |status| status["state"] == "ended")?;
    Ok(())
}

/// The tile of level 0 that holds a block of the recording.
fn some_tile() -> Result<u64> {
    let events = events::read(recording()?)?;
    let address = events.iter().find_map(|event| match event.op {
        Op::Alloc { addr, .. } if addr != 0 => Some(addr),
        _ => None,
    });
    Ok(address.context("no allocation")? / 4096 / 4096)
}

fn tiles_come_as_they_are_asked_for_and_acknowledged() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (mut client, _) = watching(&dashboard)?;
    let tile = some_tile()?;
    let view = json!({
        "type": "view", "view": 7, "mode": "occupancy", "level": 0, "tiles": [[tile, 1]], "hz": 30
    });
    let within = Duration::from_secs(10);
    client.say(&json!({ "type": "cursor", "command": "seek", "at_ns": 0 }))?;
    client.wait("status", |status| status["state"] == "paused" && status["behind"] == false)?;
    client.say(&view)?;
    // Each step changes the map; without a word from the client, two frames come and no third.
    let mut frames = Vec::new();
    for _ in 0..40 {
        client.say(&json!({ "type": "cursor", "command": "step", "events": 50 }))?;
        if let Some(frame) = client.frame(Duration::from_millis(300))? {
            frames.push(frame);
        }
        if frames.len() > 2 {
            break;
        }
    }
    ensure!(frames.len() == 2, "{} frames came unacknowledged: {frames:?}", frames.len());
    ensure!(frames.iter().all(|frame| frame.view == 7 && frame.tiles == 1), "{frames:?}");
    client.say(&json!({ "type": "ack", "seq": frames[0].seq }))?;
    let third = client.frame(within)?.context("no frame after one was acknowledged")?;
    ensure!(third.seq != frames[0].seq && third.seq != frames[1].seq, "{third:?} after {frames:?}");
    // What came meanwhile is drawn as it is now.
    ensure!(third.at_ns > frames[1].at_ns, "{third:?} after {frames:?}");
    // A view that is none leaves the one before, and says so.
    client.say(&json!({ "type": "view", "view": 8, "mode": "heat", "level": 0, "tiles": [[0, 4097]], "hz": 30 }))?;
    client.wait("error", |error| error["message"].as_str().is_some_and(|text| text.contains("4096")))?;
    // Classes are named before they are drawn.
    client.say(&json!({ "type": "view", "view": 9, "mode": "site", "level": 0, "tiles": [[tile, 1]], "hz": 30 }))?;
    let palette = client.wait("palette", |palette| palette["mode"] == "site")?;
    let classes = palette["classes"].as_array().context("no classes")?;
    ensure!(
        classes.iter().any(|class| class["label"].as_str().is_some_and(|label| label.contains("exits_by"))),
        "{palette}"
    );
    Ok(())
}

fn eight_clients_and_no_more() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(dashboard.connect()?.0);
    }
    let refused = dashboard.try_connect()?.err();
    ensure!(refused == Some(503), "the ninth was answered with {refused:?}");
    for client in &mut clients {
        client.wait("status", |status| status["clients"] == 8)?;
    }
    clients.pop();
    let begun = Instant::now();
    while dashboard.try_connect()?.is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "a place that was left stays taken");
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Bytes that are resident of a process.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no figure")?.parse::<u64>()? << 10)
}

fn a_client_that_never_reads_holds_nobody_up() -> Result<()> {
    let mut dashboard = serve(recording()?)?;
    let (mut reader, _) = watching(&dashboard)?;
    let (mut deaf, _) = dashboard.connect()?;
    let pid = dashboard.running().pid();
    let before = resident(pid)?;
    // Every message is answered with an error; nobody reads them, until the server reads no more either.
    let writer = std::thread::spawn(move || {
        let begun = Instant::now();
        while deaf.send(Message::text(r#"{"type":"nothing of the kind that anybody would know of"}"#)).is_ok() {
            if begun.elapsed() > Duration::from_mins(1) {
                return None;
            }
        }
        Some(begun.elapsed())
    });
    let mut longest = Duration::ZERO;
    let mut most = before;
    while !writer.is_finished() {
        let last = Instant::now();
        reader.wait("status", |_| true)?;
        longest = longest.max(last.elapsed());
        most = most.max(resident(pid)?);
    }
    let closed = writer.join().ok().flatten();
    ensure!(closed.is_some(), "the server never gave up");
    ensure!(longest < Duration::from_secs(2), "another client waited {longest:?} for its status");
    ensure!(most - before < 48 << 20, "the server has grown from {before} to {most} bytes");
    reader.wait("status", |status| status["clients"] == 1)?;
    Ok(())
}

fn whatever_a_client_sends_the_server_lives() -> Result<()> {
    let mut dashboard = serve(recording()?)?;
    let (mut good, _) = watching(&dashboard)?;
    let far = json!([[u64::MAX, u32::MAX]]);
    let outside = json!({ "type": "view", "view": 1, "mode": "heat", "level": -4, "tiles": far, "hz": 30 });
    let hostile = [
        Message::binary(vec![0xff; 1000]),
        Message::text("x".repeat(65 << 10)),
        Message::text("[".repeat(60 << 10)),
        Message::text(json!({ "type": "watch", "source": 99, "pid": 1 }).to_string()),
        Message::text(outside.to_string()),
    ];
    for message in hostile {
        let (mut client, _) = dashboard.connect()?;
        client.send(message)?;
        // It is told, or put out.
        let _ = client.wait("error", |_| true);
        good.wait("status", |_| true)?;
    }
    // What is no WebSocket, or half of one.
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let upgrade = format!(
        "GET /api/socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\
         Sec-WebSocket-Protocol: memfrag.v1, bearer.{}\r\n\r\n",
        dashboard.host, dashboard.token
    );
    let mut noise = 0x9e37_79b9_u32;
    for length in [1, 2, 3, 14, 200, 5000] {
        let mut stream = dashboard.connection()?;
        stream.write_all(upgrade.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        if &answer == b"HTTP/1.1 429" {
            std::thread::sleep(Duration::from_secs(1));
            continue;
        }
        ensure!(&answer == b"HTTP/1.1 101", "{}", String::from_utf8_lossy(&answer));
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(length)
        .collect();
        stream.write_all(&bytes)?;
        drop(stream);
        good.wait("status", |_| true)?;
    }
    for bytes in [&b"\0\0\0\0"[..], b"GET / HTTP/9.9\r\n\r\n", b"POST /api/import HTTP/1.1\r\nContent-Length: 1\r\n"] {
        dashboard.connection()?.write_all(bytes)?;
    }
    good.wait("status", |_| true)?;
    ensure!(dashboard.running().alive()?, "the server has ended");
    let said = dashboard.running().stderr()?;
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}

fn clients_come_again() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (first, pid) = watching(&dashboard)?;
    drop(first);
    let (_, again) = watching(&dashboard)?;
    ensure!(pid == again, "another process is shown: {again} instead of {pid}");
    Ok(())
}

fn recordings_go_out_and_come_back() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (mut client, _) = watching(&dashboard)?;
    let answer = dashboard.request("GET", "/api/recording?source=0", b"")?;
    ensure!(answer.status == 200, "{}", answer.head);
    ensure!(answer.body == std::fs::read(recording()?)?, "the download differs from the file");
    let imported = dashboard.request("POST", "/api/import", &answer.body)?;
    ensure!(imported.status == 200, "{}", imported.head);
    ensure!(imported.body == br#"{"source":1}"#, "{}", String::from_utf8_lossy(&imported.body));
    // Everybody learns of it, and it is the same.
    let sources = client.wait("sources", |message| message["sources"].as_array().is_some_and(|all| all.len() == 2))?;
    ensure!(sources["sources"][1]["events"] == sources["sources"][0]["events"], "{sources}");
    let digest = client.ask(1, "report", json!({}))?["digest"].clone();
    client.say(&json!({ "type": "watch", "source": 1, "pid": 0 }))?;
    client.wait("status", |status| status["source"] == 1 && status["state"] == "ended" && status["pid"] != 0)?;
    let again = client.ask(2, "report", json!({}))?["digest"].clone();
    ensure!(digest.is_string() && digest == again, "{digest} and {again}");
    let refused = dashboard.request("POST", "/api/import", b"no recording at all")?;
    ensure!(refused.status == 422, "{}", refused.head);
    Ok(())
}

fn who_watches_what_is_removed_is_told() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (mut client, pid) = watching(&dashboard)?;
    let imported = dashboard.request("POST", "/api/import", &std::fs::read(recording()?)?)?;
    ensure!(imported.status == 200, "{}", imported.status);
    client.say(&json!({ "type": "watch", "source": 1, "pid": pid }))?;
    client.wait("status", |status| status["source"] == 1)?;
    let removed = dashboard.request("DELETE", "/api/recording?source=1", &[])?;
    ensure!(removed.status == 200, "{}", removed.status);
    let notice = client.wait("notice", |_| true)?;
    ensure!(notice["text"].as_str().is_some_and(|text| text.contains("was removed")), "{notice}");
    client.wait("status", |status| status["source"] == 0 && status["pid"] == pid)?;
    client.say(&json!({ "type": "watch", "source": 1, "pid": pid }))?;
    client.wait("error", |error| error["message"].as_str().is_some_and(|text| text.contains("no source 1")))?;
    Ok(())
}

fn what_is_lost_meanwhile_is_told() -> Result<()> {
    let dir = place::scratch()?;
    let path = dir.path().join("grows.mfrag");
    let mut writer = Writer::create(&path, &Header { backend: "ebpf".into(), page_size: 4096, ..Header::default() })?;
    let alloc = |addr| Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 8, site: 1, stack: 0 };
    let event = |time, op| Event { time, pid: 7, tid: 7, op };
    writer.events(&[event(1, Op::Gap { lost: 5 }), event(2, alloc(0x1000))]);
    writer.flush();
    let dashboard = serve(&path)?;
    let (mut client, _) = dashboard.connect()?;
    client.wait("status", |status| status["state"] == "live" && status["lost"] == 5 && status["progress"] == 1.0)?;
    // Twice, so that it was told once that nothing was lost since.
    client.wait("status", |_| true)?;
    writer.events(&[event(3, Op::Gap { lost: 2 }), event(4, alloc(0x2000))]);
    writer.flush();
    let notice = client.wait("notice", |_| true)?;
    ensure!(notice["level"] == "warning", "{notice}");
    ensure!(notice["text"].as_str().is_some_and(|text| text.starts_with("2 events were lost")), "{notice}");
    client.wait("status", |status| status["lost"] == 7)?;
    Ok(())
}

fn nothing_is_served_to_strangers() -> Result<()> {
    let dashboard = serve(recording()?)?;
    let (host, token) = (&dashboard.host, &dashboard.token);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let cases = [
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n"), 200),
        (format!("GET / HTTP/1.1\r\nHost: evil.example\r\n{bearer}"), 421),
        (format!("GET http://evil.example/ HTTP/1.1\r\nHost: {host}\r\n{bearer}"), 421),
        (format!("GET / HTTP/1.0\r\n{bearer}"), 421),
        (format!("GET /api/recording?source=0 HTTP/1.1\r\nHost: {host}\r\n"), 401),
        (format!("GET /api/recording?source=0 HTTP/1.1\r\nHost: {host}\r\nCookie: token={token}\r\n"), 401),
        (format!("POST /api/import HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\n{bearer}"), 403),
        (format!("GET /../../../etc/passwd HTTP/1.1\r\nHost: {host}\r\n"), 404),
        (format!("GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: {host}\r\n"), 404),
    ];
    for (head, status) in cases {
        let answer = dashboard.raw(&head, b"")?;
        ensure!(answer.status == status, "{head:?} was answered with {}", answer.head);
    }
    // Who says nothing keeps nobody else out.
    let begun = Instant::now();
    let idle: Vec<_> = (0..70).map(|_| dashboard.connection()).collect::<Result<_>>()?;
    for mut stream in idle {
        let closed = stream.read(&mut [0; 64]);
        ensure!(!matches!(&closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{closed:?}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(25), "idle connections ended after {:?}", begun.elapsed());
    ensure!(dashboard.raw(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n"), b"")?.status == 200, "no answer afterwards");
    Ok(())
}

fn a_growing_file_is_cut_behind_its_last_whole_chunk() -> Result<()> {
    let dir = place::scratch()?;
    let path = dir.path().join("cut.mfrag");
    let whole = std::fs::read(recording()?)?;
    std::fs::write(&path, &whole[..whole.len() - 100])?;
    let dashboard = serve(&path)?;
    let answer = dashboard.request("GET", "/api/recording?source=0", b"")?;
    ensure!(answer.status == 200 && whole.starts_with(&answer.body), "{}", answer.head);
    ensure!(answer.body.len() < whole.len() - 100, "the torn end was sent as well");
    std::fs::write(dir.path().join("copy.mfrag"), &answer.body)?;
    Report::of(&dir.path().join("copy.mfrag"))?;
    Ok(())
}
