//! What cannot work is told: what was tried, what was found, what to do; with the status that the callers expect.

use crate::attach::Service;
use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{
    Backend, CANNOT_RUN, NOT_FOUND, OWN_FAILURE, Report, attach, explains, memfrag, require_root, trace, traced,
};
use memfrag_tests::process::{self, Ended, Running};
use memfrag_tests::{events, place, skip, tests, tests_on_both};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests!(
    no_such_process,
    a_process_that_ends_while_attaching,
    a_kernel_thread,
    another_users_process,
    probes_without_rights,
    attaching_to_a_static_program_without_symbols,
    attaching_to_a_32_bit_program,
    not_a_recording,
    a_recording_of_a_newer_version,
    no_such_recording,
    words_that_do_not_fit_together,
);
tests_on_both!(
    a_static_program_without_symbols,
    a_32_bit_program,
    a_command_not_found,
    a_command_not_executable,
    an_output_that_cannot_be_written,
);

fn no_such_process() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let limit: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    // One that cannot be, and one that was a moment ago.
    let gone = Running::start(&mut Command::new("true"))?;
    let pid = gone.pid();
    gone.wait(process::LIMIT)?;
    for pid in [limit - 1, pid] {
        let ended = process::run(&mut attach(&dir.path().join("r.mfrag"), pid, &[])?)?;
        explains(
            &ended,
            OWN_FAILURE,
            &[&[&pid.to_string()], &["no process", "no such process", "not exist", "exited", "ended"]],
        )?;
    }
    Ok(())
}

fn a_process_that_ends_while_attaching() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    for delay in (0..300).step_by(15) {
        let target = Running::start(Command::new("sleep").arg("100"))?;
        let pid = target.pid();
        let memfrag = Running::start(&mut attach(&dir.path().join("r.mfrag"), pid, &[])?)?;
        std::thread::sleep(Duration::from_millis(delay));
        target.signal(libc::SIGKILL)?;
        target.wait(process::LIMIT)?;
        let ended = memfrag.wait(Duration::from_secs(20)).with_context(|| format!("killed after {delay} ms"))?;
        // Too late to attach is an error that names the process; a trace that had begun ends with its target.
        match ended.code() {
            0 => {}
            _ => explains(
                &ended,
                OWN_FAILURE,
                &[&[&pid.to_string()], &["exited", "ended", "no process", "no such", "gone"]],
            )?,
        }
    }
    Ok(())
}

/// `PF_KTHREAD` in the kernel's flags of a process.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A thread of the kernel, if one can be seen from here.
pub(crate) fn kernel_thread() -> Option<u32> {
    let flags = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(6)?.parse().ok()
    };
    (2..200).find(|&pid| flags(pid).is_some_and(|flags| flags & KERNEL_THREAD != 0))
}

fn a_kernel_thread() -> Result<()> {
    Backend::Ebpf.require()?;
    let Some(pid) = kernel_thread() else { skip!("no kernel thread can be seen from here") };
    let dir = place::scratch()?;
    let ended = process::run(&mut attach(&dir.path().join("r.mfrag"), pid, &[])?)?;
    explains(&ended, OWN_FAILURE, &[&[&pid.to_string()], &["kernel thread", "thread of the kernel"]])
}

/// The command as the user nobody, with no rights.
fn as_nobody(command: &Command) -> Result<Command> {
    require_root()?;
    let mut other = Command::new(place::tool("setpriv")?);
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    other.arg("--").arg(command.get_program()).args(command.get_args());
    Ok(other)
}

/// A copy of memfrag that anybody can run, as the build's directory may be closed to others.
pub(crate) fn for_everyone(dir: &Path, command: &Command) -> Result<Command> {
    let copy = dir.join("memfrag");
    if !copy.exists() {
        std::fs::copy(place::memfrag()?, &copy)?;
    }
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777))?;
    let mut other = Command::new(copy);
    other.args(command.get_args());
    as_nobody(&other)
}

fn another_users_process() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let mut service = Service::start(dir.path(), "status")?;
    let recording = dir.path().join("r.mfrag");
    let pid = service.running.pid();
    let ended = process::run(&mut for_everyone(dir.path(), &attach(&recording, pid, &[])?)?)?;
    explains(&ended, OWN_FAILURE, &[&[&pid.to_string()], &["root", "sudo", "cap_"]])?;
    service.works()?;
    service.end()?;
    Ok(())
}

