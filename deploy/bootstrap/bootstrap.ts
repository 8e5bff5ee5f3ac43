import { access, mkdir } from 'node:fs/promises'
import Docker from 'dockerode'
import type { EngineKind } from '#shared/schemas/names.ts'
import { formatSeconds, type Output } from '../output.ts'
import type { DeployConfig } from '../config.ts'
import { createApt, type Apt } from './apt.ts'
import { baseImageId, baseImageStep } from './base-image.ts'
import type { OwnDockerd } from './dockerd.ts'
import { dockerStep } from './engine.ts'
import { writeImages } from './images-file.ts'
import { removeOldImages } from './old-images.ts'
import { clientsStep, jemallocStep, natsServerStep } from './programs.ts'
import { presentRunners, runnerSteps, type Runners } from './runners.ts'
import { RUNTIME_IMAGE_PREFIX, runtimeImageSteps, type RuntimeImages } from './runtime-images.ts'
import { runStep, skipStep, type Outcome, type Step } from './steps.ts'

export interface BootstrapOptions {
  readonly config: DeployConfig
  /** `test` also sets up what only tests use: both engines. */
  readonly purpose: 'start' | 'test'
  readonly out: Output
}

export interface Bootstrapped {
  readonly engine: EngineKind
  readonly imagesFile: string
  /** A dockerd that this run had to start itself. */
  readonly dockerd: OwnDockerd | undefined
  /** Why there is no Docker, for the one warning; undefined when there is. */
  readonly withoutDocker: string | undefined
}

/** A step without which nothing works failed; its line and hint are printed already. */
export class BootstrapFailure extends Error {
  override readonly name = 'BootstrapFailure'
}

/** Makes everything that is missing. Resolves when the parts can be started. @throws BootstrapFailure */
export async function bootstrap(
  options: BootstrapOptions,
  signal: AbortSignal,
): Promise<Bootstrapped> {
  const started: { dockerd?: OwnDockerd } = {}
  try {
    return await setUp(options, (dockerd) => (started.dockerd = dockerd), signal)
  } catch (error) {
    // Nobody else knows of it, and the next start would take it for the machine's own.
    await started.dockerd?.stop()
    throw error
  }
}

async function setUp(
  options: BootstrapOptions,
  onOwnDockerd: (dockerd: OwnDockerd) => void,
  signal: AbortSignal,
): Promise<Bootstrapped> {
  const { config, purpose, out } = options
  const startedAtMs = performance.now()
  await mkdir(config.data, { recursive: true, mode: 0o700 })
  if (config.ca !== undefined) await announceCa(config.ca, out)
  const apt = createApt(config)
  const programs = { apt, data: config.data }
  const must = async (step: Step) => check(await runStep(step, out, signal), step)

  const [docker] = await Promise.all([
    prepareDocker(options, apt, onOwnDockerd, signal),
    must(natsServerStep(programs)),
    // Nice to have: without them the calls are made with something else, and the agent keeps more memory after load.
    runStep(clientsStep(programs, purpose), out, signal),
    runStep(jemallocStep(programs), out, signal),
  ])
  const runners: Runners = {}
  const makeRunners = async (): Promise<void> => {
    for (const step of runnerSteps(programs, runners)) await runStep(step, out, signal)
  }
  const made: { images?: RuntimeImages; why?: string } = {}
  await Promise.all([
    docker.ready ? tryImages(options, apt, made, signal) : undefined,
    purpose === 'test' ? makeRunners() : undefined,
  ])
  const { images } = made
  const engine: EngineKind = images === undefined ? 'process' : 'docker'
  if (purpose === 'start') {
    if (engine === 'process') await makeRunners()
    else Object.assign(runners, await presentRunners(config.data))
  }
  const imagesFile = await writeImages(config.data, { images, runners })
  out.line(`Set-up complete (${formatSeconds(performance.now() - startedAtMs)})`)
  return { engine, imagesFile, dockerd: docker.own, withoutDocker: docker.why ?? made.why }
}

