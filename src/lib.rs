//! vedetta: a camera lookout that answers questions in plain Italian.
//!
//! ```text
//!             capture thread            inference thread                            mqtt thread
//!  /dev/videoN ──► Frame ──► LatestSlot ──► RGB ──► ModelInput ──► Embedding ──► Scores ──► Event ──► Outbox ──► broker
//!  replay dir  ┘   (freshest wins)          crop per zone, batched    [D], unit norm   (pure, no I/O, no clock)   (on disk)
//! ```
//!
//! Only [`frame::Frame`], [`publish::Outgoing`] and progress marks cross threads. The slot holds one
//! frame: an old frame is never worth encoding, so skipped frames are counted, not queued. The
//! deciding half ([`prompts`], [`matcher`], [`decide`], [`gate`], [`publish::backoff`]) is pure:
//! time is an argument.

pub mod annotate;
pub mod bench;
pub mod bundle;
pub mod calibrate;
pub mod capture;
pub mod check;
pub mod config;
pub mod daemon;
pub mod decide;
pub mod decode;
pub mod encoder;
pub mod event;
pub mod faults;
pub mod frame;
pub mod gate;
pub mod health;
pub mod heat;
pub mod label_bank;
pub mod label_set;
pub mod live;
pub mod lookout;
pub mod matcher;
pub mod memory;
pub mod moment;
pub mod photo;
pub mod preprocess;
pub mod prompts;
pub mod publish;
pub mod slot;
pub mod telemetry;
pub mod topics;
#[cfg(feature = "train")]
pub mod train;
pub mod update;
mod wall_clock;
pub mod watchdog;
