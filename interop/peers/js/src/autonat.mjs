import { setTimeout } from 'node:timers/promises'
import { autoNAT } from '@libp2p/autonat'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { isPrivate } from '@libp2p/utils'

const TIMEOUT = 30_000
const PAUSE = 50

/** The service for each `--autonat`: it serves, and asks everybody it is connected to by itself. */
export const AUTONATS = {
  v1: () => ({ autonat: autoNAT() }),
  v2: () => ({ autonat: autoNATv2() }),
  none: () => ({})
}

/** Waits until an address was found to work. Public ones alone are tried, and announced only then. */
export async function reachable (host) {
  for (let waited = 0; waited < TIMEOUT; waited += PAUSE) {
    const addr = host.getMultiaddrs().find(addr => !isPrivate(addr))

    if (addr != null) {
      return { reachable: true, addr: addr.toString() }
    }
    await setTimeout(PAUSE)
  }
  throw new Error('nothing was found out')
}
