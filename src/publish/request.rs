//! Requests from the broker: hostile until proven otherwise. Pure: bytes in, a [`Command`] or a
//! refusal out.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Change, Command};
use crate::config::{CommandName, Id};
use crate::topics::{Request, Setting, Topics};
use crate::update::Remote;

/// Largest payload of a request.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// Longest text for an `id`.
const MAX_ID_CHARS: usize = 128;
/// Longest prompt or noun, in characters.
const MAX_PROMPT_CHARS: usize = 256;
/// Longest pause that can be asked for, a year; the daemon has its own limit.
const MAX_PAUSE_S: f64 = 31_536_000.0;

/// Why a request is not done, and where that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// `B/reply/<name>`.
    pub topic: String,
    /// The request's, null where it has none that can be used.
    pub id: Value,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Refused {
    /// The answer.
    pub fn body(&self) -> Value {
        json!({"id": self.id, "ok": false, "code": self.code, "message": self.message})
    }
}

type Wrong = (&'static str, String);

/// Reads the request in `payload` on `topic`. `None` when `topic` is not one of ours.
pub fn read(
    topics: &Topics,
    allowed: &[CommandName],
    topic: &str,
    payload: &[u8],
) -> Option<Result<Command, Refused>> {
    let request = topics.parse_request(topic)?;
    let reply = reply_topic(topics, &request);
    let name = match &request {
        Request::Command(_, name) => *name,
        Request::Setting(..) => Some(CommandName::Set),
    };
    let is_command = matches!(request, Request::Command(..));
    let id = if is_command {
        id_of(payload)
    } else {
        Value::Null
    };
    let outcome = match name {
        None => Err(("unknown-command", "there is no such command".to_owned())),
        Some(name) if !allowed.contains(&name) => {
            let message = "this command is not in mqtt.commands of this device";
            Err(("not-allowed", message.to_owned()))
        }
        Some(_) if payload.len() > MAX_REQUEST_BYTES => {
            let message = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
            Err(("too-large", message))
        }
        Some(name) => match request {
            Request::Command(..) => command(name, &id, payload),
            Request::Setting(label, setting) => one_setting(label, setting, payload),
        },
    };
    Some(outcome.map_err(|(code, message)| Refused {
        topic: reply,
        id,
        code,
        message,
    }))
}

/// Where `request` is answered.
pub fn reply_topic(topics: &Topics, request: &Request) -> String {
    match request {
        Request::Command(_, Some(name)) => topics.reply(*name),
        Request::Command(name, None) => topics.reply_unknown(name),
        Request::Setting(..) => topics.reply(CommandName::Set),
    }
}

/// The `id` of a request that may be wrong in everything else: a whole number or a text.
pub fn id_of(payload: &[u8]) -> Value {
    /// Everything else is skipped without being kept.
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<Value>,
    }
    if payload.len() > MAX_REQUEST_BYTES {
        return Value::Null;
    }
    let id = serde_json::from_slice::<OnlyId>(payload)
        .ok()
        .and_then(|only| only.id);
    match id {
        Some(Value::String(text)) if text.chars().count() <= MAX_ID_CHARS => Value::String(text),
        Some(Value::Number(number)) if !number.is_f64() => Value::Number(number),
        _ => Value::Null,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotRequest {
    #[serde(rename = "id")]
    _id: Value,
    camera: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallRequest {
    #[serde(rename = "id")]
    _id: Value,
    url: String,
    sha256: String,
}

/// A request that says nothing but its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BareRequest {
    #[serde(rename = "id")]
    _id: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    #[serde(rename = "id")]
    _id: Value,
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRequest {
    #[serde(rename = "id")]
    _id: Value,
    label: Option<String>,
    threshold: Option<f64>,
    prompt: Option<String>,
    labels: Option<Vec<NewLabel>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLabel {
    id: String,
    noun: String,
}

fn command(name: CommandName, id: &Value, payload: &[u8]) -> Result<Command, Wrong> {
    let text = std::str::from_utf8(payload)
        .map_err(|_| ("bad-json", "a request is JSON in UTF-8".to_owned()))?;
    let command = match name {
        CommandName::Snapshot => {
            let request: SnapshotRequest = parse(text)?;
            let camera = request.camera.as_deref().map(identifier).transpose()?;
            Command::Snapshot {
                id: id.clone(),
                camera,
            }
        }
        CommandName::Reload => {
            let _: BareRequest = parse(text)?;
            Command::Reload { id: id.clone() }
        }
        CommandName::RollbackBundle => {
            let _: BareRequest = parse(text)?;
            Command::RollbackBundle { id: id.clone() }
        }
        CommandName::InstallBundle => {
            let request: InstallRequest = parse(text)?;
            let remote = Remote::new(&request.url, &request.sha256);
            Command::InstallBundle {
                id: id.clone(),
                remote: remote.map_err(|error| bad(&error.to_string()))?,
            }
        }
        CommandName::Pause => {
            let request: PauseRequest = parse(text)?;
            if !(0.0..=MAX_PAUSE_S).contains(&request.seconds) {
                return Err(bad("seconds must be 0 or more; 0 resumes"));
            }
            let time = Duration::from_secs_f64(request.seconds);
            Command::Pause {
                id: id.clone(),
                time,
            }
        }
        CommandName::Set => Command::Set {
            id: id.clone(),
            change: change(parse(text)?)?,
        },
    };
    if id.is_null() {
        let message = format!("id must be a text of at most {MAX_ID_CHARS} characters or a number");
        return Err(("bad-request", message));
    }
    Ok(command)
}

fn change(request: SetRequest) -> Result<Change, Wrong> {
    let SetRequest {
        label,
        threshold,
        prompt,
        labels,
        ..
    } = request;
    match (label, threshold, prompt, labels) {
        (Some(label), Some(value), None, None) => Ok(Change::Threshold {
            label: identifier(&label)?,
            value: probability(value)?,
        }),
        (Some(label), None, Some(text), None) => Ok(Change::Prompt {
            label: identifier(&label)?,
            text: phrase(&text)?,
        }),
        (None, None, None, Some(labels)) => labels
            .into_iter()
            .map(|label| Ok((identifier(&label.id)?, phrase(&label.noun)?)))
            .collect::<Result<_, _>>()
            .map(Change::Labels),
        _ => Err(bad(
            "give label and threshold, or label and prompt, or labels alone",
        )),
    }
}

/// `B/config/<label>/<setting>/set`: plain text, not JSON.
fn one_setting(label: Id, setting: Setting, payload: &[u8]) -> Result<Command, Wrong> {
    let text = std::str::from_utf8(payload).map_err(|_| bad("the value must be UTF-8"))?;
    let change = match setting {
        Setting::Threshold => {
            let value: f64 = text
                .trim()
                .parse()
                .map_err(|_| bad("a threshold is a number from 0 to 1, such as 0.7"))?;
            Change::Threshold {
                label,
                value: probability(value)?,
            }
        }
        Setting::Prompt => Change::Prompt {
            label,
            text: phrase(text)?,
        },
    };
    Ok(Command::Set {
        id: Value::Null,
        change,
    })
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Wrong> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ("bad-request", error.to_string()),
        _ => ("bad-json", error.to_string()),
    })
}

fn identifier(text: &str) -> Result<Id, Wrong> {
    let shown: String = text.chars().take(80).collect();
    Id::new(text).ok_or_else(|| bad(&format!("{shown:?} is no id: it must be {}", Id::LEGAL)))
}

fn probability(value: f64) -> Result<f32, Wrong> {
    if !(0.0..=1.0).contains(&value) {
        return Err(bad("a threshold is a number from 0 to 1"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "0 to 1: only digits that nobody typed are lost"
    )]
    let value = value as f32;
    Ok(value)
}

fn phrase(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let fits = (1..=MAX_PROMPT_CHARS).contains(&text.chars().count());
    if !fits || text.chars().any(char::is_control) {
        let message = format!("a prompt is one line of 1 to {MAX_PROMPT_CHARS} characters");
        return Err(bad(&message));
    }
    Ok(text.to_owned())
}

fn bad(message: &str) -> Wrong {
    ("bad-request", message.to_owned())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
