//! The developer's verbs.

mod ebpf;

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project").to_owned()
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((verb, rest)) if verb == "ebpf" => ebpf::run(rest),
        _ => anyhow::bail!("usage: cargo xtask ebpf"),
    }
}
