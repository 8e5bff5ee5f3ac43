import { Fault } from '#shared/fault.ts'

interface Wanted {
  readonly what: string
  readonly host: string
  readonly port: number
  /** Environment variable that moves it. */
  readonly setting: string
}

/** Why a proxy could not open its port, in words that say what to change. */
export function listenFault(error: unknown, wanted: Wanted): Fault {
  const { what, host, port, setting } = wanted
  const text = error instanceof Error ? error.message : String(error)
  const code = codeOf(error)
  const details = { port, host, setting }
  if (code === 'EADDRINUSE') {
    return new Fault(
      'PORT_TAKEN',
      `port ${port} for ${what} is taken by another program - set ${setting} to a free port, or to -1 for none`,
      details,
      { cause: error },
    )
  }
  const hint =
    code === 'EACCES'
      ? `ports below 1024 need privileges; set ${setting} to a higher one`
      : `see SHOAL_BIND_HOST and ${setting}`
  return new Fault(
    'CONFIG_INVALID',
    `${what} cannot listen on ${host} port ${port} (${text}) - ${hint}`,
    details,
    {
      cause: error,
    },
  )
}

/** Listens on `::`, which is IPv4 and IPv6; on a kernel that has no IPv6 at all, on IPv4. */
export async function listenDualStack<T>(
  host: string,
  listen: (address: string) => Promise<T>,
): Promise<T> {
  try {
    return await listen(host)
  } catch (error) {
    const missing = ['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'EINVAL'].includes(codeOf(error))
    if (host !== '::' || !missing) throw error
  }
  return listen('0.0.0.0')
}

/** The system's name of an error: its own code, or, where a library has wrapped it, the one in its text. */
export function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  if ('code' in error && typeof error.code === 'string') return error.code
  return /\bE[A-Z]{4,}\b/.exec(error.message)?.[0] ?? ''
}
