import type { ProxySettings } from './download.ts'

export interface BuildEnvOptions {
  readonly home: string
  /** As the build sees it. */
  readonly caFile?: string | undefined
  readonly proxy?: ProxySettings | undefined
  /** More, e.g. `npm_config_registry`, `PIP_INDEX_URL`; wins. */
  readonly env?: Readonly<Record<string, string>> | undefined
}

/** The names that npm, node, pip, OpenSSL and requests look at. */
const CA_NAMES = [
  'NODE_EXTRA_CA_CERTS',
  'SSL_CERT_FILE',
  'PIP_CERT',
  'REQUESTS_CA_BUNDLE',
  'npm_config_cafile',
]

/** Environment of an installation, beside PATH. */
export function buildEnv({ home, caFile, proxy, env }: BuildEnvOptions): Record<string, string> {
  const result: Record<string, string> = {
    HOME: home,
    npm_config_cache: `${home}/.npm`,
    CI: 'true',
  }
  if (caFile !== undefined) for (const name of CA_NAMES) result[name] = caFile
  const proxies = { HTTP_PROXY: proxy?.http, HTTPS_PROXY: proxy?.https, NO_PROXY: proxy?.no }
  for (const [name, value] of Object.entries(proxies)) {
    if (value === undefined || value === '') continue
    // curl and pip read the small spelling, npm the large one.
    result[name] = value
    result[name.toLowerCase()] = value
  }
  return { ...result, ...env }
}
