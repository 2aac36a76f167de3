//! Everything that reads what others wrote, each as a function of bytes that must not panic, hang or
//! take memory without bound. The fuzzer (`run.sh`) and the test suite (`main.rs`) run the same.

mod bundle;
mod calibration;
#[cfg(feature = "train")]
mod checkpoint;
mod config;
#[cfg(feature = "train")]
mod dataset;
mod discovery;
mod frame;
mod heat;
#[cfg(feature = "train")]
mod import;
mod manifest;
mod message;
mod packed;
mod photo;
mod range;
mod signature;
mod state;

/// A parser by the name of its seeds.
#[derive(Clone, Copy)]
pub struct Parser {
    /// Folder under `seeds`.
    pub name: &'static str,
    /// Reads anything; true when it was accepted.
    pub read: fn(&[u8]) -> bool,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser {
        name: "archive",
        read: bundle::archive,
    },
    Parser {
        name: "calibration",
        read: calibration::read,
    },
    #[cfg(feature = "train")]
    Parser {
        name: "checkpoint",
        read: checkpoint::read,
    },
    Parser {
        name: "config",
        read: config::read,
    },
    #[cfg(feature = "train")]
    Parser {
        name: "dataset",
        read: dataset::read,
    },
    Parser {
        name: "discovery",
        read: discovery::read,
    },
    Parser {
        name: "frame",
        read: frame::read,
    },
    Parser {
        name: "heat",
        read: heat::read,
    },
    #[cfg(feature = "train")]
    Parser {
        name: "import",
        read: import::read,
    },
    Parser {
        name: "manifest",
        read: manifest::read,
    },
    Parser {
        name: "message",
        read: message::read,
    },
    Parser {
        name: "onnx",
        read: bundle::onnx,
    },
    Parser {
        name: "packed",
        read: packed::read,
    },
    Parser {
        name: "photo",
        read: photo::read,
    },
    Parser {
        name: "range",
        read: range::read,
    },
    Parser {
        name: "signature",
        read: signature::read,
    },
    Parser {
        name: "state",
        read: state::read,
    },
    Parser {
        name: "tokenizer",
        read: bundle::tokenizer,
    },
];

/// The parser of this name.
///
/// # Panics
/// There is none.
pub fn named(name: &str) -> Parser {
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    *parser.unwrap_or_else(|| panic!("there is no parser {name}; is the feature train on?"))
}

/// A folder for the files of parsers that read files, one per process and parser.
fn folder(name: &str) -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    let root = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let folder = root.join(format!("vedetta-fuzz-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}