fn probes_without_rights() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("r.mfrag");
    let target = Command::new("true");
    let ended = process::run(&mut for_everyone(dir.path(), &trace(Backend::Ebpf, &recording, &target)?)?)?;
    explains(&ended, OWN_FAILURE, &[&["sudo", "cap_", "root"], &["--backend preload", "preload"]])?;
    // Without a word about the backend, the other one is taken.
    let mut auto = memfrag(&["trace", "-o"])?;
    auto.arg(&recording).args(["--", "true"]);
    let ended = process::run(&mut for_everyone(dir.path(), &auto)?)?;
    ensure!(ended.code() == 0, "status {}; it wrote:\n{}", ended.code(), ended.stderr);
    ensure!(Report::of(&recording)?.0["recording"]["backend"] == "preload", "not by the preload library");
    Ok(())
}

/// A program that is built in this way. Its name is in what memfrag writes and must not explain anything by itself.
fn built(name: &str, words: &[&str]) -> Result<Command> {
    Ok(Command::new(place::compile("static", name, words)?))
}

/// What cannot be traced is either run as it is, with a word that it is not traced, or not run at all, with the
/// status of a failure. In both cases the message says why.
fn runs_or_refuses(backend: Backend, target: &mut Command, words: &[&[&str]]) -> Result<()> {
    let dir = place::scratch()?;
    let bare = process::run(target)?.success()?;
    let ended = process::run(&mut trace(backend, &dir.path().join("r.mfrag"), target)?)?;
    let refused = ended.code() == OWN_FAILURE;
    let expected = if refused { &[][..] } else { &bare.stdout };
    ensure!(ended.stdout == expected, "status {}, and it wrote {:?}", ended.code(), ended.text());
    explains(&ended, if refused { OWN_FAILURE } else { 0 }, words)
}

fn a_static_program_without_symbols(backend: Backend) -> Result<()> {
    runs_or_refuses(backend, &mut built("bare", &["-static", "-s"])?, &[&["linked statically"]])
}

fn program_of_32_bits() -> Result<Command> {
    match built("narrow", &["-m32"]) {
        Ok(command) => Ok(command),
        Err(error) => skip!("this compiler builds no 32-bit programs: install gcc-multilib ({error})"),
    }
}

fn a_32_bit_program(backend: Backend) -> Result<()> {
    runs_or_refuses(backend, &mut program_of_32_bits()?, &[&["32-bit"]])
}

/// Attaching to what cannot be traced is an error.
fn refuses(target: &mut Command, words: &[&[&str]]) -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let target = Running::start(target.arg("60"))?;
    // Long enough to be past the loader.
    std::thread::sleep(Duration::from_millis(300));
    let memfrag = Running::start(&mut attach(&dir.path().join("r.mfrag"), target.pid(), &[])?)?;
    explains(&memfrag.wait(Duration::from_secs(30))?, OWN_FAILURE, words)?;
    ensure!(process::exists(target.pid()), "the target has died");
    Ok(())
}

fn attaching_to_a_static_program_without_symbols() -> Result<()> {
    refuses(&mut built("bare", &["-static", "-s"])?, &[&["linked statically"]])
}

fn attaching_to_a_32_bit_program() -> Result<()> {
    refuses(&mut program_of_32_bits()?, &[&["32-bit"]])
}

fn trace_word(backend: Backend, dir: &Path, word: &OsStr) -> Result<Ended> {
    process::run(&mut trace(backend, &dir.join("r.mfrag"), &Command::new(word))?)
}

fn a_command_not_found(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    for word in ["no-such-command-anywhere", "/no/such/command"] {
        let ended = trace_word(backend, dir.path(), OsStr::new(word))?;
        explains(&ended, NOT_FOUND, &[&[word], &["not found", "no such file", "not in path"]])?;
    }
    Ok(())
}

