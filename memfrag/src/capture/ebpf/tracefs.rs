//! Where the kernel describes its tracepoints.

use anyhow::{Context, Result};
use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The mounted tracefs; mounts it where it belongs when nobody has.
pub(super) fn mounted() -> Result<PathBuf> {
    if let Some(place) = PLACES.iter().map(Path::new).find(|place| place.join("events").is_dir()) {
        return Ok(place.to_owned());
    }
    mount(c"/sys/kernel/tracing")
        .context("tracefs is not mounted and could not be; run `mount -t tracefs tracefs /sys/kernel/tracing` as root")?;
    Ok(PathBuf::from(PLACES[0]))
}

fn mount(place: &CStr) -> io::Result<()> {
    let name = c"tracefs".as_ptr();
    // SAFETY: three C strings that outlive the call; the file system takes no options.
    match unsafe { libc::mount(name, place.as_ptr(), name, 0, std::ptr::null()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
