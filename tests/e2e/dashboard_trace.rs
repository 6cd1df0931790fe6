//! `memfrag trace --serve`: the trace as it runs, and a server that the trace does not depend on.

use anyhow::{Context, Result, ensure};
use memfrag_tests::dashboard::Dashboard;
use memfrag_tests::memfrag::{Backend, Report, memfrag, require_root};
use memfrag_tests::process::{self, until};
use memfrag_tests::{place, tests, tests_on_both};
use std::path::Path;
use std::time::Duration;

tests_on_both!(
    a_trace_is_watched_while_it_runs_and_after,
    without_a_recording_it_is_watched_as_well,
    a_trace_survives_its_dashboard,
    ctrl_c_ends_trace_and_dashboard,
);

tests!(the_server_has_no_rights, a_port_that_is_taken_ends_it_before_it_begins);

/// Traces a shell that runs a program after a while, and ends with 7.
fn start(backend: Backend, words: &[&str], wait: &str) -> Result<Dashboard> {
    let mut command = memfrag(&["trace", "--backend", backend.name(), "--serve=0"])?;
    let program = place::program("exits_by")?;
    let script = format!("sleep {wait}; {} status 7", program.display());
    Dashboard::start(command.args(words).args(["--", "/bin/sh", "-c", &script]))
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn a_trace_is_watched_while_it_runs_and_after(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("r.mfrag");
    let dashboard = start(backend, &["-o", word(&recording)], "2")?;
    let (mut client, hello) = dashboard.connect()?;
    ensure!(hello["sources"][0]["growing"] == true, "{hello}");
    ensure!(hello["sources"][0]["backend"] == backend.name(), "{hello}");
    let status = client.wait("status", |_| true)?;
    ensure!(status["state"] == "live", "{status}");
    // The program's events arrive though nobody ended the dashboard, and its end is seen.
    let (mut settled, mut ended) = (false, false);
    while !(settled && ended) {
        let message = client.message()?;
        settled |= message["type"] == "sources" && message["sources"][0]["growing"] == false;
        ended |= message["type"] == "status" && message["state"] == "ended" && message["events"].as_u64() > Some(1000);
    }
    let copy = dashboard.request("GET", "/api/recording?source=0", b"")?;
    let ended = dashboard.stop()?;
    ensure!(ended.code() == 7, "status {} instead of 7: {}", ended.code(), ended.stderr);
    ensure!(copy.body == std::fs::read(&recording)?, "the download is not the recording");
    Report::of(&recording)?.nothing_lost()
}

fn without_a_recording_it_is_watched_as_well(backend: Backend) -> Result<()> {
    let dashboard = start(backend, &["--no-record"], "1")?;
    let (mut client, _) = dashboard.connect()?;
    client.wait("status", |status| status["state"] == "ended" && status["events"].as_u64() > Some(1000))?;
    let ended = dashboard.stop()?;
    ensure!(ended.code() == 7, "status {} instead of 7: {}", ended.code(), ended.stderr);
    ensure!(!ended.stderr.contains("recorded in"), "{}", ended.stderr);
    Ok(())
}

/// The serving process of a trace.
fn server_of(dashboard: &mut Dashboard) -> Result<u32> {
    let pid = dashboard.running().pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    let serves = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("serve-inherited"))
    };
    children.find(serves).context("no child serves")
}

fn a_trace_survives_its_dashboard(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("r.mfrag");
    let mut dashboard = start(backend, &["-o", word(&recording)], "2")?;
    process::send(server_of(&mut dashboard)?, libc::SIGKILL)?;
    let mut said = String::new();
    until("memfrag says that the dashboard has gone", Duration::from_secs(20), || {
        said = dashboard.running().stderr()?;
        Ok(said.contains("dashboard's process has ended"))
    })?;
    // With nothing to stay for, it ends by itself.
    until("the trace ends", Duration::from_mins(1), || Ok(!dashboard.running().alive()?))?;
    let ended = dashboard.wait()?;
    ensure!(ended.code() == 7, "status {} instead of 7: {}", ended.code(), ended.stderr);
    Report::of(&recording)?.nothing_lost()
}

fn ctrl_c_ends_trace_and_dashboard(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("r.mfrag");
    let (status, program) = (dir.path().join("status"), place::program("loop_forever")?);
    let mut command = memfrag(&["trace", "--backend", backend.name(), "--serve=0", "-o"])?;
    command.arg(&recording).arg("--").arg(program).arg(&status);
    let mut dashboard = Dashboard::start(&mut command)?;
    let server = server_of(&mut dashboard)?;
    let (mut client, _) = dashboard.connect()?;
    client.wait("status", |status| status["events"].as_u64() > Some(100))?;
    // A terminal sends the signal to the whole foreground group.
    let line = std::fs::read_to_string(&status)?;
    let target = line.split_whitespace().next().unwrap_or_default().parse()?;
    dashboard.running().signal(libc::SIGINT)?;
    process::send(target, libc::SIGINT)?;
    until("memfrag ends", Duration::from_secs(30), || Ok(!dashboard.running().alive()?))?;
    let ended = dashboard.wait()?;
    ensure!(ended.code() == 130, "status {} instead of 130: {}", ended.code(), ended.stderr);
    until("the server ends with it", Duration::from_secs(5), || Ok(!process::exists(server)))?;
    Report::of(&recording)?.nothing_lost()
}

fn the_server_has_no_rights() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let mut dashboard = start(Backend::Preload, &["-o", word(&dir.path().join("r.mfrag"))], "1")?;
    let server = server_of(&mut dashboard)?;
    let status = std::fs::read_to_string(format!("/proc/{server}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    let uid: u32 =
        std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|&uid| uid != 0).unwrap_or(65534);
    ensure!(field("Uid:") == [uid; 4].map(|uid| uid.to_string()).join(" "), "{status}");
    ensure!(field("Groups:").is_empty(), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(set) == "0000000000000000", "{set} {}", field(set));
    }
    ensure!(field("NoNewPrivs:") == "1" && field("Seccomp:") == "2", "{status}");
    // It has its sockets, pipes and the recording, which it cannot write.
    for entry in std::fs::read_dir(format!("/proc/{server}/fdinfo"))?.flatten() {
        let fd = entry.file_name();
        let target = std::fs::read_link(format!("/proc/{server}/fd/{}", fd.to_string_lossy())).unwrap_or_default();
        let info = std::fs::read_to_string(entry.path())?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim().to_owned();
        let writes = u32::from_str_radix(&flags, 8)? & 3 != 0;
        let name = target.to_string_lossy().into_owned();
        let known = ["pipe:", "socket:", "anon_inode:"].iter().any(|kind| name.starts_with(kind));
        let is_standard = fd == "2";
        ensure!(known || is_standard || (name.ends_with("r.mfrag") && !writes), "{name} is open with flags {flags}");
    }
    Ok(())
}

fn a_port_that_is_taken_ends_it_before_it_begins() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let dir = place::scratch()?;
    let (recording, mark) = (dir.path().join("r.mfrag"), dir.path().join("mark"));
    let serve = format!("--serve={}", taken.local_addr()?.port());
    let mut command = memfrag(&["trace", "--backend", "preload", &serve, "-o"])?;
    command.arg(&recording).args(["--", "touch"]).arg(&mark);
    let ended = process::run(&mut command)?;
    memfrag_tests::memfrag::explains(&ended, memfrag_tests::memfrag::OWN_FAILURE, &[&["cannot listen"], &["port"]])?;
    ensure!(!mark.exists() && !recording.exists(), "the command ran, or a recording was left behind");
    Ok(())
}
