//! The library names no other library: what it needs of libc it takes from the program that it is loaded into.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-nostdlib", "-nostartfiles", "-Wl,-z,now", "-Wl,-z,relro"] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
