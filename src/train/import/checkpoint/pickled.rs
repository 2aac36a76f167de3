//! What a checkpoint's pickle may consist of.

use std::rc::Rc;

use anyhow::{Result, bail};

use super::Kind;

/// A tensor inside a pickle, its elements elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pickled {
    /// Name of the storage.
    pub key: Rc<str>,
    pub kind: Kind,
    /// Elements in the storage.
    pub length: usize,
    /// First element of the tensor.
    pub first: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Index into the interpreter's containers.
pub(super) type Container = usize;

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Something that carries no weights: `None`, a flag, a number that is not whole.
    Other,
    Int(i64),
    Text(Rc<str>),
    Tuple(Container),
    List(Container),
    /// Key, value, key, value, …
    Dict(Container),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Pickled>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

#[derive(Debug)]
pub(super) struct Storage {
    pub key: Rc<str>,
    pub kind: Kind,
    pub length: usize,
}

impl Global {
    /// A name on the list.
    pub fn named(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Kind::F32),
            ("torch", "HalfStorage") => Self::Storage(Kind::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Kind::Bf16),
            ("torch", "DoubleStorage") => Self::Storage(Kind::F64),
            ("torch", "LongStorage") => Self::Storage(Kind::Other(8)),
            ("torch", "IntStorage") => Self::Storage(Kind::Other(4)),
            ("torch", "ShortStorage") => Self::Storage(Kind::Other(2)),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => {
                Self::Storage(Kind::Other(1))
            }
            _ => bail!(
                "asks for {:?}, which a checkpoint of weights does not need; it is refused, \
                 not run. Save the weights alone, as safetensors",
                format!("{module}.{name}")
            ),
        })
    }
}
