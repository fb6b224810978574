/** Prints one line of the contract on standard output, which nothing else may use. */
export function emit (message) {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}

/** The text of anything thrown; some of the packages throw events. */
export function describe (thrown) {
  const error = thrown?.error ?? thrown

  return error?.message ? `${error.name}: ${error.message}` : String(error?.type ?? error)
}
