/** Remembers what identify told about each connected peer; later pushes update it. */
export class Identities {
  #known = new Map()
  #waiting = new Map()

  constructor (host) {
    host.addEventListener('peer:identify', ({ detail }) => {
      const peer = detail.peerId.toString()

      this.#known.set(peer, merge(this.#known.get(peer), detail))
      this.#waiting.get(peer)?.forEach(resolve => resolve())
      this.#waiting.delete(peer)
    })
    host.addEventListener('peer:disconnect', ({ detail }) => this.#known.delete(detail.toString()))
  }

  async wait (peer, timeout) {
    if (!this.#known.has(peer)) {
      await this.#next(peer, timeout)
    }

    return this.#known.get(peer)
  }

  #next (peer, timeout) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${peer} was not identified in ${timeout} ms`)), timeout)
      const done = () => {
        clearTimeout(timer)
        resolve()
      }

      this.#waiting.set(peer, [...this.#waiting.get(peer) ?? [], done])
    })
  }
}

/** A push carries only what changed. */
function merge (known, told) {
  return {
    agentVersion: told.agentVersion ?? known?.agentVersion,
    protocolVersion: told.protocolVersion ?? known?.protocolVersion,
    observedAddr: told.observedAddr ?? known?.observedAddr,
    protocols: told.protocols.length > 0 ? told.protocols : known?.protocols ?? [],
    listenAddrs: told.listenAddrs.length > 0 ? told.listenAddrs : known?.listenAddrs ?? []
  }
}
