//! The BPF object: loaded, and the programs on which no allocator depends attached.

use super::Options;
use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use aya::programs::{Program, TracePoint};
use aya::{Ebpf, EbpfLoader};
use memfrag_common::config::Scope;
use memfrag_common::names::{Limit, Names};
use memfrag_common::told::Walking;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// The committed object.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../memfrag-ebpf/object/memfrag.o"));

/// Names another object, such as one that logs every decision.
const OBJECT_VARIABLE: &str = "MEMFRAG_BPF_OBJECT";

/// Program, category and name of the tracepoint.
const LIFECYCLE: [(&str, &str, &str); 3] = [
    ("task_newtask", "task", "task_newtask"),
    ("sched_process_exec", "sched", "sched_process_exec"),
    ("sched_process_exit", "sched", "sched_process_exit"),
];
const MEMORY: [(&str, &str, &str); 11] = [
    ("sys_enter", "syscalls", "sys_enter_mmap"),
    ("sys_exit", "syscalls", "sys_exit_mmap"),
    ("sys_enter", "syscalls", "sys_enter_munmap"),
    ("sys_exit", "syscalls", "sys_exit_munmap"),
    ("sys_enter", "syscalls", "sys_enter_mremap"),
    ("sys_exit", "syscalls", "sys_exit_mremap"),
    ("sys_exit", "syscalls", "sys_exit_brk"),
    ("sys_enter", "syscalls", "sys_enter_madvise"),
    ("sys_exit", "syscalls", "sys_exit_madvise"),
    ("sys_enter", "syscalls", "sys_enter_exit"),
    ("sys_enter", "syscalls", "sys_enter_exit_group"),
];

/// A loaded object.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) bytes: Vec<u8>,
    pub(super) globals: Vec<(&'static str, u32)>,
    /// Why memory-map events and exit statuses are missing, where they are.
    pub(super) without_memory_events: Option<String>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("globals", &self.globals).finish_non_exhaustive()
    }
}

/// What only walks of stacks need, which fills some memory.
const WALKING_MAPS: [&str; 3] = ["TOLD", "WALK_RULES", "SPACES"];

/// Loads the object as the options say.
pub(super) fn load(options: &Options) -> Result<Loaded> {
    let Options { walking, ref names, .. } = *options;
    // Of the whole machine, who runs what is wanted comes into the table of traced processes.
    let (scope, limit) = match options.scope {
        scope if names.is_empty() => (scope, Limit::None),
        Scope::All => (Scope::Map, Limit::Machine),
        scope => (scope, Limit::Family),
    };
    let group_dead = group_dead_offset()?;
    let bytes = match std::env::var_os(OBJECT_VARIABLE) {
        Some(path) => fs::read(&path).with_context(|| format!("reading the BPF object {}", path.display()))?,
        None => OBJECT.to_vec(),
    };
    let globals = vec![
        ("SCOPE", scope as u32),
        ("SELF", std::process::id()),
        ("GROUP_DEAD_OFFSET", group_dead),
        ("WALKING", walking as u32),
        ("LIMIT", limit as u32),
    ];
    let mut loader = EbpfLoader::new();
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    loader.map_max_entries("RECORDS", options.ring_bytes);
    let unused = if walking == Walking::Off { &WALKING_MAPS[..] } else { &[] };
    for map in unused {
        loader.map_max_entries(map, 1);
    }
    let mut ebpf = loader.load(&bytes).context("loading the BPF object")?;
    if limit != Limit::None {
        write_names(&mut ebpf, names).context("telling the BPF programs which names are wanted")?;
    }
    Ok(Loaded { ebpf, bytes, globals, without_memory_events: None })
}

fn write_names(ebpf: &mut Ebpf, names: &Names) -> Result<()> {
    let mut places = Array::<_, [u64; 4]>::try_from(ebpf.map_mut("NAMES").context("the BPF object has no such map")?)?;
    for (index, name) in (0..).zip(names.iter()) {
        places.set(index, name.to_words(), 0)?;
    }
    Ok(())
}

impl Loaded {
    /// Attaches the programs on processes, threads and mappings. These watch every process and ask for each event
    /// whether its process is traced.
    pub(super) fn attach_kernel_side(&mut self) -> Result<()> {
        self.attach_tracepoints(&LIFECYCLE)?;
        if let Err(error) = self.attach_tracepoints(&MEMORY) {
            self.without_memory_events = Some(format!("{error:#}"));
        }
        Ok(())
    }

    fn attach_tracepoints(&mut self, tracepoints: &[(&str, &str, &str)]) -> Result<()> {
        for &(name, category, tracepoint) in tracepoints {
            let program: &mut TracePoint = self.program(name)?.try_into()?;
            if program.fd().is_err() {
                program.load().with_context(|| format!("loading BPF program {name}"))?;
            }
            program
                .attach(category, tracepoint)
                .with_context(|| format!("attaching to the tracepoint {category}:{tracepoint}"))?;
        }
        Ok(())
    }

    pub(super) fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name:?}"))
    }

    pub(super) fn take_map(&mut self, name: &str) -> Result<Map> {
        self.ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name:?}"))
    }

    /// Name and descriptor of each map.
    pub(super) fn maps(&self) -> Vec<(String, RawFd)> {
        self.ebpf
            .maps()
            .filter_map(|(name, map)| Some((name.to_owned(), data(map)?.fd().as_fd().as_raw_fd())))
            .collect()
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => {
            Some(data)
        }
        _ => None,
    }
}

/// Where the exit tracepoint says that the last thread of a process ends; 0 where this kernel does not say it.
fn group_dead_offset() -> Result<u32> {
    let tracefs = super::tracefs::mounted()?;
    let path = tracefs.join("events/sched/sched_process_exit/format");
    let format = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(field_offset(&format, "group_dead").unwrap_or(0))
}

/// The offset of a field in a tracepoint's description.
fn field_offset(format: &str, field: &str) -> Option<u32> {
    let line = format.lines().find(|line| {
        line.trim_start().strip_prefix("field:").and_then(|rest| rest.split(';').next()).is_some_and(|declaration| {
            declaration.split_whitespace().last().is_some_and(|name| name.split('[').next() == Some(field))
        })
    })?;
    line.split("offset:").nth(1)?.split(';').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_of_a_tracepoint() {
        let format = "format:\n\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\
                      \tfield:bool group_dead;\toffset:32;\tsize:1;\tsigned:0;\n";
        assert_eq!(field_offset(format, "group_dead"), Some(32));
        assert_eq!(field_offset(format, "comm"), Some(8));
        assert_eq!(field_offset(format, "dead"), None);
        assert_eq!(field_offset("field:bool group_dead;\toffset:x;", "group_dead"), None);
    }
}
