import { parseArgs } from 'node:util'
import { FEATURES } from './features.mjs'

const OPTIONS = {
  transport: { type: 'string', default: 'tcp' },
  listen: { type: 'string', multiple: true },
  security: { type: 'string', default: 'noise' },
  muxer: { type: 'string', default: 'yamux' },
  'key-type': { type: 'string', default: 'ed25519' },
  pubsub: { type: 'string', default: 'floodsub' },
  signatures: { type: 'string', default: 'strict' },
  'message-id': { type: 'string', default: 'default' },
  exchange: { type: 'boolean', default: false },
  relay: { type: 'string', default: 'none' },
  autonat: { type: 'string', default: 'none' },
  dht: { type: 'string', default: 'none' },
  'dht-protocol': { type: 'string', default: '/interop/kad/1.0.0' },
  'provider-ttl': { type: 'string', default: String(48 * 60 * 60) },
  mdns: { type: 'string', default: 'off' },
  psk: { type: 'string' },
  certificate: { type: 'string' },
  authority: { type: 'string' },
  quiet: { type: 'boolean', default: false },
  features: { type: 'boolean', default: false }
}

const DEFAULT_LISTEN = {
  tcp: '/ip4/127.0.0.1/tcp/0',
  ws: '/ip4/127.0.0.1/tcp/0/ws',
  wss: '/ip4/127.0.0.1/tcp/0/tls/ws',
  'quic-v1': '/ip4/127.0.0.1/udp/0/quic-v1'
}

const ALLOWED = {
  transport: FEATURES.transports,
  security: FEATURES.securities,
  muxer: FEATURES.muxers,
  'key-type': FEATURES.key_types,
  pubsub: [...FEATURES.pubsub, 'none'],
  signatures: FEATURES.signatures,
  'message-id': FEATURES.message_ids,
  relay: FEATURES.relay,
  autonat: [...FEATURES.autonat, 'none'],
  dht: [...FEATURES.dht, 'none'],
  mdns: [...FEATURES.mdns, 'off']
}

/** Reads the command line; throws with a reason when a flag or its value is not known. */
export function readArgs (argv) {
  const { values } = parseArgs({ args: argv, options: OPTIONS })

  for (const [flag, allowed] of Object.entries(ALLOWED)) {
    if (!allowed.includes(values[flag])) {
      throw new Error(`--${flag} ${values[flag]} is not one of ${allowed.join(', ')}`)
    }
  }

  if (values.psk != null && !/^[0-9a-f]{64}$/.test(values.psk)) {
    throw new Error('--psk takes 64 hexadecimal digits')
  }

  return {
    psk: values.psk,
    transport: values.transport,
    certificate: values.certificate,
    authority: values.authority,
    security: values.security,
    muxer: values.muxer,
    keyType: values['key-type'],
    pubsub: values.pubsub,
    signatures: values.signatures,
    messageId: values['message-id'],
    exchange: values.exchange,
    relay: values.relay,
    autonat: values.autonat,
    dht: values.dht,
    dhtProtocol: values['dht-protocol'],
    providerTtl: Number(values['provider-ttl']),
    mdns: values.mdns,
    listen: (values.listen ?? [DEFAULT_LISTEN[values.transport]]).filter(address => address !== 'none'),
    quiet: values.quiet,
    features: values.features
  }
}
