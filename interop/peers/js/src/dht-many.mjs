import { createHash } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { decode } from 'multiformats/hashes/digest'
import { createHost } from './host.mjs'

const DIALS = 5
/** Until those that were dialled have found the others. */
const SETTLE = 3000

const sha256 = (data) => createHash('sha256').update(data).digest()

async function drain (events, name) {
  for await (const event of events) {
    if (event.name === name) {
      return event
    }
  }
}

/** The DHT of `nodes` hosts in this process, each of which dials some others: how long its operations take. */
export async function dhtMany (args, { nodes, rounds }) {
  const hosts = await Promise.all(Array.from({ length: nodes }, () => createHost({ ...args, dht: 'server' })))

  await Promise.all(hosts.map(host => host.start()))
  for (const [number, host] of hosts.entries()) {
    for (let step = 1; step <= DIALS; step++) {
      await host.dial(hosts[(number + step) % nodes].getMultiaddrs()[0])
    }
  }
  await setTimeout(SETTLE)
  for (const host of hosts) {
    await drain(host.services.dht.getClosestPeers(host.peerId.toMultihash().bytes))
  }

  const farthest = (key) => {
    const point = sha256(key)
    const distance = (host) => Buffer.from(sha256(host.peerId.toMultihash().bytes).map((byte, at) => byte ^ point[at]))

    return hosts.reduce((best, host) => distance(host).compare(distance(best)) > 0 ? host : best)
  }
  const times = { put_ms: [], get_ms: [], provide_ms: [], find_providers_ms: [], find_peer_ms: [] }
  let failed = 0
  const measure = async (name, work) => {
    const started = performance.now()
    const found = await work().catch(() => null)

    times[name].push(performance.now() - started)
    failed += found === null ? 1 : 0
  }
  const must = (event) => event ?? null

  for (let round = 0; round < rounds; round++) {
    const writer = hosts[round % nodes]
    const key = Buffer.from(`/test/${round}`)
    const digest = Buffer.concat([Buffer.from([0x12, 0x20]), sha256(key)])
    const cid = CID.createV1(raw.code, decode(new Uint8Array(digest)))
    const value = new Uint8Array(100)

    await measure('put_ms', () => drain(writer.services.dht.put(key, value)))
    await measure('get_ms', async () => must(await drain(farthest(key).services.dht.get(key), 'VALUE')))
    await measure('provide_ms', () => drain(writer.services.dht.provide(cid)))
    await measure('find_providers_ms', async () => {
      for await (const event of farthest(digest).services.dht.findProviders(cid)) {
        if (event.name === 'PROVIDER' && event.providers.length > 0) {
          return event
        }
      }

      return null
    })
    const wanted = hosts[(round * 11 + 7) % nodes]

    if (wanted !== writer) {
      await writer.hangUp(wanted.peerId)
      await writer.peerStore.delete(wanted.peerId)
      await measure('find_peer_ms', async () => must(await drain(writer.services.dht.findPeer(wanted.peerId), 'FINAL_PEER')))
    }
  }
  await Promise.all(hosts.map(host => host.stop()))

  return { ...times, failed }
}
