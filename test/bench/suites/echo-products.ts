import { functionFolder } from '#test/function-folder.ts'
import { productScope, type ProductScope } from '#test/product.ts'
import type { Plan } from '../harness/model.ts'

/** The same echo in three languages. */
export const ECHO = {
  node: { 'index.js': 'module.exports = (req, res) => res.send(req.rawBody)' },
  python: { 'fn.py': 'def handle(request, context):\n    return request.body\n' },
  binary: { 'fn.sh': '#!/bin/sh\nexec cat\n' },
} as const

export const LANGUAGES = Object.keys(ECHO)

/** A whole product that answers `/echo-node`, `/echo-python` and `/echo-binary`. */
export interface EchoProduct extends AsyncDisposable {
  /** Behind the names of its contestants: empty, or ` (<ref>)`. */
  readonly suffix: string
  readonly product: ProductScope
}

/** This tree's, and the other tree's when there is one. */
export async function echoProducts({
  against,
  say,
}: Plan): Promise<AsyncDisposable & { readonly all: readonly EchoProduct[] }> {
  await using stack = new AsyncDisposableStack()
  const all = [stack.use(await echoProduct(undefined, ''))]
  if (against !== undefined) {
    say(`starting the product of ${against.ref}`)
    all.push(stack.use(await echoProduct(against.path, ` (${against.ref})`)))
  }
  const owned = stack.move()
  return { all, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

async function echoProduct(tree: string | undefined, suffix: string): Promise<EchoProduct> {
  await using stack = new AsyncDisposableStack()
  const product = stack.use(await productScope({ SHOAL_SAMPLES: '0' }, tree))
  await product.start()
  for (const [name, files] of Object.entries(ECHO)) await deploy(product, `echo-${name}`, files)
  const owned = stack.move()
  return { suffix, product, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

/** @throws Error with what the CLI said */
export async function deploy(
  product: ProductScope,
  name: string,
  files: Readonly<Record<string, string>>,
  settings: readonly string[] = [],
): Promise<void> {
  await using folder = await functionFolder(files)
  const ran = await product.shoal('fn', 'deploy', folder.path, '--name', name, ...settings)
  if (ran.code !== 0) throw new Error(ran.stdout + ran.stderr)
}
