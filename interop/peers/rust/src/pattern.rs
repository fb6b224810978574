//! The byte pattern of the contract: one 64 KiB block made from a seed, repeated without end.

use sha2::{Digest, Sha256};

pub const BLOCK_SIZE: usize = 64 * 1024;

/// The block of `seed` (its decimal text).
pub fn block(seed: &str) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_SIZE);
    for i in 0..BLOCK_SIZE / 32 {
        block.extend_from_slice(&Sha256::digest(format!("{seed}:{i}")));
    }
    block
}

/// The next piece of the pattern at `position` when `size` bytes are wanted in all; empty at the end.
pub fn piece(block: &[u8], position: u64, size: u64) -> &[u8] {
    let start = (position % block.len() as u64) as usize;
    let left = (size - position).min((block.len() - start) as u64) as usize;
    &block[start..start + left]
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
