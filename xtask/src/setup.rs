//! `cargo xtask setup`: what building and testing need beyond cargo, installed as far as it is missing.
//!
//! As root on Debian or Ubuntu it installs; anyone else is told the command. What cannot be had here is named, with
//! what goes without it, and is no failure: the tests that need it skip themselves aloud.

use crate::shell;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// How to tell that something is there, from wherever it came.
enum Sign {
    /// A program in `PATH`.
    Program(&'static str),
    /// Debian's package itself.
    Package,
}

/// Something to have: what it serves, its sign, and the packages that bring it, the first one available is taken.
struct Need(&'static str, Sign, &'static [&'static str]);

const PAGE: &str = "building the dashboard's page";
const BPF: &str = "building the BPF object";
const PROGRAMS: &str = "tests on real programs";
const ALLOCATORS: &str = "tests on other allocators";
const PEERS: &str = "comparisons with other tools";

const NEEDS: &[Need] = &[
    Need(BPF, Sign::Package, &["rustc-web"]),
    Need(BPF, Sign::Package, &["libstd-rust-web-dev-bpf"]),
    Need(BPF, Sign::Package, &["rust-web-src"]),
    Need(BPF, Sign::Package, &["llvm-22-dev"]),
    Need(BPF, Sign::Package, &["libpolly-22-dev"]),
    Need(BPF, Sign::Package, &["libzstd-dev"]),
    Need(BPF, Sign::Package, &["zlib1g-dev"]),
    Need(BPF, Sign::Package, &["libxml2-dev"]),
    Need(PAGE, Sign::Program("node"), &["nodejs"]),
    Need(PAGE, Sign::Program("npm"), &["npm"]),
    Need("tests in a browser", Sign::Program("chromium"), &["chromium", "chromium-browser"]),
    Need("every build", Sign::Program("cc"), &["gcc"]),
    Need("every build", Sign::Package, &["libc6-dev"]),
    Need(PROGRAMS, Sign::Program("gcc"), &["gcc"]),
    Need(PROGRAMS, Sign::Program("redis-server"), &["redis-server"]),
    Need(PROGRAMS, Sign::Program("redis-benchmark"), &["redis-tools"]),
    Need(PROGRAMS, Sign::Program("memcached"), &["memcached"]),
    Need(PROGRAMS, Sign::Program("python3"), &["python3"]),
    Need(PROGRAMS, Sign::Program("git"), &["git"]),
    Need(PROGRAMS, Sign::Program("perl"), &["perl"]),
    Need(PROGRAMS, Sign::Program("gawk"), &["gawk"]),
    Need(PROGRAMS, Sign::Program("node"), &["nodejs"]),
    Need(PROGRAMS, Sign::Program("setpriv"), &["util-linux"]),
    Need("tests on a 32-bit program", Sign::Package, &["gcc-multilib"]),
    Need(ALLOCATORS, Sign::Package, &["libjemalloc2"]),
    Need(ALLOCATORS, Sign::Package, &["libmimalloc2.0", "libmimalloc3"]),
    Need(ALLOCATORS, Sign::Package, &["libtcmalloc-minimal4", "libtcmalloc-minimal4t64"]),
    Need(ALLOCATORS, Sign::Package, &["musl"]),
    Need(ALLOCATORS, Sign::Program("musl-gcc"), &["musl-tools"]),
    Need(PEERS, Sign::Program("heaptrack"), &["heaptrack"]),
    Need(PEERS, Sign::Program("bpftrace"), &["bpftrace"]),
    Need("finding the cause when a test fails", Sign::Program("strace"), &["strace"]),
];

const LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
const TRACEFS: &str = "/sys/kernel/tracing";

/// `cargo xtask setup`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "setup takes no words");
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !present(need)).collect();
    if missing.is_empty() {
        eprintln!("setup: every package is there");
    } else if shell::find("apt-get").is_none() {
        for need in missing {
            skip(need, "no apt-get here; install it by the means of this system");
        }
    } else if shell::is_root() {
        install(&missing);
    } else {
        let names: Vec<&str> = missing.iter().filter_map(|need| need.2.first().copied()).collect();
        eprintln!("setup: not root, so nothing is installed; what is missing comes with");
        eprintln!("    sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", names.join(" "));
        for need in missing {
            skip(need, "not installed");
        }
    }
    linker();
    tracefs();
    Ok(())
}

fn present(Need(_, sign, packages): &Need) -> bool {
    match sign {
        Sign::Program(name) => shell::find(name).is_some(),
        Sign::Package => packages.iter().any(|package| installed(package)),
    }
}

fn installed(package: &str) -> bool {
    shell::output("dpkg-query", &["-W", "-f=${db:Status-Status}", package]).is_some_and(|status| status == "installed")
}

fn skip(Need(what, _, packages): &Need, why: &str) {
    eprintln!("setup: SKIPPED {}, for {what}: {why}", packages.join(" or "));
}

fn install(missing: &[&Need]) {
    eprintln!("setup: reading the lists of packages, as something is missing");
    if let Err(error) = shell::run(apt(&["update", "-qq"]).stdout(std::io::stderr())) {
        eprintln!("setup: {error:#}; going on with the lists that are there");
    }
    let mut wanted: Vec<&str> = Vec::new();
    for need in missing {
        match need.2.iter().copied().find(|package| available(package)) {
            Some(package) if !wanted.contains(&package) => wanted.push(package),
            Some(_) => {}
            None => skip(need, "this system's archives do not have it"),
        }
    }
    if wanted.is_empty() {
        return;
    }
    eprintln!("setup: installing {}", wanted.join(" "));
    let _quiet = NoServices::new();
    if add(&wanted).is_err() && wanted.len() > 1 {
        eprintln!("setup: not all at once, so one by one");
        for package in wanted {
            if let Err(error) = add(&[package]) {
                eprintln!("setup: {error:#}");
            }
        }
    }
    for need in missing.iter().filter(|need| need.2.iter().any(|package| available(package)) && !present(need)) {
        skip(need, "its installation failed, see above");
    }
}

fn add(packages: &[&str]) -> Result<()> {
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(packages);
    shell::run(apt(&words).stdout(std::io::stderr()))
}

fn apt(words: &[&str]) -> std::process::Command {
    let mut command = shell::program("apt-get", &["-o", "DPkg::Lock::Timeout=300"]);
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn available(package: &str) -> bool {
    shell::output("apt-cache", &["policy", package])
        .is_some_and(|policy| policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)")))
}

/// Keeps Debian from starting the servers that it installs: the tests start their own. Undone when dropped.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn new() -> Self {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() || std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_err() {
            return Self(None);
        }
        let guard = Self(Some(policy.to_path_buf()));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        if let Err(error) = std::fs::set_permissions(policy, mode) {
            eprintln!("setup: {}: {error}; servers may be started by their packages", policy.display());
        }
        guard
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = std::fs::remove_file(policy)
        {
            eprintln!("setup: cannot remove {}: {error}; remove it by hand", policy.display());
        }
    }
}

