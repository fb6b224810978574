import { performance } from 'node:perf_hooks'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { createHost } from './host.mjs'

/** Messages published before the sockets get their turn: the package holds nobody back, and keeps all in memory. */
const PER_TURN = 16
const NUMBER_LENGTH = 8
const DELIVERY_PATIENCE = 10_000
const MESH_TOPIC = 'mesh'
/** Two heartbeats: the meshes are what they will be. */
const SETTLE = 2000

/** Publishes and counts many messages; those of subscribed topics are counted from the subscription on. */
export class Gossip {
  #host
  #args
  #counts = new Map()
  #meshes = new Map()

  constructor (host, args) {
    this.#host = host
    this.#args = args
    host.services.pubsub?.addEventListener('message', ({ detail: { from, topic } }) => {
      if (!from?.equals(host.peerId)) { // messages without a signature have no author
        const count = this.#count(topic)

        count.received++
        count.last = Date.now() / 1000
        count.wake()
      }
    })
  }

  async publishMany (pubsub, { topic, total, size }) {
    const data = Buffer.alloc(size)
    const started = Date.now() / 1000

    for (let number = 1; number <= total; number++) {
      await pubsub.publish(topic, data)
      if (number % PER_TURN === 0) {
        await setImmediate()
      }
    }

    return { started }
  }

  async collect ({ topic, total, patience }) {
    const count = this.#count(topic)

    while (count.received < total) {
      const before = count.received

      await Promise.race([
        setTimeout(patience * 1000, undefined, { ref: false }),
        new Promise(resolve => { count.wake = () => { if (count.received >= total) resolve() } })
      ])
      if (count.received === before) {
        break
      }
    }
    const { received, last } = count

    count.received = 0

    return { received, ended: last }
  }

  async mesh ({ nodes, dials, ...load }) {
    const key = `${nodes} ${dials}`

    if (!this.#meshes.has(key)) {
      this.#meshes.set(key, await Mesh.create(this.#args, nodes, dials))
    }

    return this.#meshes.get(key).publishMany(load)
  }

  #count (topic) {
    if (!this.#counts.has(topic)) {
      this.#counts.set(topic, { received: 0, last: 0, wake: () => {} })
    }

    return this.#counts.get(topic)
  }
}

/** Hosts of one process that all publish and subscribe to one topic. */
class Mesh {
  #hosts
  #first = 0
  #messages = []
  #latencies = []

  constructor (hosts) {
    this.#hosts = hosts
    for (const host of hosts) {
      host.services.pubsub.addEventListener('message', ({ detail: { from, data } }) => {
        if (!from?.equals(host.peerId)) { // messages without a signature have no author
          this.#take(data)
        }
      })
    }
  }

  /** Runs `nodes` hosts, each of which dials the `dials` next ones. */
  static async create (args, nodes, dials) {
    const hosts = await Promise.all(Array.from({ length: nodes }, () => createHost({ ...args, pubsub: 'gossipsub' })))

    await Promise.all(hosts.map(host => host.start()))
    for (const [number, host] of hosts.entries()) {
      for (let step = 1; step <= dials; step++) {
        await host.dial(hosts[(number + step) % nodes].getMultiaddrs()[0])
      }
    }
    hosts.forEach(host => host.services.pubsub.subscribe(MESH_TOPIC))
    while (hosts.some(host => host.services.pubsub.getSubscribers(MESH_TOPIC).length < 2 * dials)) {
      await setTimeout(20)
    }
    await setTimeout(SETTLE)

    return new Mesh(hosts)
  }

  #take (data) {
    const number = Number(Buffer.from(data).readBigUInt64BE()) - this.#first

    if (number < 0) {
      return // given up
    }
    const message = this.#messages[number]

    this.#latencies.push(performance.now() - message.published)
    if (--message.missing === 0) {
      message.everywhere()
    }
  }

  /** Publishes, each time from another host, with at most `parallel` messages that have not reached everybody. */
  async publishMany ({ total, size, parallel, rate = Infinity }) {
    this.#first += this.#messages.length
    this.#messages = []
    this.#latencies = []
    const started = performance.now()
    let next = 0
    let ended = started
    const worker = async () => {
      while (next < total) {
        const number = next++

        if (rate < Infinity) {
          await setTimeout(Math.max(started + 1000 * number / rate - performance.now(), 0))
        }
        const data = Buffer.alloc(size)
        const message = { published: performance.now(), missing: this.#hosts.length - 1 }
        const everywhere = new Promise(resolve => { message.everywhere = () => resolve(true) })

        data.writeBigUInt64BE(BigInt(this.#first + number))
        this.#messages[number] = message
        await this.#hosts[number % this.#hosts.length].services.pubsub.publish(MESH_TOPIC, data)
        const patience = new AbortController()

        if (await Promise.race([everywhere, setTimeout(DELIVERY_PATIENCE, false, { signal: patience.signal }).catch(() => {})])) {
          ended = performance.now()
        }
        patience.abort()
      }
    }

    await Promise.all(Array.from({ length: parallel }, worker))
    this.#messages.length = total

    return { seconds: (ended - started) / 1000, latencies_ms: this.#latencies }
  }
}
