import { parseArgs } from 'node:util'
import { FEATURES } from './features.mjs'

const OPTIONS = {
  transport: { type: 'string', default: 'tcp' },
  listen: { type: 'string', multiple: true, default: ['/ip4/127.0.0.1/tcp/0'] },
  security: { type: 'string', default: 'noise' },
  muxer: { type: 'string', default: 'yamux' },
  'key-type': { type: 'string', default: 'ed25519' },
  pubsub: { type: 'string', default: 'floodsub' },
  quiet: { type: 'boolean', default: false },
  features: { type: 'boolean', default: false }
}

const ALLOWED = {
  transport: FEATURES.transports,
  security: FEATURES.securities,
  muxer: FEATURES.muxers,
  'key-type': FEATURES.key_types,
  pubsub: [...FEATURES.pubsub, 'none']
}

/** Reads the command line; throws with a reason when a flag or its value is not known. */
export function readArgs (argv) {
  const { values } = parseArgs({ args: argv, options: OPTIONS })

  for (const [flag, allowed] of Object.entries(ALLOWED)) {
    if (!allowed.includes(values[flag])) {
      throw new Error(`--${flag} ${values[flag]} is not one of ${allowed.join(', ')}`)
    }
  }

  return {
    transport: values.transport,
    security: values.security,
    muxer: values.muxer,
    keyType: values['key-type'],
    pubsub: values.pubsub,
    listen: values.listen.filter(address => address !== 'none'),
    quiet: values.quiet,
    features: values.features
  }
}
