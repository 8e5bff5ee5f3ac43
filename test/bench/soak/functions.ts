import { functionFolder } from '#test/function-folder.ts'
import type { ProductScope } from '#test/product.ts'
import { ECHO } from '../suites/echo-products.ts'

/** What `live` answers is one of these, by the release. Few, so that the builder and the artifact store meet known bytes. */
export const VERSIONS = ['v0', 'v1', 'v2', 'v3'] as const

/** The body that makes `crash` end its process. */
export const CRASH = 'crash now'

const FUNCTIONS = [
  { name: 'echo-node', files: ECHO.node, args: [] },
  { name: 'echo-python', files: ECHO.python, args: [] },
  { name: 'echo-binary', files: ECHO.binary, args: [] },
  {
    name: 'crash',
    files: {
      'index.js': `module.exports = (req, res) => {
  if (req.rawBody?.toString() === '${CRASH}') process.exit(3)
  res.send(req.rawBody)
}`,
    },
    args: ['--replicas', '2'],
  },
  { name: 'nap', files: ECHO.node, args: ['--replicas', '0', '--idle', '1s'] },
] as const

/** Deploys them all, `live` included. @throws Error with what the CLI said */
export async function deployAll(product: ProductScope): Promise<void> {
  for (const { name, files, args } of FUNCTIONS) await deploy(product, name, files, args)
  await deployLive(product, 0)
}

/** Version `n` of the function that is redeployed again and again. @throws Error with what the CLI said */
export async function deployLive(product: ProductScope, n: number): Promise<void> {
  const version = VERSIONS[n % VERSIONS.length]
  const source = `module.exports = (req, res) => res.send('${version}')`
  await deploy(product, 'live', { 'index.js': source }, [])
}

async function deploy(
  product: ProductScope,
  name: string,
  files: Readonly<Record<string, string>>,
  args: readonly string[],
): Promise<void> {
  await using folder = await functionFolder(files)
  const ran = await product.shoal('fn', 'deploy', folder.path, '--name', name, ...args)
  if (ran.code !== 0) throw new Error(`deploying ${name}: ${ran.stdout}${ran.stderr}`)
}
