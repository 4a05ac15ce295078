//! The fuzzer: libFuzzer's own `main`, with the target that `ANABRANCH_FUZZ_TARGET` names. `cargo xtask ci fuzz` builds it
//! with coverage and runs it; docs/testing.md says how to run it by hand.

#![no_main]

use anabranch_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

/// Bytes of address space that the process may have. Memory that is asked for and never touched does not show in its
/// resident size, which the fuzzer watches; a length that is believed before it is checked fails here.
const ADDRESS_SPACE: u64 = 1 << 30;

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("ANABRANCH_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("ANABRANCH_FUZZ_TARGET must be one of {}", names.join(", "));
            std::process::exit(2)
        })
    })
}

fn begin() {
    chosen();
    let limit = Rlimit { current: Some(ADDRESS_SPACE), ..getrlimit(Resource::As) };
    if let Err(error) = setrlimit(Resource::As, limit) {
        eprintln!("memory stays unbounded: {error}");
        std::process::exit(2)
    }
}

fuzz_target!(init: begin(), |data: &[u8]| (chosen().run)(data));
