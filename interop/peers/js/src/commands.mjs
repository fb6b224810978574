import { createHash } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { reachable } from './autonat.mjs'
import { dhtMany } from './dht-many.mjs'
import { Gossip } from './gossip.mjs'
import { STREAM_LIMITS } from './host.mjs'
import { dhtCommands } from './kad.mjs'
import { pattern } from './pattern.mjs'
import { connectMany, PERF, perf, ping } from './perf.mjs'
import { DIGEST, ECHO, MARK_LENGTH, RESET, SINK, WATCH } from './protocols.mjs'
import { readOutcome, send, StreamReader } from './streams.mjs'

const IDENTIFY_TIMEOUT = 10_000
const SMALL_ECHO = 100

const MPLEX = '/mplex/6.7.0'
/** How much an echo may be behind where the muxer itself does not hold the writer back. */
const MPLEX_IN_FLIGHT = 1024 * 1024

/** The commands of the contract: every method of `handlers` takes a command's arguments and returns its results. */
export class Commands {
  #host
  #protocols
  #identities
  #args
  #gossip
  #pushed = 0

  constructor (host, protocols, identities, args) {
    this.#host = host
    this.#protocols = protocols
    this.#identities = identities
    this.#args = args
    this.#gossip = new Gossip(host, args)
  }

