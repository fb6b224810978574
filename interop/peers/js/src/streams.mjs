/**
 * A stream is reset when more than this waits unread. The package's default is 4 MiB, but the window of a yamux stream
 * may grow to these 16 MiB before its reader pauses, and mplex has no window at all.
 */
export const MAX_UNREAD = 16 * 1024 * 1024

/**
 * Pull-style reading from a libp2p stream, which by itself pushes 'message' events.
 *
 * The stream is paused whenever nobody waits for data, so that a slow reader makes the muxer stop granting window to
 * the sender. The stream's own async iterator is no help: it queues without bound, and it drops what is still
 * buffered in a paused stream when the remote end closes.
 */
export class StreamReader {
  #stream
  #chunks = []
  #remoteFinished
  #failure
  #wake = () => {}
  #resuming = false

  constructor (stream) {
    this.#stream = stream
    stream.maxReadBufferLength = MAX_UNREAD
    this.#pause()
    // Both may have happened before this reader was made.
    this.#remoteFinished = stream.remoteWriteStatus === 'closed'
    if (stream.status === 'reset' || stream.status === 'aborted') {
      this.#failure = new Error(`stream was ${stream.status}`)
    }

    stream.addEventListener('message', ({ data }) => {
      this.#chunks.push(data)
      // A pause inside resume() would be undone by the rest of resume().
      if (!this.#resuming) {
        this.#pause()
      }
      this.#wake()
    })
    stream.addEventListener('remoteCloseWrite', () => {
      this.#remoteFinished = true
      this.#wake()
    })
    stream.addEventListener('close', ({ error }) => {
      // Without an error the stream ended because both sides finished, or because its connection went away.
      if (error != null || !this.#remoteFinished) {
        this.#failure = error ?? new Error('connection closed')
      }
      this.#wake()
    })
  }

  /** Resolves to the next bytes, or to null at the end; throws when the stream was reset. */
  async read () {
    while (true) {
      if (this.#failure != null) {
        throw this.#failure
      }
      if (this.#chunks.length === 0) {
        this.#resume()
      }
      if (this.#chunks.length > 0) {
        return this.#chunks.shift()
      }
      if (this.#remoteFinished && this.#stream.readBufferLength === 0) {
        return null
      }
      await new Promise(resolve => { this.#wake = resolve })
    }
  }

  /** Resolves to exactly `length` bytes. What the sender put into the same chunk after them is dropped. */
  async readExactly (length) {
    const parts = []
    let missing = length

    while (missing > 0) {
      const chunk = await this.read()

      if (chunk == null) {
        throw new Error(`stream ended ${missing} bytes early`)
      }
      parts.push(chunk.subarray(0, missing))
      missing -= parts.at(-1).byteLength
    }

    return Buffer.concat(parts)
  }

  async readText () {
    const parts = []

    for await (const chunk of this) {
      parts.push(chunk.subarray())
    }

    return Buffer.concat(parts).toString()
  }

  async * [Symbol.asyncIterator] () {
    for (let chunk = await this.read(); chunk != null; chunk = await this.read()) {
      yield chunk
    }
  }

  #pause () {
    if (this.#stream.readStatus === 'readable') {
      this.#stream.pause()
    }
  }

  #resume () {
    if (this.#stream.readStatus !== 'paused') {
      return
    }
    this.#resuming = true
    this.#stream.resume()
    this.#resuming = false
    if (this.#chunks.length > 0) {
      this.#pause()
    }
  }
}

/** Tells how a read ends on a stream of which the remote is expected to say no more. */
export async function readOutcome (reader) {
  try {
    return await reader.read() == null ? 'eof' : 'data'
  } catch {
    return 'reset'
  }
}

/**
 * Sends, and resolves when the stream takes more.
 *
 * Every stream gets a 'drain' when the socket drains, also one that has used up its window, so the flag is looked at
 * again after each. (The package's own onDrain() waits only the first time it is used on a stream.)
 */
export async function send (stream, data) {
  stream.send(data)
  while (stream.writableNeedsDrain) {
    await drainEvent(stream)
  }
}

function drainEvent (stream) {
  return new Promise((resolve, reject) => {
    const forget = () => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
    }
    const onDrain = () => {
      forget()
      resolve()
    }
    const onClose = ({ error }) => {
      forget()
      reject(error ?? new Error('stream closed while writing'))
    }

    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
    if (stream.writeStatus === 'closed') {
      onClose({})
    }
  })
}
