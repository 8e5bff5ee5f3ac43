import { writeFile } from 'node:fs/promises'
import { pino } from 'pino'
import { withNamedSchemas } from './named-schemas.ts'
import { buildApi } from './server.ts'

/** The description of the API, from the routes' own schemas. The text of `openapi.json` beside this file. */
export async function describeApi(): Promise<string> {
  await using app = await buildApi({
    services: () => {
      throw new TypeError('there is nothing behind a description')
    },
    token: 'of no use',
    log: pino({ level: 'silent' }),
  })
  await app.ready()
  return `${JSON.stringify(withNamedSchemas(app.swagger()), null, 2)}\n`
}

/** `node controller/api/openapi.ts` writes the file anew. */
if (import.meta.main) {
  await writeFile(new URL('openapi.json', import.meta.url), await describeApi())
}
