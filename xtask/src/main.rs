//! The developer's verbs, one file each: `cargo xtask VERB`.

mod bench;
mod dashboard;
mod dist;
mod ebpf;
mod lint;
mod measure;
mod screenshots;
mod setup;
mod shell;
mod test;
mod web;

use std::process::ExitCode;

/// A verb: its name, what it does, and the function that does it with the words that follow it.
type Verb = (&'static str, &'static str, fn(&[String]) -> anyhow::Result<()>);

const VERBS: &[Verb] = &[
    ("setup", "install what building and testing need, as far as it is missing", setup::run),
    (
        "lint",
        "formatting, clippy, documentation, and whether BPF object and page are what their sources build",
        lint::run,
    ),
    ("test", "everything that CI runs; with --long also the soaks and fault storms", test::run),
    ("ebpf", "build the BPF object; with --check only tell whether it is current", ebpf::run),
    ("web", "check, test and build the dashboard's page; with --check only tell whether it is current", web::run),
    (
        "bench",
        "the benchmarks, whole programs under memfrag and its peers, and the dashboard on a large heap; --quick for a short \
         look, --dashboard for that part alone, --soak for whether its memory grows",
        measure::run,
    ),
    ("screenshots", "the pictures of the dashboard in docs/images, of a real program's heap", screenshots::run),
    ("dist", "the binary to hand out, in target/dist, tried from an empty directory", dist::run),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let Some((_, _, verb)) = VERBS.iter().find(|verb| verb.0 == name) else {
        if !name.is_empty() && name != "help" && name != "--help" {
            eprintln!("xtask: there is no verb {name:?}\n");
        }
        eprintln!("usage: cargo xtask VERB\n");
        for (name, what, _) in VERBS {
            eprintln!("  {name:<12}{what}");
        }
        return if name == "help" || name == "--help" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    match verb(&rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<shell::Told>() {
                eprintln!("xtask {name}: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
