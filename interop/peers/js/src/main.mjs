import { createInterface } from 'node:readline'
import { readArgs } from './args.mjs'
import { Commands } from './commands.mjs'
import { FEATURES } from './features.mjs'
import { createHost } from './host.mjs'
import { Identities } from './identities.mjs'
import { describe, emit } from './output.mjs'
import { InteropProtocols } from './protocols.mjs'

const WRONG_USAGE = 2

function readArgsOrExit () {
  try {
    return readArgs(process.argv.slice(2))
  } catch (error) {
    console.error(error.message)
    process.exit(WRONG_USAGE)
  }
}

function reportEvents (host, { mdns }) {
  host.addEventListener('connection:open', ({ detail }) => {
    emit({ event: 'connected', peer: detail.remotePeer.toString() })
  })
  host.addEventListener('connection:close', ({ detail }) => {
    emit({ event: 'disconnected', peer: detail.remotePeer.toString() })
  })
  if (mdns !== 'off') {
    host.addEventListener('peer:discovery', ({ detail: { id, multiaddrs } }) => {
      for (const addr of multiaddrs) {
        emit({ event: 'discovered', peer: id.toString(), addr: addr.toString() })
      }
    })
  }
  host.services.pubsub?.addEventListener('message', ({ detail: { from, topic, data } }) => {
    // Floodsub forgets its own messages, so they can come back through a third peer.
    // Anonymous ones come from nobody.
    if (from == null || !from.equals(host.peerId)) {
      emit({ event: 'message', topic, from: from?.toString() ?? '', data: Buffer.from(data).toString('base64') })
    }
  })
}

/** Has no effect on addresses of TCP, which the package drops: it cannot dial from the port it listens on. */
function believeObservers (host) {
  host.addEventListener('peer:identify', ({ detail: { observedAddr } }) => {
    if (observedAddr != null) {
      host.components.addressManager.confirmObservedAddr(observedAddr)
    }
  })
}

async function answer (handlers, { id, cmd, ...args }) {
  try {
    if (!Object.hasOwn(handlers, cmd)) {
      throw new Error(`unknown command ${cmd}`)
    }
    emit({ id, ok: true, ...await handlers[cmd](args) })
  } catch (error) {
    emit({ id, ok: false, error: describe(error) })
  }
}

async function serve (args) {
  const host = await createHost(args)
  const protocols = new InteropProtocols()
  const { handlers } = new Commands(host, protocols, new Identities(host), args)

  await protocols.register(host)
  if (!args.quiet) {
    reportEvents(host, args)
  }
  if (args.relay === 'punch') {
    // There is nobody but the relay to say where this host is seen, and nobody to confirm it.
    believeObservers(host)
  }
  await host.start()

  emit({
    event: 'ready',
    peer_id: host.peerId.toString(),
    addrs: host.getMultiaddrs().map(String),
    version: FEATURES.version
  })

  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)

    if (command.cmd === 'shutdown') {
      emit({ id: command.id, ok: true })
      await host.stop()
      break
    }
    // Not awaited: commands run concurrently.
    answer(handlers, command)
  }
}

const args = readArgsOrExit()

if (args.features) {
  emit(FEATURES)
} else {
  await serve(args)
}
// Whatever is still open must not keep a process alive that was told to end.
process.exit(0)
