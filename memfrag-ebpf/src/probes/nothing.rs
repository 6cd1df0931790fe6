//! Programs that do nothing: what a probe costs by itself.

use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};

#[uprobe]
pub fn nothing_at_entry(_ctx: ProbeContext) -> u32 {
    0
}

#[uretprobe]
pub fn nothing_at_return(_ctx: RetProbeContext) -> u32 {
    0
}
