import { join, resolve } from 'node:path'
import { readFile } from 'node:fs/promises'
import { build, type BuildOptions } from 'esbuild'
import { leanImports } from './lean-imports.ts'
import type { Program } from './programs.ts'

const ROOT = join(import.meta.dirname, '../..')

export interface BundleOptions {
  readonly program: Program
  /** The file to write. */
  readonly file: string
  /** Also writes `<file>.map`; Node reads it with `--enable-source-maps`. Default: no. */
  readonly sourceMap?: boolean
}

/**
 * Puts a program and all it imports into one file. Resolves to the files that it has something of, relative to the checkout.
 *
 * @throws Error in esbuild's words; RangeError for a bundle that is not ASCII
 */
export async function bundle(options: BundleOptions): Promise<readonly string[]> {
  const { program, file, sourceMap = false } = options
  const { metafile } = await build({
    ...COMMON,
    entryPoints: [program.entry],
    outfile: resolve(file),
    sourcemap: sourceMap ? 'linked' : false,
  })
  await checkAscii(file)
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs))
  return inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path)
}

const COMMON = {
  absWorkingDir: ROOT,
  bundle: true,
  metafile: true,
  platform: 'node',
  format: 'esm',
  target: 'node24',
  plugins: [leanImports],
  // Node keeps the source in memory. Names stay what they are: they are in logs and in errors.
  minifyWhitespace: true,
  minifySyntax: true,
  charset: 'ascii',
  legalComments: 'none',
  logLevel: 'silent',
  // CommonJS packages ask for Node's own modules by `require`, which a module does not have.
  banner: {
    js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);",
  },
} as const satisfies BuildOptions

/** One letter of another alphabet (esbuild leaves them in regular expressions), and V8 keeps all of the source with two bytes each. */
async function checkAscii(file: string): Promise<void> {
  const found = /.{0,40}[^\0-\x7f]/.exec(await readFile(file, 'utf8'))
  if (found !== null) throw new RangeError(`${file} is not ASCII: ${found[0]}`)
}
