import { readFileSync } from 'node:fs'

const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

/** What `--features` prints. package.json pins exact versions, so it tells the version that runs. */
export const FEATURES = {
  name: 'js',
  version: `js-libp2p ${dependencies.libp2p}`,
  transports: ['tcp', 'ws', 'wss', 'quic-v1'],
  securities: ['noise', 'tls', 'plaintext'],
  muxers: ['yamux', 'mplex'],
  key_types: ['ed25519', 'secp256k1', 'rsa'],
  pubsub: ['floodsub', 'gossipsub'],
  dht: ['server', 'client'],
  dht_namespaces: ['pk', 'ipns', 'test', 'example'],
  mdns: ['on'],
  psk: true,
  signatures: ['strict', 'none'],
  message_ids: ['default', 'first8'],
  relay: ['client', 'server', 'none', 'punch'],
  autonat: ['v1', 'v2'],
  unsupported: {
    ipv6: '@libp2p/mdns opens its socket for IPv4',
    'dht-keys': '@libp2p/kad-dht takes no keys of content but multihashes',
    ecdsa: '@libp2p/peer-id makes no peer id of an ECDSA key, neither of its own nor of that of a remote',
    'punch-tcp': '@libp2p/tcp cannot dial from the port it listens on, and tells nobody where it is seen',
    'quic-v1-back-pressure': '@chainsafe/libp2p-quic cannot pause a sender: a stream is reset when too much of it waits unread',
    'mplex-back-pressure': '@libp2p/mplex cannot pause a sender: a stream is reset when 16 MiB of it wait unread'
  }
}
