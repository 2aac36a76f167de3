//! A bundle folder whose manifest is anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vedetta::bundle::{Bundle, Limits};

fuzz_target!(|input: &[u8]| {
    let folder = std::env::temp_dir().join(format!("vedetta-fuzz-{}", std::process::id()));
    if std::fs::create_dir_all(&folder).is_ok()
        && std::fs::write(folder.join("bundle.toml"), input).is_ok()
    {
        let _ = Bundle::open(&folder, &Limits::default()).map(|bundle| bundle.id());
    }
});
