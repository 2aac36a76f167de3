//! What the daemon finds in its own state directory after a disk or a person damaged it: the
//! pointer to the bundle in use, settings made at run time, cached embeddings.

use std::fs;

use vedetta::bundle::store::Store;
use vedetta::daemon::Settings;
use vedetta::encoder::EncodeError;
use vedetta::label_bank::PromptCache;

pub fn read(input: &[u8]) -> bool {
    let folder = super::folder("state");
    let store = Store::open(&folder);
    fs::create_dir_all(store.root()).expect("a temporary folder");
    fs::write(store.root().join("current.json"), input).expect("a temporary file");
    let pointer = store.pointer();
    let settings = folder.join("settings.json");
    fs::write(&settings, input).expect("a temporary file");
    let _ = Settings::load(&settings);
    let sha256 = "ab".repeat(32);
    fs::write(folder.join(format!("prompts-{}.bin", &sha256[..16])), input)
        .expect("a temporary file");
    let cache = PromptCache::new(Some(&folder), &sha256, 4);
    let prompts = ["una mela".to_owned()];
    let no_encoder = || Err(EncodeError::Input("there is none".to_owned()));
    let _ = cache.embed(&[&prompts], no_encoder, &mut |_, _| {});
    pointer.current.is_some()
}
