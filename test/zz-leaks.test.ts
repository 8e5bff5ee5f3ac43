import assert from 'node:assert/strict'
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { it } from 'node:test'
import Docker from 'dockerode'
import { TEST_LABEL, TEST_RUN_PREFIX } from '#test/docker.ts'
import { eventually } from '#test/eventually.ts'

// The last file of a run: what is there now was left by a test before. `npm test` gives each run a temporary folder of its
// own, and all processes of the run have it in TMPDIR; run by hand, this file knows only the label.
const OWN_TEMP = process.env['SHOAL_TEST_RUN'] === undefined ? undefined : tmpdir()
const ENDING_MS = 30_000

it('no container, network, volume or image of the tests is left', async () => {
  const docker = new Docker()
  const left = async (): Promise<string[]> => {
    const filters = { label: [TEST_LABEL] }
    const containers = await docker.listContainers({ all: true })
    const networks = await docker.listNetworks({ filters })
    const { Volumes: volumes } = await docker.listVolumes({ filters })
    const images = await docker.listImages({ filters })
    return [
      ...containers
        .filter(
          ({ Labels, Mounts }) => isOurs(Labels) || Mounts.some(({ Source }) => isInTemp(Source)),
        )
        .map(({ Names, Image }) => `container ${Names.join(' ')} of ${Image}`),
      ...networks.filter(({ Labels }) => isOurs(Labels)).map(({ Name }) => `network ${Name}`),
      ...volumes.filter(({ Labels }) => isOurs(Labels)).map(({ Name }) => `volume ${Name}`),
      ...images
        .filter(({ Labels }) => isOurs(Labels))
        .map(({ RepoTags }) => `image ${RepoTags?.join(' ')}`),
    ]
  }
  await settled(left)
})

it('no process of the tests is left', { skip: OWN_TEMP === undefined }, async () => {
  assert.ok(processesOfThisRun().length > 0, 'the check sees this process')
  await settled(async () => processesOfThisRun().filter((line) => !line.includes('zz-leaks')))
})

it('no temporary file of the tests is left', { skip: OWN_TEMP === undefined }, async () => {
  await settled(async () => readdirSync(OWN_TEMP ?? tmpdir()))
})

function isOurs(labels: Readonly<Record<string, string>> | undefined): boolean {
  return labels?.[TEST_LABEL]?.startsWith(TEST_RUN_PREFIX) === true
}

function isInTemp(path: string): boolean {
  return OWN_TEMP !== undefined && path.startsWith(OWN_TEMP)
}

/** Things may still be on their way out: given a moment, the list must become empty. */
async function settled(left: () => Promise<readonly string[]>): Promise<void> {
  await eventually(async () => (await left()).length === 0, {
    timeoutMs: ENDING_MS,
    everyMs: 200,
  }).catch(() => undefined)
  assert.deepEqual(await left(), [])
}

/** Command lines of the processes that inherited this run's TMPDIR, have a folder of it as theirs, or work in one (handlers inherit nothing), less the test runner itself. */
function processesOfThisRun(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.ppid) return []
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
      const isInside = readlinkSync(`/proc/${pid}/cwd`).startsWith(`${OWN_TEMP}/`)
      const hasOurTemp = environment.some((entry) => entry.startsWith(`TMPDIR=${OWN_TEMP}`))
      if (!isInside && !hasOurTemp) return []
      return [`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`]
    } catch {
      return [] // It ended, or belongs to another user.
    }
  })
}
