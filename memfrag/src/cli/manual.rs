//! `memfrag completions` and `memfrag man`: what shells and `man` want to know of the command line, from its grammar.

use super::args::{Args, CompletionsArgs, ManArgs};
use super::{FAILED, NOT_EXECUTABLE, NOT_FOUND};
use anyhow::{Context, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::{Man, roff};
use std::io::{self, Write};
use std::path::Path;

/// Prints the script that completes memfrag's words in a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "memfrag", &mut script);
    io::stdout().write_all(&script)?;
    Ok(0)
}

/// Prints one manual page, or writes them all into a directory.
pub(super) fn man(args: &ManArgs) -> Result<u8> {
    let command = built();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(dir, &command)?;
        for verb in verbs(&command) {
            write(dir, verb)?;
        }
        return Ok(0);
    }
    let command = match &args.verb {
        Some(name) => verbs(&command).find(|verb| verb.get_name() == name).with_context(|| {
            let known: Vec<&str> = verbs(&command).map(Command::get_name).collect();
            format!("there is no verb {name:?}; there are {}", known.join(", "))
        })?,
        None => &command,
    };
    io::stdout().write_all(&page(command)?)?;
    Ok(0)
}

/// The grammar, with its verbs named as they are called: `memfrag-trace`.
fn built() -> Command {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    command
}

fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set())
}

/// What the page of a command is called, without its section.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn write(dir: &Path, command: &Command) -> Result<()> {
    let path = dir.join(format!("{}.1", name(command)));
    std::fs::write(&path, page(command)?).with_context(|| format!("cannot write {}", path.display()))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name(command))
        .source(concat!("memfrag ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    if command.get_name() == "memfrag" || command.get_name() == "trace" {
        exit_status(&mut page)?;
    }
    Ok(page)
}

/// The statuses with which memfrag ends.
fn exit_status(page: &mut Vec<u8>) -> io::Result<()> {
    let mut section = roff::Roff::default();
    section.control("SH", ["EXIT STATUS"]);
    let statuses = [
        ("0".to_owned(), "what was asked for has been done"),
        (FAILED.to_string(), "memfrag itself has failed"),
        (NOT_EXECUTABLE.to_string(), "the command to be traced cannot be run"),
        (NOT_FOUND.to_string(), "the command to be traced was not found"),
        ("other".to_owned(), "that of the traced command; 128 + n when signal n has ended it"),
    ];
    for (status, meaning) in statuses {
        section.control("TP", []).text([roff::bold(status)]).text([roff::roman(meaning)]);
    }
    section.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_names_its_options() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs { verb: None, dir: Some(dir.path().join("man1")) }).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join("man1").join(name)).unwrap();
        let files = std::fs::read_dir(dir.path().join("man1")).unwrap().count();
        assert_eq!(files, 1 + verbs(&built()).count());
        let all = read("memfrag.1");
        for verb in verbs(&built()) {
            assert!(all.contains(&format!("memfrag\\-{}", verb.get_name())), "{all}");
        }
        let trace = read("memfrag-trace.1");
        for said in ["\\-\\-pid", "\\-\\-duration", "EXIT STATUS", "memfrag trace"] {
            assert!(trace.contains(said), "no {said:?} in {trace}");
        }
        // Options for tests alone are nobody's business.
        assert!(!trace.contains("probe\\-body") && !trace.contains("placement"), "{trace}");
        assert!(!read("memfrag-report.1").contains("EXIT STATUS"));
    }

    #[test]
    fn a_verb_that_is_not_there_is_named() {
        let error = man(&ManArgs { verb: Some("tarce".into()), dir: None }).unwrap_err().to_string();
        assert!(error.contains("tarce") && error.contains("trace, "), "{error}");
    }
}
