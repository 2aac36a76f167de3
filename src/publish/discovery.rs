//! Home Assistant.
use crate::config::Config;
use crate::topics::Topics;
/// TODO
pub(super) fn device(_config: &Config, _topics: &Topics, _node: &str) -> serde_json::Value {
    serde_json::Value::Null
}
