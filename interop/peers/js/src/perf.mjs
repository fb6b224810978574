import { performance } from 'node:perf_hooks'
import { multiaddr } from '@multiformats/multiaddr'
import { createHost } from './host.mjs'
import { Identities } from './identities.mjs'
import { send, StreamReader } from './streams.mjs'

export const PERF = '/perf/1.0.0'
const PING = '/ipfs/ping/1.0.0'
const PING_LENGTH = 32
const HEADER_LENGTH = 8
const CHUNK_LENGTH = 64 * 1024
const IDENTIFY_TIMEOUT = 10_000

/** Serves the perf protocol of the specifications. */
export async function servePerf (stream) {
  const header = Buffer.alloc(HEADER_LENGTH)
  let seen = 0

  await readAll(stream, data => {
    if (seen < HEADER_LENGTH) {
      Buffer.from(data.subarray(0, HEADER_LENGTH - seen)).copy(header, seen)
    }
    seen += data.byteLength
  })
  if (seen < HEADER_LENGTH) {
    throw new Error('the stream ended within its header')
  }
  await writeBlank(stream, Buffer.alloc(0), Number(header.readBigUInt64BE()), CHUNK_LENGTH)
  await stream.close()
}

/** One measurement on an open stream. */
async function perfOnce (stream, { upload, download, chunk = CHUNK_LENGTH }) {
  const header = Buffer.alloc(HEADER_LENGTH)
  let received = 0
  // Before the first byte is sent: a message that nobody listens for is kept in a buffer, and that costs.
  const answered = readAll(stream, data => { received += data.byteLength })

  header.writeBigUInt64BE(BigInt(download))
  try {
    await Promise.all([writeBlank(stream, header, upload, chunk).then(() => stream.close()), answered])
    if (received !== download) {
      throw new Error(`${received} bytes came instead of ${download}`)
    }
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

/** `total` measurements, `parallel` at a time, on streams that `open` opens. */
export async function perf (open, { total = 1, parallel = 1, ...sizes }) {
  const latencies = []
  let started = 0
  const worker = async () => {
    while (started++ < total) {
      const opened = performance.now()

      await perfOnce(await open(), sizes)
      latencies.push(performance.now() - opened)
    }
  }
  const start = performance.now()

  await Promise.all(Array.from({ length: parallel }, worker))

  return { seconds: (performance.now() - start) / 1000, latencies_ms: latencies }
}

/** Round-trip times on one stream. The package's own client opens a stream for each and rounds to milliseconds. */
export async function ping (connection, count) {
  const stream = await connection.newStream(PING, { runOnLimitedConnection: true })
  const reader = new StreamReader(stream)
  const rtts = []

  for (let i = 0; i < count; i++) {
    const start = performance.now()

    await send(stream, Buffer.alloc(PING_LENGTH, i))
    await reader.readExactly(PING_LENGTH)
    rtts.push(performance.now() - start)
  }
  await stream.close()

  return rtts
}

/** Connects `total` times, from `parallel` hosts that do nothing else; a latency does not include the hanging up. */
export async function connectMany (hostArgs, { addr, total, parallel, identify }) {
  const hosts = await Promise.all(Array.from({ length: parallel }, () => createHost({ ...hostArgs, listen: [], pubsub: 'none' })))
  const address = multiaddr(addr)
  const latencies = []
  let started = 0
  const worker = async host => {
    const identities = new Identities(host)

    while (started++ < total) {
      const dialled = performance.now()
      const connection = await host.dial(address)
      const peer = connection.remotePeer.toString()

      await perfOnce(await connection.newStream(PERF), { upload: 0, download: 1 })
      if (identify) {
        await identities.wait(peer, IDENTIFY_TIMEOUT)
      }
      latencies.push(performance.now() - dialled)
      await host.hangUp(connection.remotePeer)
    }
  }

  await Promise.all(hosts.map(host => host.start()))
  const start = performance.now()

  try {
    await Promise.all(hosts.map(worker))

    return { seconds: (performance.now() - start) / 1000, latencies_ms: latencies }
  } finally {
    await Promise.all(hosts.map(host => host.stop()))
  }
}

async function writeBlank (stream, first, size, chunk) {
  const blank = Buffer.alloc(Math.min(chunk, size))

  if (first.byteLength > 0) {
    const rest = blank.subarray(0, Math.max(chunk - first.byteLength, 0))

    await send(stream, Buffer.concat([first, rest]))
    size -= rest.byteLength
  }
  for (; size > 0; size -= blank.byteLength) {
    await send(stream, blank.subarray(0, Math.min(size, blank.byteLength)))
  }
}

/**
 * Gives `onData` every piece, at once and without holding the sender back, so `onData` must keep up. Resolves when the
 * remote has said everything.
 */
function readAll (stream, onData) {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (stream.remoteWriteStatus === 'closed' && stream.readBufferLength === 0) {
        resolve()
      }
    }

    stream.addEventListener('end', check)
    stream.addEventListener('message', ({ data }) => {
      onData(data)
      // 'end' may be over: it comes once, and the negotiation may have put back bytes that came with it.
      if (stream.remoteWriteStatus === 'closed') {
        queueMicrotask(check)
      }
    })
    stream.addEventListener('close', ({ error }) => {
      if (error != null) {
        reject(error)
      }
      check()
    })
    check()
  })
}
