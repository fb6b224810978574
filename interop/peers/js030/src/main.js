'use strict'

// A node of js-libp2p 0.30, of early 2021: the last line that relays with version 1 alone.
// Speaks the part of interop/CONTRACT.md that the suite for it needs.

const { createInterface } = require('readline')
const Libp2p = require('libp2p')
const Mplex = require('libp2p-mplex')
const { NOISE } = require('libp2p-noise')
const TCP = require('libp2p-tcp')
const multiaddr = require('multiaddr')
const PeerId = require('peer-id')
const { version } = require('libp2p/package.json')
const { canHop } = require('libp2p/src/circuit/circuit/hop')

const FEATURES = {
  name: 'js030',
  version: `js-libp2p ${version}`,
  transports: ['tcp'],
  securities: ['noise'],
  muxers: ['mplex'],
  key_types: ['ed25519'],
  relay: ['client', 'server'],
  unsupported: {}
}
const WRONG_USAGE = 2
const IDENTIFY_TIMEOUT = 10_000

const emit = message => process.stdout.write(`${JSON.stringify(message)}\n`)
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

async function createHost (relay) {
  return Libp2p.create({
    peerId: await PeerId.create({ keyType: 'ed25519' }),
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    modules: { transport: [TCP], connEncryption: [NOISE], streamMuxer: [Mplex] },
    config: {
      peerDiscovery: { autoDial: false },
      relay: { enabled: true, hop: { enabled: relay === 'server', active: false } }
    }
  })
}

async function waitForIdentify (host, peer) {
  const id = PeerId.createFromB58String(peer)

  for (let waited = 0; waited < IDENTIFY_TIMEOUT; waited += 50) {
    const protocols = host.peerStore.protoBook.get(id) ?? []

    // The agent's version is forgotten of peers whose record is signed.
    if (protocols.length > 0) {
      return { protocols }
    }
    await sleep(50)
  }
  throw new Error(`${peer} was not identified in ${IDENTIFY_TIMEOUT} ms`)
}

const commands = host => ({
  dial: async ({ addr }) => ({ peer_id: (await host.dial(multiaddr(addr))).remotePeer.toB58String() }),

  // There are no reservations: whoever is connected is reached. What can be asked is whether it is a relay at all.
  reserve: async ({ addr }) => {
    const connection = await host.dial(multiaddr(addr))

    if (!await canHop({ connection })) {
      throw new Error('it is no relay')
    }
    return {}
  },

  ping: async ({ peer, count }) => {
    const rtts = []

    for (let i = 0; i < count; i++) {
      rtts.push(await host.ping(PeerId.createFromB58String(peer)))
    }
    return { rtts_ms: rtts }
  },

  identify: ({ peer }) => waitForIdentify(host, peer),

  connections: () => ({
    peers: [...host.connections].flatMap(([peer, connections]) => connections.map(() => peer))
  })
})

async function answer (handlers, { id, cmd, ...args }) {
  try {
    if (!Object.prototype.hasOwnProperty.call(handlers, cmd)) {
      throw new Error(`unknown command ${cmd}`)
    }
    emit({ id, ok: true, ...await handlers[cmd](args) })
  } catch (error) {
    emit({ id, ok: false, error: String(error) })
  }
}

async function serve (relay) {
  const host = await createHost(relay)
  const handlers = commands(host)

  await host.start()
  emit({
    event: 'ready',
    peer_id: host.peerId.toB58String(),
    addrs: host.multiaddrs.map(addr => `${addr}/p2p/${host.peerId.toB58String()}`),
    version: FEATURES.version
  })
  for await (const line of createInterface({ input: process.stdin })) {
    answer(handlers, JSON.parse(line))
  }
  await host.stop()
}

async function main () {
  const args = process.argv.slice(2)

  if (args[0] === '--features') {
    return emit(FEATURES)
  }
  if (args.length !== 2 || args[0] !== '--relay' || !FEATURES.relay.includes(args[1])) {
    console.error('usage: --features | --relay client|server')
    process.exit(WRONG_USAGE)
  }
  await serve(args[1])
}

// What goes wrong in one connection is not caught everywhere in the package.
process.on('unhandledRejection', error => console.error(error))
main().then(() => process.exit(0))
