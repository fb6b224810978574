/**
 * A page that dials the node in its address (`#/ip4/…/tcp/…/ws/p2p/…`) and chats with it. What it has to say goes over
 * libp2p; only what keeps it from doing so is told to the server of the page.
 */
import { floodsub } from '@libp2p/floodsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const FLOODSUB = '/floodsub/1.0.0'
const TOPIC = 'chat'
const POLL = 50

async function until (condition) {
  while (!condition()) {
    await new Promise(resolve => setTimeout(resolve, POLL))
  }
}

function sendsPubsub ({ protocol, direction }) {
  return protocol === FLOODSUB && direction === 'outbound'
}

async function chat () {
  const host = await createLibp2p({
    transports: [webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // By default a page dials neither private addresses nor those without TLS.
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify(), ping: ping(), pubsub: floodsub() }
  })
  const node = multiaddr(location.hash.slice(1))
  const { remotePeer } = await host.dial(node)
  const rtt = await host.services.ping.ping(remotePeer)
  const { pubsub } = host.services

  pubsub.addEventListener('message', ({ detail: { from, data } }) => {
    if (from.equals(remotePeer)) {
      pubsub.publish(TOPIC, new TextEncoder().encode(`heard: ${new TextDecoder().decode(data)}`))
    }
  })
  pubsub.subscribe(TOPIC)
  await until(() => pubsub.getSubscribers(TOPIC).some(peer => peer.equals(remotePeer)))
  // To a peer without a stream of ours js sends nothing, and says so to nobody; the peer's own may be there before.
  await until(() => host.getConnections(remotePeer).some(({ streams }) => streams.some(sendsPubsub)))
  await pubsub.publish(TOPIC, new TextEncoder().encode(`ping: ${rtt} ms, ${navigator.userAgent}`))
}

chat().catch(error => fetch('/error', { method: 'POST', body: `${error.stack}` }))
