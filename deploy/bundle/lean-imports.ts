import { readFile } from 'node:fs/promises'
import { createRequire, isBuiltin } from 'node:module'
import { join } from 'node:path'
import type { Plugin } from 'esbuild'

const LEFT_OUT = join(import.meta.dirname, 'left-out.ts')

/**
 * Imports that cost more memory in a bundle than they must.
 *
 * - Of Node's own modules just what is used is read: an `import` of `node:http` reads each of its exports once, and thereby loads all of
 *   undici, which is behind a getter; and esbuild's own way around that makes a getter of each export for each file that imports one.
 * - A CommonJS module whose export is bytes is taken by `require`: for an `import`, esbuild copies what the export has, name by
 *   name, and makes a getter of every byte (10 MiB for llhttp).
 * - What of dockerode nobody uses is left out.
 * - One character beyond ASCII makes Node keep the whole source with two bytes for each; esbuild escapes them everywhere but in regular
 *   expressions, of which systeminformation has such.
 */
export const leanImports: Plugin = {
  name: 'lean-imports',
  setup(build) {
    build.onResolve({ filter: /^[a-z_/:0-9]+$/ }, ({ path, kind }) =>
      kind === 'import-statement' && isBuiltin(path) ? { path, namespace: BUILTIN } : undefined,
    )
    build.onLoad({ filter: /.*/, namespace: BUILTIN }, ({ path }) => ({
      contents: moduleText(path),
    }))
    build.onResolve({ filter: /-wasm\.js$/ }, async ({ path, kind, resolveDir }) => {
      if (kind !== 'import-statement') return undefined
      const found = await build.resolve(path, { kind: 'require-call', resolveDir })
      return { ...found, namespace: BYTES }
    })
    build.onLoad({ filter: /.*/, namespace: BYTES }, ({ path }) => ({
      contents: `export default require(${JSON.stringify(path)})`,
      resolveDir: import.meta.dirname,
    }))
    build.onLoad({ filter: /systeminformation\/lib\/[a-z]+\.js$/ }, async ({ path }) => ({
      contents: (await readFile(path, 'utf8')).replaceAll(/[^\0-\x7f]/g, escaped),
    }))
    build.onResolve({ filter: /^(ssh2|tar-fs)$/ }, () => ({ path: LEFT_OUT }))
    build.onResolve({ filter: /^\.\/session$/ }, ({ importer }) =>
      importer.endsWith('/dockerode/lib/docker.js') ? { path: LEFT_OUT } : undefined,
    )
  },
}

const require = createRequire(import.meta.url)
const BUILTIN = 'builtin'
/** Of a variable. `default` is there anyway. */
const NAME = /^(?!default$)[A-Za-z_$][\w$]*$/
const BYTES = 'bytes'

/** What nobody imports of it, esbuild leaves out. */
function moduleText(path: string): string {
  const found: object = require(path)
  const names = Object.keys(found).filter((name) => NAME.test(name))
  return `const $all = require(${JSON.stringify(path)})
const $get = (name) => $all[name]
export default $all
${names.map((name) => `export const ${name} = /* @__PURE__ */ $get('${name}')`).join('\n')}`
}

function escaped(text: string): string {
  return `\\u${text.charCodeAt(0).toString(16).padStart(4, '0')}`
}
