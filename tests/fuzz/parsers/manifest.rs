//! A bundle folder whose manifest is anything; the files beside it are the tiny bundle's.

use vedetta::bundle::{Bundle, Limits};

use crate::tiny_bundle;

pub fn read(input: &[u8]) -> bool {
    let folder = super::folder("manifest");
    for (name, content) in tiny_bundle::files() {
        std::fs::write(folder.join(name), content).expect("a temporary file");
    }
    std::fs::write(folder.join("bundle.toml"), input).expect("a temporary file");
    Bundle::open(&folder, &Limits::default()).is_ok()
}
