import { networkInterfaces } from 'node:os'

/** This host's loopback addresses: IPv4's, and IPv6's where there is one (many containers have none). */
export const LOOPBACKS: readonly string[] = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .map(({ address }) => address)
  .filter((address) => address === '127.0.0.1' || address === '::1')

/** A second one if there is any. */
export const OTHER_LOOPBACK = LOOPBACKS.find((address) => address === '::1') ?? '127.0.0.2'

/** As a URL has it. */
export function urlHost(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}
