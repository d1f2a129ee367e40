//! stub
use crate::error::{Error, Result};
use std::io::{Read, Write};
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Params;
impl Params {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
    pub(super) fn parse(_: &[u8]) -> Result<Params> {
        Err(Error::invalid("none"))
    }
    pub(super) fn needs_length(&self) -> bool {
        false
    }
    pub(super) fn memory(&self) -> u64 {
        0
    }
    pub(super) fn encode(&self, _plain: &mut dyn Read, _l: Option<u64>, _out: &mut dyn Write) -> Result<u64> {
        Err(Error::invalid("none"))
    }
}
