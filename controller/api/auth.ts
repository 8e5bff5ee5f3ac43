import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import * as fs from 'node:fs/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { DurableFile } from '#shared/durable-file.ts'
import { Fault } from '#shared/fault.ts'

const TOKEN_CHARS_MIN = 16

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Served without the bearer token. */
    readonly open?: boolean
  }
}

/**
 * The bearer token in `<folder>/api-token` (mode 0600); made at the first start.
 *
 * @throws Fault `CONFIG_INVALID` for a file that holds none
 */
export async function ensureApiToken(folder: string): Promise<string> {
  const file = new DurableFile({ folder, name: 'api-token', fs })
  const { value, problems } = await file.read((bytes) => {
    const token = bytes.toString().trim()
    if (token.length >= TOKEN_CHARS_MIN) return token
    throw new TypeError(`holds no token of ${TOKEN_CHARS_MIN} characters or more`)
  })
  if (value !== undefined) {
    await fs.chmod(file.path, 0o600).catch(() => undefined)
    return value
  }
  if (problems.length > 0) {
    const why = problems.map(({ message }) => message).join('; ')
    throw new Fault('CONFIG_INVALID', `${why}: remove the file to get a new one`)
  }
  const made = randomBytes(32).toString('base64url')
  await file.write(`${made}\n`)
  return made
}

/** Every route wants the token, except those that say `config: { open: true }`. */
export function requireToken(app: FastifyInstance, token: string): void {
  const isRight = tokenCheck(token)
  app.addHook('onRequest', (request, _reply, done) => {
    if (request.routeOptions.config.open === true || isRight(bearerOf(request))) return done()
    done(
      new Fault(
        'UNAUTHENTICATED',
        'send `authorization: Bearer <token>`; the token is in the file api-token of the controller folder',
      ),
    )
  })
}

/** Compares in constant time, whatever the length. */
export function tokenCheck(token: string): (given: string | undefined) => boolean {
  const expected = hashOf(token)
  return (given) => given !== undefined && timingSafeEqual(hashOf(given), expected)
}

function bearerOf(request: FastifyRequest): string | undefined {
  return /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
}

function hashOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
