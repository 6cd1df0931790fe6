//! Many probes in one link (`uprobe_multi`, kernel 6.6): attached and detached together.
//!
//! Closing a link of a single probe waits for every CPU about a tenth of a second, and a malloc family has some
//! twenty. aya 0.14 cannot load programs for multi links, so its maps are used and the two system calls made here.

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};
use aya_obj::{Features, Object};
use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BPF_TRACE_UPROBE_MULTI`.
const ATTACH_TYPE: u32 = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
/// `BPF_F_UPROBE_MULTI_RETURN`.
const RETURN: u32 = 1;

/// Which of a function's two ends a program sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The probe point near its entry.
    Entry,
    /// Its return.
    Return,
}

/// A loaded program that can be attached by multi links.
#[derive(Debug)]
pub(super) struct MultiProgram {
    fd: OwnedFd,
    end: End,
}

/// `BPF_PROG_LOAD`'s part of `union bpf_attr`, up to the last field used.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// `BPF_LINK_CREATE`'s part of `union bpf_attr` for multi uprobes.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a structure laid out as it declares it; the pointers in it
    // outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Loads the named programs of the object with the given maps (name and descriptor of each).
pub(super) fn load(
    object: &[u8],
    maps: &[(String, RawFd)],
    globals: &[(&str, u32)],
    programs: &[(&str, End)],
) -> anyhow::Result<Vec<MultiProgram>> {
    let mut object = Object::parse(object)?;
    let patches = globals.iter().map(|(name, value)| (*name, (as_bytes(value), true))).collect();
    object.patch_map_data(patches)?;
    let definitions = object.maps.clone();
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = maps.iter().filter_map(|(name, fd)| Some((name.as_str(), *fd, definitions.get(name)?)));
    object.relocate_maps(maps, &text)?;
    object.relocate_calls(&text)?;
    object.sanitize_functions(&Features::default());
    programs
        .iter()
        .map(|&(name, end)| {
            let program = object
                .programs
                .get(name)
                .ok_or_else(|| anyhow::anyhow!("the BPF object has no program {name:?}; is it of this version?"))?;
            let instructions = &object.functions[&program.function_key()].instructions;
            Ok(MultiProgram { fd: load_one(name, instructions, &program.license)?, end })
        })
        .collect()
}

fn as_bytes(value: &u32) -> &[u8] {
    // SAFETY: four initialised bytes, borrowed as long as the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), 4) }
}

fn load_one(name: &str, instructions: &[aya_obj::generated::bpf_insn], license: &CString) -> anyhow::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        program_type: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: ATTACH_TYPE,
        ..LoadAttributes::default()
    };
    for (to, from) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let error = match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Again with the verifier's log, which costs and so is not asked for at first.
    let mut log = vec![0u8; 1 << 20];
    attributes.log_level = 1;
    attributes.log_size = log.len() as u32;
    attributes.log = log.as_mut_ptr() as u64;
    let _ = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes);
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(0);
    let log = String::from_utf8_lossy(&log[..end]).into_owned();
    let tail = log.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(anyhow::anyhow!("loading BPF program {name}: {error}\n{tail}"))
}

impl MultiProgram {
    /// Attaches the program to every offset of the file, for one process or for all.
    ///
    /// # Errors
    /// `EINVAL` where the kernel has no multi links; `ENOENT`, `EACCES` for the file; `ESRCH` for the process.
    pub(super) fn attach(&self, file: &Path, points: &[(u64, u64)], pid: Option<u32>) -> io::Result<OwnedFd> {
        let path = CString::new(file.as_os_str().as_bytes())?;
        let offsets: Vec<u64> = points.iter().map(|(offset, _)| *offset).collect();
        let cookies: Vec<u64> = points.iter().map(|(_, cookie)| *cookie).collect();
        let mut attributes = LinkAttributes {
            program: self.fd.as_raw_fd().cast_unsigned(),
            attach_type: ATTACH_TYPE,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            cookies: cookies.as_ptr() as u64,
            count: offsets.len() as u32,
            multi_flags: if self.end == End::Return { RETURN } else { 0 },
            pid: pid.unwrap_or(0),
            ..LinkAttributes::default()
        };
        bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
    }
}
