import { createHash } from 'node:crypto'
import { STREAM_LIMITS } from './host.mjs'
import { PERF, servePerf } from './perf.mjs'
import { readOutcome, send, StreamReader } from './streams.mjs'

export const ECHO = '/interop/echo/1.0.0'
export const DIGEST = '/interop/digest/1.0.0'
export const RESET = '/interop/reset/1.0.0'
export const WATCH = '/interop/watch/1.0.0'
export const SINK = '/interop/sink/1.0.0'

/** Size of the marks that the reset and watch protocols exchange. */
export const MARK_LENGTH = 4

/** Serves the interop protocols of the contract and keeps what `status` tells about them. */
export class InteropProtocols {
  sunk = 0
  watched = []
  #released = Promise.resolve()
  #release = () => {}

  /** Registers the handlers. One that throws makes libp2p reset its stream. */
  async register (host) {
    const handlers = {
      [ECHO]: stream => this.#echo(stream),
      [DIGEST]: stream => this.#digest(stream),
      [RESET]: stream => this.#reset(stream),
      [WATCH]: stream => this.#watch(stream),
      [SINK]: stream => this.#sink(stream),
      [PERF]: servePerf
    }

    for (const [protocol, handler] of Object.entries(handlers)) {
      await host.handle(protocol, handler, STREAM_LIMITS)
    }
  }

  hold () {
    // A second hold must not leave the handlers that wait for the first release behind.
    this.#release()
    this.#released = new Promise(resolve => { this.#release = resolve })
  }

  release () {
    this.#release()
  }

  async #echo (stream) {
    for await (const chunk of new StreamReader(stream)) {
      await send(stream, chunk)
    }
    await stream.close()
  }

  async #digest (stream) {
    await answerDigest(stream, new StreamReader(stream), () => {})
  }

  async #reset (stream) {
    await new StreamReader(stream).readExactly(MARK_LENGTH)
    stream.abort(new Error('reset as the protocol asks'))
  }

  async #watch (stream) {
    const reader = new StreamReader(stream)

    await send(stream, await reader.readExactly(MARK_LENGTH))
    this.watched.push(await readOutcome(reader))
    await stream.close()
  }

  async #sink (stream) {
    const reader = new StreamReader(stream)

    this.sunk = 0
    await this.#released
    await answerDigest(stream, reader, length => { this.sunk += length })
  }
}

async function answerDigest (stream, reader, onLength) {
  const hash = createHash('sha256')

  for await (const chunk of reader) {
    hash.update(chunk.subarray())
    onLength(chunk.byteLength)
  }
  await send(stream, Buffer.from(hash.digest('hex')))
  await stream.close()
}
