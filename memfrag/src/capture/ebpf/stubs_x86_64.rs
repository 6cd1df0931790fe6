//! Functions of our own to measure probes on: each begins with an instruction of another class.

use std::arch::global_asm;

global_asm!(
    ".text",
    ".p2align 5",
    ".globl memfrag_stub_push",
    ".type memfrag_stub_push, @function",
    "memfrag_stub_push:",
    "push rbp",
    "pop rbp",
    "ret",
    ".size memfrag_stub_push, . - memfrag_stub_push",
    ".p2align 5",
    ".globl memfrag_stub_test",
    ".type memfrag_stub_test, @function",
    "memfrag_stub_test:",
    "test rdi, rdi",
    "ret",
    ".size memfrag_stub_test, . - memfrag_stub_test",
);

unsafe extern "C" {
    fn memfrag_stub_push();
    fn memfrag_stub_test();
}

/// A stub and what its first instruction stands for.
#[derive(Clone, Copy)]
pub(super) struct Stub {
    function: unsafe extern "C" fn(),
}

/// Begins with `push`, which the kernel emulates.
pub(super) const EMULATED: Stub = Stub { function: memfrag_stub_push };
/// Begins with `test`, which the kernel single-steps.
pub(super) const SINGLE_STEPPED: Stub = Stub { function: memfrag_stub_test };

impl Stub {
    /// Where it lies in memory.
    pub(super) fn address(self) -> u64 {
        self.function as usize as u64
    }

    /// Calls it.
    pub(super) fn call(self) {
        // SAFETY: the stubs take nothing, return nothing, and keep every register that they must.
        unsafe { (self.function)() }
    }
}
