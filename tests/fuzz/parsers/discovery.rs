//! What a broker keeps under the topic that announces the device to Home Assistant: read back to find out
//! what was announced before.

use vedetta::publish::discovery::removals;

const ANNOUNCED: &[u8] = br#"{"cmps":{"image_corsia4":{"p":"image"}}}"#;

pub fn read(input: &[u8]) -> bool {
    let removed = removals(input, ANNOUNCED);
    if let Some(announced) = &removed {
        let again = removals(input, announced.to_string().as_bytes());
        assert!(again.is_none(), "nothing is removed twice");
    }
    removed.is_some()
}
