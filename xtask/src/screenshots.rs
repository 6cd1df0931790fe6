//! `cargo xtask screenshots`: the pictures of the dashboard in `docs/images`, taken anew of a real program's heap.

use crate::{shell, web};
use anyhow::{Result, ensure};

/// Runs the verb.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "screenshots takes no words");
    web::packages()?;
    shell::run(&mut shell::cargo(&["build", "--release", "--package", "memfrag"]))?;
    let mut node = shell::program("node", &["screenshots.mjs"]);
    node.arg(shell::root().join("docs/images")).current_dir(shell::root().join("web"));
    shell::run(node.env("MEMFRAG_BIN", shell::target_dir().join("release/memfrag")))
}