  handlers = {
    dial: async ({ addr }) => {
      const connection = await this.#host.dial(multiaddr(addr))

      return { peer_id: connection.remotePeer.toString() }
    },

    reserve: async ({ addr }) => {
      // Not through the configuration: the relay is there only after this host is.
      await this.#host.components.transportManager.listen([multiaddr(`${addr}/p2p-circuit`)])

      return {}
    },

    autonat: async () => reachable(this.#host),

    ...dhtCommands(() => this.#host),

    dht_many: async load => dhtMany(this.#args, load),

    ping: async ({ peer, count }) => ({ rtts_ms: await ping(this.#connection(peer), count) }),

    identify: async ({ peer }) => {
      this.#connection(peer)
      const identity = await this.#identities.wait(peer, IDENTIFY_TIMEOUT)

      return {
        agent: identity.agentVersion,
        protocol_version: identity.protocolVersion,
        protocols: identity.protocols,
        listen_addrs: identity.listenAddrs.map(String),
        observed_addr: identity.observedAddr?.toString() ?? null
      }
    },

    known_protocols: async ({ peer }) => {
      const { protocols } = await this.#host.peerStore.get(peerIdFromString(peer))

      return { protocols }
    },

    add_protocol: async ({ protocol }) => {
      await this.#host.handle(protocol, stream => stream.close(), STREAM_LIMITS)
    },

    echo: async ({ peer, size, seed }) => {
      const stream = await this.#open(peer, ECHO)
      const inFlight = new InFlight(this.#connection(peer).multiplexer === MPLEX ? MPLEX_IN_FLIGHT : Infinity)
      const start = performance.now()
      const hash = createHash('sha256')
      let bytes = 0
      const readBack = async () => {
        for await (const chunk of new StreamReader(stream)) {
          hash.update(chunk.subarray())
          bytes += chunk.byteLength
          inFlight.remove(chunk.byteLength)
        }
      }

      await finishOrAbort(stream, () => Promise.all([
        writePattern(stream, seed, size, length => inFlight.add(length)),
        readBack()
      ]))

      return { sha256: hash.digest('hex'), bytes, seconds: secondsSince(start) }
    },

    streams: async ({ peer, total, parallel }) => {
      let started = 0
      let completed = 0
      const worker = async () => {
        while (started < total) {
          await this.#smallEcho(peer, started++)
          completed++
        }
      }

      await Promise.all(Array.from({ length: parallel }, worker))

      return { completed }
    },

    half_close: async ({ peer, size, seed }) => {
      const stream = await this.#open(peer, DIGEST)

      return { response: await this.#writeThenRead(stream, seed, size) }
    },

    expect_reset: async ({ peer }) => {
      const stream = await this.#open(peer, RESET)
      const reader = new StreamReader(stream)

      await send(stream, Buffer.alloc(MARK_LENGTH))
      const outcome = await readOutcome(reader)

      await stream.close()

      return { outcome }
    },

    send_reset: async ({ peer }) => {
      const stream = await this.#open(peer, WATCH)
      const reader = new StreamReader(stream)

      await send(stream, Buffer.alloc(MARK_LENGTH))
      await reader.readExactly(MARK_LENGTH)
      stream.abort(new Error('reset as the command asks'))
    },

    push: async ({ peer, size, seed }) => {
      const stream = await this.#open(peer, SINK)
      const start = performance.now()

      this.#pushed = 0
      const response = await this.#writeThenRead(stream, seed, size, length => { this.#pushed += length })

      return { response, seconds: secondsSince(start) }
    },

    perf: async ({ peer, ...args }) => perf(() => this.#open(peer, PERF), args),

    connect_many: async args => connectMany(this.#args, args),

    status: async () => ({
      pushed: this.#pushed,
      sunk: this.#protocols.sunk,
      watch: this.#protocols.watched
    }),

    sink_hold: async () => this.#protocols.hold(),

    sink_release: async () => this.#protocols.release(),

    connections: async () => ({
      peers: this.#host.getConnections().map(connection => connection.remotePeer.toString())
    }),

    disconnect: async ({ peer }) => {
      await this.#host.hangUp(peerIdFromString(peer))
    },

    subscribe: async ({ topic }) => this.#pubsub().subscribe(topic),

    unsubscribe: async ({ topic }) => this.#pubsub().unsubscribe(topic),

    publish: async ({ topic, data }) => {
      await this.#pubsub().publish(topic, Buffer.from(data, 'base64'))
    },

    publish_many: async args => this.#gossip.publishMany(this.#pubsub(), args),

    collect: async args => this.#gossip.collect(args),

    mesh: async args => this.#gossip.mesh(args),

    topic_peers: async ({ topic }) => ({
      peers: this.#pubsub().getSubscribers(topic).map(String)
    })
  }

  /** An open connection to the peer. Commands never dial by themselves, as libp2p would. */
  #connection (peer) {
    const connection = this.#host.getConnections(peerIdFromString(peer)).find(({ status }) => status === 'open')

    if (connection == null) {
      throw new Error(`not connected to ${peer}`)
    }

    return connection
  }

  #open (peer, protocol) {
    return this.#connection(peer).newStream(protocol)
  }

  #pubsub () {
    const { pubsub } = this.#host.services

    if (pubsub == null) {
      throw new Error('started with --pubsub none')
    }

    return pubsub
  }

  async #smallEcho (peer, seed) {
    const stream = await this.#open(peer, ECHO)
    const [sent] = pattern(seed, SMALL_ECHO)

    await finishOrAbort(stream, async () => {
      await writePattern(stream, seed, SMALL_ECHO)
      const parts = []

      for await (const chunk of new StreamReader(stream)) {
        parts.push(chunk.subarray())
      }
      if (!sent.equals(Buffer.concat(parts))) {
        throw new Error(`echo stream ${seed} came back changed`)
      }
    })
  }

  #writeThenRead (stream, seed, size, onSent) {
    const reader = new StreamReader(stream)

    return finishOrAbort(stream, async () => {
      await writePattern(stream, seed, size, onSent)

      return reader.readText()
    })
  }
}

/** Counts bytes on their way; adding to more than the limit waits until enough are gone. */
class InFlight {
  #limit
  #count = 0
  #wake = () => {}

  constructor (limit) {
    this.#limit = limit
  }

  async add (length) {
    this.#count += length
    while (this.#count > this.#limit) {
      await new Promise(resolve => { this.#wake = resolve })
    }
  }

  remove (length) {
    this.#count -= length
    this.#wake()
  }
}

/** Writes the pattern, then closes the writing side. */
async function writePattern (stream, seed, size, onSent = () => {}) {
  for (const piece of pattern(seed, size)) {
    await send(stream, piece)
    await onSent(piece.byteLength)
  }
  await stream.close()
}

/** Runs `work`; a failure must not leave its stream half open at the remote. */
async function finishOrAbort (stream, work) {
  try {
    return await work()
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

function secondsSince (start) {
  return (performance.now() - start) / 1000
}