function check(outcome: Outcome, step: Step): void {
  if (outcome.state === 'fail') throw new BootstrapFailure(`${step.name}: ${outcome.detail}`)
}

async function announceCa(ca: NonNullable<DeployConfig['ca']>, out: Output): Promise<void> {
  try {
    await access(ca.file)
  } catch (cause) {
    throw new BootstrapFailure(`${ca.from} names ${ca.file}, which cannot be read`, { cause })
  }
  out.line(
    `Builds trust the certificates of ${ca.file} (${ca.from}; SHOAL_CA_BUNDLE= turns it off)`,
  )
}

interface PreparedDocker {
  readonly ready: boolean
  readonly own: OwnDockerd | undefined
  readonly why: string | undefined
}

async function prepareDocker(
  { config, purpose, out }: BootstrapOptions,
  apt: Apt,
  onOwn: (dockerd: OwnDockerd) => void,
  signal: AbortSignal,
): Promise<PreparedDocker> {
  if (config.engine === 'process') {
    skipStep('Docker Engine', 'SHOAL_ENGINE=process', out)
    return { ready: false, own: undefined, why: 'SHOAL_ENGINE=process' }
  }
  let own: OwnDockerd | undefined
  const step = dockerStep(config, apt, (dockerd) => {
    own = dockerd
    onOwn(dockerd)
  })
  const outcome = await runStep(step, out, signal)
  if (outcome.state !== 'fail') return { ready: true, own, why: undefined }
  if (config.engine === 'docker')
    throw new BootstrapFailure('SHOAL_ENGINE=docker, but there is none')
  if (config.ci && purpose === 'test') throw new BootstrapFailure('CI=true needs a Docker Engine')
  return { ready: false, own, why: outcome.detail.split('\n')[0] }
}

/** Without images Docker is of no use; a person gets functions as processes then, as without Docker. */
async function tryImages(
  options: BootstrapOptions,
  apt: Apt,
  made: { images?: RuntimeImages; why?: string },
  signal: AbortSignal,
): Promise<void> {
  try {
    made.images = await prepareImages(options, apt, signal)
  } catch (error) {
    const needed = options.config.engine === 'docker' || options.purpose === 'test'
    if (needed || !(error instanceof BootstrapFailure)) throw error
    made.why = `no runtime images: ${error.message.split('\n')[0]}`
  }
}

async function prepareImages(
  { config, out, purpose }: BootstrapOptions,
  apt: Apt,
  signal: AbortSignal,
): Promise<RuntimeImages> {
  const docker = new Docker({ socketPath: config.dockerSocket })
  const base = baseImageStep({ docker, apt, proxy: config.proxy })
  check(await runStep(base, out, signal), base)
  const baseImage = await baseImageId(docker)
  if (baseImage === undefined) throw new BootstrapFailure('the base image is gone again')
  const made: RuntimeImages = {}
  const steps = await runtimeImageSteps({ docker, baseImage, config }, made)
  const outcomes = await Promise.all(steps.map((step) => runStep(step, out, signal)))
  const failed = outcomes.filter(({ state }) => state === 'fail').length
  // A runtime less is better than nothing, for a person; tests want all of them.
  if (failed === outcomes.length || (failed > 0 && purpose === 'test')) {
    throw new BootstrapFailure(`${failed} of ${outcomes.length} runtime images could not be built`)
  }
  if (purpose === 'start' && failed === 0) await tidyImages(docker, made, out)
  return made
}

/** Nothing depends on it: what cannot be removed now is tried again at the next start. */
async function tidyImages(docker: Docker, made: RuntimeImages, out: Output): Promise<void> {
  const current = new Set(Object.values(made).flatMap(({ run, build }) => [run, build]))
  try {
    const options = { docker, prefix: RUNTIME_IMAGE_PREFIX, current, nowMs: Date.now() }
    const removed = await removeOldImages(options)
    if (removed.length > 0) out.line(`Old runtime images removed: ${removed.join(', ')}`)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    out.line(`Old runtime images were not all removed: ${why}`)
  }
}
