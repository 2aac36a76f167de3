//! A minisign public key and signature, as an installation reads them.

use std::fs;

use vedetta::bundle::signature::{PublicKey, beside};

/// Well-formed, so that signatures get as far as they can.
const KEY: &str = "RWTkELeadAlTKBSbCxzDuhUc937Fa2NfgOHVUoW7dsPr2czLnq9FqELE";

pub fn read(input: &[u8]) -> bool {
    let folder = super::folder("signature");
    let file = folder.join("bundle.tar.zst");
    fs::write(&file, b"signed").expect("a temporary file");
    fs::write(beside(&file), input).expect("a temporary file");
    let key: PublicKey = KEY.parse().expect("it is a key");
    assert!(
        key.verify(&file).is_err(),
        "nobody has the other half of this key"
    );
    let text = std::str::from_utf8(input).unwrap_or_default();
    let Ok(key) = text.parse::<PublicKey>() else {
        return false;
    };
    let _ = key.verify(&file);
    true
}
