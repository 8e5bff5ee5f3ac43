import { buffer } from 'node:stream/consumers'
import { pack } from 'tar-stream'

/** A tar of these files. */
export async function tarOf(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const archive = pack()
  for (const [name, text] of Object.entries(files)) archive.entry({ name }, text)
  archive.finalize()
  return buffer(archive)
}

/** A function that needs no build; another `version` gives another bundle. */
export function nodeFunction(version = 1): Promise<Buffer> {
  return tarOf({
    'index.js': `module.exports = (req, res) => res.send('version ${version}')\n`,
    'package.json': JSON.stringify({ name: 'fn', version: `1.0.${version}`, main: 'index.js' }),
  })
}
