//! A session with any bytes of a client: `usher::session::fuzzing` has the rules.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use usher::session::fuzzing::Fuzzer;

/// The runtime stays: the database's tasks run on it.
static FUZZER: OnceLock<(TempDir, Runtime, Fuzzer)> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let (_, _, fuzzer) = FUZZER.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite:{}", dir.path().join("usher.db").display());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let fuzzer = runtime.block_on(Fuzzer::open(&url));
        (dir, runtime, fuzzer)
    });
    fuzzer.run(data);
});
