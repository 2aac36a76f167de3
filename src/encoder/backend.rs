//! What the image encoder runs on.

use std::fmt;
use std::str::FromStr;

use super::EncodeError;
use super::int8::op::Accelerator;

/// Why there is no accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// There is none here, or this program does not know any.
    Absent(String),
    /// There is one that cannot be used.
    Unusable(String),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(reason) | Self::Unusable(reason) => f.write_str(reason),
        }
    }
}

/// What the image encoder may run on. Text is embedded on the CPU: it is little, and done at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// An NVIDIA GPU where there is one and this program was built for it, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU, and nothing else.
    Cuda,
}

/// Names of the backends, as the configuration has them.
pub const BACKENDS: [(&str, Backend); 3] = [
    ("auto", Backend::Auto),
    ("cpu", Backend::Cpu),
    ("cuda", Backend::Cuda),
];

impl Backend {
    /// What serves int8 sublayers; `None` for the CPU.
    ///
    /// # Errors
    /// Where a GPU is asked for: that there is none, or why it cannot be used.
    pub(super) fn accelerator(self) -> Result<Option<Box<dyn Accelerator>>, EncodeError> {
        if self == Self::Cpu {
            return Ok(None);
        }
        match open() {
            Ok(gpu) => Ok(Some(gpu)),
            Err(problem) if self == Self::Cuda => Err(not_served(problem)),
            Err(Unavailable::Absent(reason)) => {
                log::debug!("no GPU: {reason}");
                Ok(None)
            }
            Err(Unavailable::Unusable(reason)) => {
                log::warn!("the GPU is not used: {reason}");
                Ok(None)
            }
        }
    }
}

/// A tower that has to be on a GPU, and cannot be.
pub(super) fn not_served(reason: impl fmt::Display) -> EncodeError {
    EncodeError::Engine {
        engine: "CUDA",
        message: format!("{reason}; model.backend = \"auto\" uses the CPU instead"),
    }
}

/// What the GPU is called that images would be encoded on.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn gpu() -> Result<String, Unavailable> {
    Ok(open()?.describe())
}

#[cfg(feature = "cuda")]
fn open() -> Result<Box<dyn Accelerator>, Unavailable> {
    Ok(Box::new(super::cuda::Gpu::open()?))
}

#[cfg(not(feature = "cuda"))]
fn open() -> Result<Box<dyn Accelerator>, Unavailable> {
    let reason = "this vedetta was built without CUDA (cargo build --features cuda)";
    Err(Unavailable::Absent(reason.to_owned()))
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = BACKENDS.iter().find(|(_, backend)| backend == self);
        f.write_str(name.map_or("auto", |(name, _)| name))
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = BACKENDS.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, backend)| *backend)
            .ok_or_else(|| format!("{text:?} is none of auto, cpu, cuda"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (name, backend) in BACKENDS {
            assert_eq!(name.parse(), Ok(backend));
            assert_eq!(backend.to_string(), name);
        }
        assert!("gpu".parse::<Backend>().is_err());
    }

    #[test]
    fn the_cpu_asks_for_nothing() {
        assert!(Backend::Cpu.accelerator().unwrap().is_none());
    }

    #[test]
    fn a_gpu_that_is_asked_for_is_not_replaced_without_a_word() {
        match (Backend::Cuda.accelerator(), Backend::Auto.accelerator()) {
            (Ok(Some(_)), Ok(Some(_))) => {}
            (Err(problem), Ok(None)) => {
                let problem = problem.to_string();
                assert!(problem.contains("CUDA"), "{problem}");
                assert!(problem.contains("model.backend"), "{problem}");
            }
            _ => panic!("both find the same"),
        }
    }
}
