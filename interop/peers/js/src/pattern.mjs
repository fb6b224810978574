import { createHash } from 'node:crypto'

const HASH_LENGTH = 32
const BLOCK_LENGTH = 2048 * HASH_LENGTH

/** The block of the contract (64 KiB), or just its start when `size` bytes of the pattern need no more. */
function startOfBlock (seed, size) {
  const hashes = []

  for (let i = 0; i * HASH_LENGTH < Math.min(size, BLOCK_LENGTH); i++) {
    hashes.push(createHash('sha256').update(`${seed}:${i}`).digest())
  }

  return Buffer.concat(hashes)
}

/** The pattern of the contract in pieces of at most one block (64 KiB), so that its size costs no memory. */
export function * pattern (seed, size) {
  const block = startOfBlock(seed, size)

  for (let left = size; left > 0; left -= block.byteLength) {
    yield block.subarray(0, Math.min(left, block.byteLength))
  }
}
