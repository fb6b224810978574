import { readFileSync } from 'node:fs'
import { setDefaultCACertificates } from 'node:tls'
import { quic } from '@chainsafe/libp2p-quic'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { dcutr } from '@libp2p/dcutr'
import { floodsub } from '@libp2p/floodsub'
import { gossipsub } from '@libp2p/gossipsub'
import { identify, identifyPush } from '@libp2p/identify'
import { mdns as multicast } from '@libp2p/mdns'
import { mplex } from '@libp2p/mplex'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { plaintext } from '@libp2p/plaintext'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { AUTONATS } from './autonat.mjs'
import { dhtService } from './kad.mjs'
import { MAX_UNREAD } from './streams.mjs'

/** High enough to be out of the way of every suite. */
const UNLIMITED = 100_000

/** Milliseconds between two questions of mDNS. */
const MDNS_INTERVAL = 1000

const KEY_TYPES = {
  ed25519: () => generateKeyPair('Ed25519'),
  secp256k1: () => generateKeyPair('secp256k1'),
  rsa: () => generateKeyPair('RSA', 2048)
}

const TRANSPORTS = {
  // 0 switches the time limit of idle sockets off: a suite may be silent for long.
  tcp: () => tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 }),
  ws: () => webSockets(),
  wss: ({ certificate, authority }) => {
    // The package dials with the WebSocket of Node.js, which trusts whom everything else here trusts.
    if (authority === undefined) {
      process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
    } else {
      setDefaultCACertificates([readFileSync(authority, 'utf8')])
    }
    const pem = certificate === undefined ? undefined : readFileSync(certificate)
    return webSockets({ https: { key: pem, cert: pem } })
  },
  'quic-v1': () => quic()
}

const SECURITIES = {
  noise: () => noise(),
  tls: () => tls(),
  plaintext: () => plaintext()
}

const MUXERS = {
  yamux: () => yamux({
    maxInboundStreams: UNLIMITED,
    maxOutboundStreams: UNLIMITED,
    maxEarlyStreams: UNLIMITED,
    streamOptions: {
      maxStreamWindowSize: MAX_UNREAD,
      // Of importance until the stream's handler makes a StreamReader, which sets the same.
      maxReadBufferLength: MAX_UNREAD
    }
  }),
  // The threshold is the number of streams that a peer may open in a second before the connection is ended.
  mplex: () => mplex({ disconnectThreshold: UNLIMITED, maxEarlyStreams: UNLIMITED })
}

const firstBytes = ({ data }) => data.subarray(0, 8)

const authorAndNumber = ({ from, sequenceNumber }) => {
  const number = Buffer.alloc(8)
  number.writeBigUInt64BE(sequenceNumber)
  return Buffer.concat([from.toMultihash().bytes, number])
}

const PUBSUBS = {
  floodsub: () => ({ pubsub: floodsub({ globalSignaturePolicy: 'StrictSign' }) }),
  gossipsub: ({ signatures, messageId, exchange }) => ({
    pubsub: gossipsub({
      globalSignaturePolicy: signatures === 'none' ? 'StrictNoSign' : 'StrictSign',
      // The package's own ids begin with the author's key instead of its peer id, and mean nothing to others.
      msgIdFn: messageId === 'first8' ? firstBytes : authorAndNumber,
      doPX: exchange,
      emitSelf: false,
      allowPublishToZeroTopicPeers: true
    })
  }),
  none: () => ({})
}

const RELAYS = {
  client: { transports: [circuitRelayTransport()], services: {} },
  punch: { transports: [circuitRelayTransport()], services: { dcutr: dcutr() } },
  server: { transports: [], services: { relay: circuitRelayServer() } },
  none: { transports: [], services: {} }
}

/** The key in the format of key files, which is what the package reads. */
const keyFile = (psk) => new TextEncoder().encode(`/key/swarm/psk/1.0.0/\n/base16/\n${psk}`)

/** Builds a host that has its addresses but is not started yet, so that listeners can be put on it in time. */
export async function createHost ({
  transport, certificate, authority, security, muxer, keyType, pubsub, signatures, messageId, exchange, dht,
  dhtProtocol, providerTtl, mdns, relay, autonat, listen, psk
}) {
  return createLibp2p({
    start: false,
    privateKey: await KEY_TYPES[keyType](),
    addresses: { listen },
    transports: [TRANSPORTS[transport]({ certificate, authority }), ...RELAYS[relay].transports],
    ...(psk == null ? {} : { connectionProtector: preSharedKey({ psk: keyFile(psk) }) }),
    connectionEncrypters: [SECURITIES[security]()],
    streamMuxers: [MUXERS[muxer]()],
    peerDiscovery: mdns === 'on' ? [multicast({ interval: MDNS_INTERVAL })] : [],
    connectionManager: {
      maxConnections: UNLIMITED,
      maxIncomingPendingConnections: UNLIMITED,
      inboundConnectionThreshold: UNLIMITED
    },
    // The monitor ends connections on which a ping is late, as happens on a loaded machine.
    connectionMonitor: { enabled: false },
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      // One of ours may still be closing when the next is opened.
      ping: ping({ maxOutboundStreams: 8 }),
      ...PUBSUBS[pubsub]({ signatures, messageId, exchange }),
      ...RELAYS[relay].services,
      ...AUTONATS[autonat](),
      ...dhtService({ dht, dhtProtocol, providerTtl })
    }
  })
}

/** Limits for the handlers of the interop protocols. */
export const STREAM_LIMITS = { maxInboundStreams: UNLIMITED, maxOutboundStreams: UNLIMITED }