fn linker() {
    let have = shell::output("bpf-linker", &["--version"]);
    if have.as_ref().is_some_and(|version| version.split_whitespace().any(|word| word == LINKER)) {
        return;
    }
    let have = have.map_or_else(|| "none".to_owned(), |version| version.trim().to_owned());
    if !Path::new(LLVM).exists() {
        eprintln!("setup: SKIPPED bpf-linker {LINKER} (found: {have}), for {BPF}: {LLVM} is not there");
        return;
    }
    eprintln!("setup: building bpf-linker {LINKER} (found: {have}), which takes about a minute");
    let words = ["install", "bpf-linker", "--version", LINKER, "--no-default-features", "--features", "llvm-22"];
    let mut command = shell::cargo(&words);
    if let Err(error) = shell::run(command.args(["--locked", "--force"]).env("LLVM_PREFIX", LLVM)) {
        eprintln!("setup: SKIPPED bpf-linker, for {BPF}: {error:#}");
    }
}

/// Tracepoints are found through tracefs; the system may not have mounted it.
fn tracefs() {
    if Path::new(TRACEFS).join("events").exists() {
        return;
    }
    if !shell::is_root() {
        eprintln!("setup: SKIPPED {TRACEFS}, for tracing by BPF: not mounted, or not for this user;");
        eprintln!("    sudo mount -t tracefs tracefs {TRACEFS}");
        return;
    }
    if let Err(error) = shell::run(&mut shell::program("mount", &["-t", "tracefs", "tracefs", TRACEFS])) {
        eprintln!("setup: SKIPPED {TRACEFS}, for tracing by BPF: {error:#}");
    }
}
