import { setTimeout as sleep } from 'node:timers/promises'
import { Client, credentials } from '@grpc/grpc-js'
import { Samples, type LoadOptions, type Round } from './load.ts'

const CONNECTIONS = 8

export const identity = (bytes: Buffer): Buffer => bytes

/** Unary calls of `method` with `payload` as the encoded message, over 8 connections that share `inFlight` streams. */
export async function loadGrpc(options: LoadOptions & { readonly method: string }): Promise<Round> {
  const samples = new Samples()
  let errors = 0
  let ending = false
  const clients = Array.from(
    { length: CONNECTIONS },
    (_, n) =>
      // A different channel argument each: clients with equal ones would share one connection.
      new Client(`127.0.0.1:${options.port}`, credentials.createInsecure(), { 'shoal.bench': n }),
  )
  const call = (client: Client): void => {
    if (ending) return
    const sentAt = performance.now()
    client.makeUnaryRequest(options.method, identity, identity, options.payload, (error) => {
      if (error === null) samples.add(performance.now() - sentAt)
      else if (!ending) errors += 1
      call(client)
    })
  }
  const started = performance.now()
  for (let n = 0; n < options.inFlight; n++) {
    const client = clients[n % CONNECTIONS]
    if (client !== undefined) call(client)
  }
  await sleep(options.durationMs)
  const round = samples.round(performance.now() - started, errors)
  ending = true
  for (const client of clients) client.close()
  return round
}