fn a_command_not_executable(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let file = dir.path().join("plain-file");
    std::fs::write(&file, "echo no\n")?;
    for word in [file.as_path(), dir.path()] {
        let ended = trace_word(backend, dir.path(), word.as_os_str())?;
        let name = word.display().to_string();
        explains(&ended, CANNOT_RUN, &[&[&name], &["permission", "executable", "directory"]])?;
    }
    Ok(())
}

fn an_output_that_cannot_be_written(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let marker = dir.path().join("ran");
    let mut target = Command::new("touch");
    target.arg(&marker);
    for output in ["/no/such/directory/r.mfrag", "/proc/r.mfrag", "/"] {
        let ended = process::run(&mut trace(backend, Path::new(output), &target)?)?;
        explains(&ended, OWN_FAILURE, &[&[output], &["no such file", "permission", "directory", "not permitted"]])?;
        ensure!(!marker.exists(), "{output}: the command was run although nothing could be recorded");
    }
    Ok(())
}

fn report_fails(file: &Path, words: &[&[&str]]) -> Result<()> {
    let name = file.display().to_string();
    for format in [&["report"][..], &["report", "--json"]] {
        let mut command = memfrag(format)?;
        let ended = process::run(command.arg(file))?;
        explains(&ended, OWN_FAILURE, &[&[&name]])?;
        explains(&ended, OWN_FAILURE, words)?;
        ensure!(ended.stdout.is_empty(), "it wrote a report all the same: {}", ended.text());
    }
    Ok(())
}

fn not_a_recording() -> Result<()> {
    let dir = place::scratch()?;
    let contents: [(&str, Vec<u8>); 4] = [
        ("empty", Vec::new()),
        ("text", b"This is a text, and quite a long one, that somebody has mistaken for a recording.\n".repeat(50)),
        ("zeros", vec![0; 100_000]),
        ("program", std::fs::read("/bin/true")?),
    ];
    for (name, bytes) in contents {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes)?;
        report_fails(&file, &[&["not a", "no memfrag recording", "is empty", "not recognised"]])?;
        ensure!(events::read(&file).is_err(), "the library reads {name}");
    }
    report_fails(dir.path(), &[&["directory"]])
}

fn a_recording_of_a_newer_version() -> Result<()> {
    let dir = place::scratch()?;
    let file = dir.path().join("r.mfrag");
    let mut target = Command::new(place::program("exits_by")?);
    let (ended, _) = traced(Backend::Preload, &file, target.args(["status", "0"]))?;
    ensure!(ended.code() == 0, "{ended:?}");
    let mut bytes = std::fs::read(&file)?;
    // The version follows the eight bytes of magic.
    ensure!(bytes.len() > 12, "a recording of {} bytes", bytes.len());
    let version = u32::from_le_bytes(bytes[8..12].try_into()?);
    bytes[8..12].copy_from_slice(&(version + 1).to_le_bytes());
    std::fs::write(&file, bytes)?;
    report_fails(&file, &[&["version", "format"], &["newer", "update", "upgrade"]])
}

fn no_such_recording() -> Result<()> {
    let dir = place::scratch()?;
    report_fails(&dir.path().join("missing.mfrag"), &[&["no such file", "not exist", "not found"]])
}

fn words_that_do_not_fit_together() -> Result<()> {
    // A process that there is and that may be traced: this one.
    let own = std::process::id().to_string();
    let cases: [(&[&str], &[&[&str]]); 5] = [
        (&["trace"], &[&["--pid"]]),
        (&["trace", "--pid", "1", "--", "true"], &[&["--pid"]]),
        (&["trace", "--pid", "many"], &[&["many"]]),
        (&["trace", "--backend", "preload", "--pid", &own], &[&["preload"], &["ebpf", "command", "launch"]]),
        (&["trace", "--backend", "magic", "--", "true"], &[&["magic"], &["ebpf"]]),
    ];
    for (words, said) in cases {
        let dir = place::scratch()?;
        let mut command = memfrag(words)?;
        let ended = process::run(command.current_dir(dir.path()))?;
        ensure!(ended.code() == OWN_FAILURE, "{words:?}: status {}; it wrote:\n{}", ended.code(), ended.stderr);
        explains(&ended, OWN_FAILURE, said).with_context(|| format!("{words:?}"))?;
    }
    Ok(())
}
