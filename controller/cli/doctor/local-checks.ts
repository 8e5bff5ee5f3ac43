import { access, constants, readFile, stat, statfs } from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import { Value } from 'typebox/value'
import { Images } from '#shared/schemas/images.ts'
import { dataFolder, tokenFile } from '../connection.ts'
import { bytesText } from '../table.ts'
import { fail, ok, warn, type CheckResult, type DoctorInput } from './model.ts'

const ENGINE_TIMEOUT_MS = 5_000
const DISK_WARN_BYTES = 2 * 1024 * 1024 * 1024
const DISK_FAIL_BYTES = 256 * 1024 * 1024

export async function checkDataFolder({ options, env }: DoctorInput): Promise<CheckResult> {
  const folder = dataFolder(options, env)
  const check = 'data folder'
  try {
    const stats = await stat(folder)
    if (!stats.isDirectory()) {
      return fail(
        check,
        `${folder} is not a folder`,
        'set SHOAL_DATA (or --data-folder) to a folder',
      )
    }
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    return ok(check, folder)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      return warn(
        check,
        `${folder} is not there`,
        '`npm start` makes it; if it lies elsewhere, set SHOAL_DATA or --data-folder',
      )
    }
    return fail(check, `${folder}: ${textOf(error)}`, 'run as the user that runs the controller')
  }
}

export async function checkToken({ options, env }: DoctorInput): Promise<CheckResult> {
  const check = 'token'
  if (options.token !== undefined) return ok(check, 'from --token')
  if (env['SHOAL_API_TOKEN'] !== undefined && env['SHOAL_API_TOKEN'] !== '') {
    return ok(check, 'from SHOAL_API_TOKEN')
  }
  const file = tokenFile(options, env)
  try {
    const stats = await stat(file)
    await readFile(file)
    if ((stats.mode & 0o077) === 0) return ok(check, file)
    return warn(check, `${file} can be read by other users`, `chmod 600 ${file}`)
  } catch (error) {
    return fail(
      check,
      `${file}: ${textOf(error)}`,
      'the controller makes it at its first start; elsewhere pass --token or SHOAL_API_TOKEN',
    )
  }
}

export async function checkDisk({ options, env }: DoctorInput): Promise<CheckResult> {
  const check = 'disk'
  // The nearest folder that exists: the data folder may not be made yet.
  let folder = dataFolder(options, env)
  for (;;) {
    try {
      const { bavail, bsize } = await statfs(folder)
      const free = bavail * bsize
      const message = `${bytesText(free)} free at ${folder}`
      const hint = 'free some space, or move the data folder (SHOAL_DATA)'
      if (free < DISK_FAIL_BYTES) return fail(check, message, hint)
      return free < DISK_WARN_BYTES ? warn(check, message, hint) : ok(check, message)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || folder === path.dirname(folder)) {
        return fail(check, `${folder}: ${textOf(error)}`, 'check SHOAL_DATA')
      }
      folder = path.dirname(folder)
    }
  }
}

/** The container engine, by its API. */
export async function checkEngine({ env }: DoctorInput, signal: AbortSignal): Promise<CheckResult> {
  const check = 'engine'
  if (env['SHOAL_ENGINE'] === 'process') {
    return warn(
      check,
      'process (SHOAL_ENGINE): functions are not isolated',
      'use Docker for production',
    )
  }
  const socket = dockerSocket(env)
  try {
    const version = await engineGet(socket, '/version', signal)
    if (version.status !== 200) throw new Error(`answered ${version.status}`)
    const { Version: number, ApiVersion: api }: { Version?: string; ApiVersion?: string } =
      JSON.parse(version.body)
    return ok(check, `Docker ${number ?? '?'} (API ${api ?? '?'}) at ${socket}`)
  } catch (error) {
    const hint =
      codeOf(error) === 'EACCES'
        ? 'add this user to the group docker, or run as root'
        : 'start Docker, or set SHOAL_DOCKER_SOCKET; without it functions run as plain processes'
    return warn(check, `no Docker at ${socket}: ${textOf(error)}`, hint)
  }
}

export async function checkImages(
  { options, env }: DoctorInput,
  signal: AbortSignal,
): Promise<CheckResult> {
  const check = 'images'
  const file = path.join(dataFolder(options, env), 'images.json')
  const hint = '`npm start` makes the runtime images and writes this file'
  let images: unknown
  try {
    images = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    return fail(check, `${file}: ${textOf(error)}`, hint)
  }
  if (!Value.Check(Images, images)) return fail(check, `${file} is not as it should be`, hint)
  const { docker, process: programs } = images
  if (docker === undefined) {
    const names = Object.keys(programs ?? {}).join(', ')
    return warn(
      check,
      `only for the process engine: ${names || 'none'}`,
      'install Docker, then npm start',
    )
  }
  const missing: string[] = []
  for (const [runtime, { run, build }] of Object.entries(docker)) {
    for (const image of new Set([run, build])) {
      const answer = await engineGet(dockerSocket(env), `/images/${image}/json`, signal).catch(
        () => undefined,
      )
      if (answer?.status !== 200) missing.push(`${runtime} (${image.slice(0, 19)})`)
    }
  }
  if (missing.length === 0) return ok(check, `${Object.keys(docker).join(', ')} (${images.arch})`)
  return fail(check, `not on this host: ${missing.join(', ')}`, hint)
}

function dockerSocket(env: DoctorInput['env']): string {
  const own = env['SHOAL_DOCKER_SOCKET']
  if (own !== undefined && own !== '') return own
  const host = env['DOCKER_HOST']
  return host?.startsWith('unix://') === true
    ? host.slice('unix://'.length)
    : '/var/run/docker.sock'
}

async function engineGet(
  socketPath: string,
  at: string,
  signal: AbortSignal,
): Promise<{ status: number; body: string }> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(ENGINE_TIMEOUT_MS)])
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>()
  const request = http.get(
    { socketPath, path: at, host: 'localhost', signal: limited },
    (answer) => {
      let body = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => {
        body += chunk
      })
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body }))
      answer.on('error', reject)
    },
  )
  request.on('error', reject)
  return promise
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
