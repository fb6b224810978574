//! Messages of eight parts of one byte, for the package's extension for messages in parts.
//!
//! On the wire parts are pairs of number and value; metadata is a byte with a bit for each part that somebody has.

use std::collections::BTreeMap;

use libp2p::{
    PeerId,
    gossipsub::partial_messages::{Metadata, Partial, PartialAction, PartialError},
};

const PARTS: u8 = 8;

/// What this peer has of a message.
#[derive(Clone)]
pub struct Eight {
    group: Vec<u8>,
    parts: BTreeMap<u8, u8>,
}

impl Eight {
    pub fn new(group: Vec<u8>) -> Self {
        let parts = BTreeMap::new();
        Self { group, parts }
    }

    /// Whether anything was new.
    pub fn add(&mut self, data: &[u8]) -> bool {
        let before = self.parts.len();
        let pairs = data.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        self.parts
            .extend(pairs.filter(|(number, _)| *number < PARTS));
        self.parts.len() > before
    }

    /// The parts that are not in `theirs`.
    pub fn lacking(&self, theirs: u8) -> Vec<u8> {
        let lacking = self
            .parts
            .iter()
            .filter(|(number, _)| theirs & 1 << **number == 0);
        lacking
            .flat_map(|(number, value)| [*number, *value])
            .collect()
    }

    fn bits(&self) -> u8 {
        self.parts.keys().fold(0, |bits, number| bits | 1 << number)
    }
}

impl Partial for Eight {
    fn group_id(&self) -> Vec<u8> {
        self.group.clone()
    }

    fn metadata(&self) -> Box<dyn Metadata> {
        Box::new(Bits([self.bits()]))
    }

    fn partial_action_from_metadata(
        &self,
        _: PeerId,
        metadata: Option<&[u8]>,
    ) -> Result<PartialAction, PartialError> {
        let need = self.parts.len() < PARTS.into();
        let Some(theirs) = metadata.map(byte).transpose()? else {
            return Ok(PartialAction { need, send: None });
        };
        let data = self.lacking(theirs);
        let told: Box<dyn Metadata> = Box::new(Bits([theirs | self.bits()]));
        let send = (!data.is_empty()).then_some((data, told));
        Ok(PartialAction { need, send })
    }
}

#[derive(Debug)]
struct Bits([u8; 1]);

impl Metadata for Bits {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn update(&mut self, data: &[u8]) -> Result<bool, PartialError> {
        let before = self.0;
        self.0[0] |= byte(data)?;
        Ok(self.0 != before)
    }
}

fn byte(metadata: &[u8]) -> Result<u8, PartialError> {
    match metadata {
        [bits] => Ok(*bits),
        _ => Err(PartialError::InvalidFormat),
    }
}
