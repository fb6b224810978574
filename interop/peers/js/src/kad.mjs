import { peerIdFromString } from '@libp2p/peer-id'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { createIPNSRecord, marshalIPNSRecord } from 'ipns'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { decode } from 'multiformats/hashes/digest'
import { publicKeyToProtobuf } from '@libp2p/crypto/keys'

/** Milliseconds between two looks at what providers have ended. */
const PROVIDER_CHECK = 1000
const IPNS_LIFETIME = 3_600_000

const longest = (values) => values.reduce((best, value, index) => value.length > values[best].length ? index : best, 0)

/** The service of a host with this role in the DHT. */
export function dhtService ({ dht: role, dhtProtocol, providerTtl }) {
  if (role === 'none') {
    return {}
  }

  return {
    dht: kadDHT({
      protocol: dhtProtocol,
      clientMode: role === 'client',
      peerInfoMapper: passthroughMapper,
      reprovide: { interval: PROVIDER_CHECK, validity: providerTtl * 1000 },
      validators: { ipns: ipnsValidator, test: async () => {}, example: async () => {} },
      selectors: {
        ipns: ipnsSelector, test: (_, values) => longest(values), example: (_, values) => longest(values)
      }
    })
  }
}

const bytes = (base64) => new Uint8Array(Buffer.from(base64, 'base64'))
const base64 = (data) => Buffer.from(data).toString('base64')
const content = (key) => CID.createV1(raw.code, decode(bytes(key)))

/** The events of a lookup that have a name. */
async function collect (events, name) {
  const found = []

  for await (const event of events) {
    if (event.name === name) {
      found.push(event)
    }
  }

  return found
}

/** The commands of the contract about the DHT. */
export function dhtCommands (getHost) {
  const dht = () => getHost().services.dht

  return {
    dht_table: async () => ({
      peers: [...dht().routingTable.kb.toIterable()].map(({ peerId }) => peerId.toString())
    }),

    dht_find_peer: async ({ peer }) => {
      for await (const event of dht().findPeer(peerIdFromString(peer))) {
        if (event.name === 'FINAL_PEER') {
          return { addrs: event.peer.multiaddrs.map(String) }
        }
      }

      throw new Error('not found')
    },

    dht_closest: async ({ key }) => {
      const found = await collect(dht().getClosestPeers(bytes(key)), 'FINAL_PEER')

      return { peers: found.map(event => event.peer.id.toString()) }
    },

    dht_put: async ({ key, data }) => {
      await collect(dht().put(bytes(key), bytes(data)))

      return {}
    },

    dht_get: async ({ key }) => {
      for await (const event of dht().get(bytes(key))) {
        if (event.name === 'VALUE') {
          return { data: base64(event.value) }
        }
      }

      throw new Error('not found')
    },

    dht_provide: async ({ key }) => {
      await collect(dht().provide(content(key)))

      return {}
    },

    dht_find_providers: async ({ key, count }) => {
      const peers = new Set()

      for await (const event of dht().findProviders(content(key))) {
        for (const provider of event.name === 'PROVIDER' ? event.providers : []) {
          peers.add(provider.id.toString())
        }
        if (peers.size >= count) {
          break
        }
      }

      return { peers: [...peers] }
    },

    dht_put_pk: async () => {
      const { peerId } = getHost()
      const key = Buffer.concat([Buffer.from('/pk/'), peerId.toMultihash().bytes])

      await collect(dht().put(new Uint8Array(key), publicKeyToProtobuf(peerId.publicKey)))

      return { key: key.toString('base64') }
    },

    dht_put_ipns: async ({ data, count }) => {
      const { peerId, components: { privateKey } } = getHost()
      const key = Buffer.concat([Buffer.from('/ipns/'), peerId.toMultihash().bytes])
      const path = Buffer.from(data, 'base64').toString()
      const record = marshalIPNSRecord(await createIPNSRecord(privateKey, path, count, IPNS_LIFETIME))

      await collect(dht().put(new Uint8Array(key), record))

      return { key: key.toString('base64'), data: base64(record) }
    }
  }
}
