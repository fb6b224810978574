// A node of js-libp2p 2 with the rendezvous of Canvas: there is none for js-libp2p 3, and none of the project's own.
// Speaks the part of interop/CONTRACT.md that the suite for it needs.

import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { peerIdFromString } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

registerHooks({
  resolve: (name, context, next) => name === 'better-sqlite3'
    ? { url: new URL('./sqlite.mjs', import.meta.url).href, shortCircuit: true }
    : next(name, context)
})

const { RendezvousClient, rendezvousClient } = await import('@canvas-js/libp2p-rendezvous/client')
const { RendezvousServer, rendezvousServer } = await import('@canvas-js/libp2p-rendezvous/server')

// The messages are those of the specification, the name is not.
RendezvousClient.protocol = RendezvousServer.protocol = '/rendezvous/1.0.0'

const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
const FEATURES = {
  name: 'js2',
  version: `js-libp2p ${dependencies.libp2p}`,
  transports: ['tcp'],
  securities: ['noise'],
  muxers: ['yamux'],
  key_types: ['ed25519'],
  rendezvous: ['client', 'server'],
  unsupported: {}
}
const SERVICES = { client: rendezvousClient, server: rendezvousServer }
const WRONG_USAGE = 2

const emit = message => process.stdout.write(`${JSON.stringify(message)}\n`)

const commands = host => {
  const at = (peer, callback) => host.services.rendezvous.connect(peerIdFromString(peer), callback)

  return {
    dial: async ({ addr }) => ({ peer_id: (await host.dial(multiaddr(addr))).remotePeer.toString() }),

    rendezvous_register: ({ peer, namespace, ttl }) => at(peer, point => point.register(namespace, { ttl })),

    // The package closes the stream before what was said last has left, unless an answer is waited for.
    rendezvous_unregister: ({ peer, namespace }) => at(peer, async point => {
      await point.unregister(namespace)
      await point.discover(namespace)
    }),

    // The package tells neither the cookie nor how long registrations last.
    rendezvous_discover: async ({ peer, namespace, limit }) => {
      const found = await at(peer, point => point.discover(namespace, { limit }))

      return {
        registrations: found.map(({ id, addresses }) => ({
          peer: id.toString(), namespace, addrs: addresses.map(({ multiaddr }) => multiaddr.toString())
        }))
      }
    }
  }
}

async function answer (handlers, { id, cmd, ...args }) {
  try {
    if (!Object.hasOwn(handlers, cmd)) {
      throw new Error(`unknown command ${cmd}`)
    }
    emit({ id, ok: true, ...await handlers[cmd](args) })
  } catch (error) {
    emit({ id, ok: false, error: String(error) })
  }
}

async function serve (role) {
  const host = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: { identify: identify(), rendezvous: SERVICES[role]() }
  })
  const handlers = commands(host)

  emit({
    event: 'ready',
    peer_id: host.peerId.toString(),
    addrs: host.getMultiaddrs().map(String),
    version: FEATURES.version
  })
  for await (const line of createInterface({ input: process.stdin })) {
    answer(handlers, JSON.parse(line))
  }
  await host.stop()
}

const args = process.argv.slice(2)

if (args[0] === '--features') {
  emit(FEATURES)
} else if (args.length === 2 && args[0] === '--rendezvous' && FEATURES.rendezvous.includes(args[1])) {
  await serve(args[1])
} else {
  console.error('usage: --features | --rendezvous client|server')
  process.exit(WRONG_USAGE)
}
process.exit(0)
