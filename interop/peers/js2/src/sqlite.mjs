import { DatabaseSync } from 'node:sqlite'

/** As much of better-sqlite3, which would have to be compiled, as the rendezvous point asks for. */
export default class Database {
  #database

  constructor (path) {
    this.#database = new DatabaseSync(path)
  }

  // Set for each statement here.
  defaultSafeIntegers () {}

  exec (sql) {
    this.#database.exec(sql)
  }

  prepare (sql) {
    const statement = this.#database.prepare(sql)
    statement.setReadBigInts(true)
    return statement
  }

  close () {
    this.#database.close()
  }
}
