import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { loadAgentConfig, printableConfig, settingsHelp } from '#agent/config/index.ts'
import { misspelt } from '#shared/env-names.ts'
import { Fault } from '#shared/fault.ts'

const DATA = { SHOAL_DATA: '/data' }

describe('loadAgentConfig', () => {
  it('fills defaults, converts numbers and derives paths from the data folder', () => {
    const config = loadAgentConfig({ ...DATA, SHOAL_HEARTBEAT_MS: '2000' })
    assert.equal(config.heartbeatMs, 2_000)
    assert.equal(config.httpPort, 8000)
    assert.equal(config.engine, 'docker')
    assert.equal(config.agentData, '/data/agent')
    assert.equal(config.imagesFile, '/data/images.json')
    assert.ok(Object.isFrozen(config))
  })

  it('an agent folder of its own wins over the data folder', () => {
    const config = loadAgentConfig({ ...DATA, SHOAL_AGENT_DATA: '/var/lib/shoal/a' })
    assert.equal(config.agentData, '/var/lib/shoal/a')
    assert.equal(config.imagesFile, '/var/lib/shoal/images.json')
  })

  const ports = [
    {
      name: 'SHOAL_ first',
      env: { SHOAL_HTTP_PORT: '1', HTTP_PORT: '2', http_PORT: '3' },
      http: 1,
    },
    { name: 'then upper-case', env: { HTTP_PORT: '2', http_PORT: '3' }, http: 2 },
    { name: 'then as tinyFaaS writes it', env: { http_PORT: '3' }, http: 3 },
    { name: 'empty counts as not set', env: { SHOAL_HTTP_PORT: '', HTTP_PORT: '2' }, http: 2 },
    { name: '-1 for off', env: { HTTP_PORT: '-1' }, http: -1 },
  ]
  for (const { name, env, http } of ports) {
    it(`takes ports by their three names: ${name}`, () => {
      assert.equal(loadAgentConfig({ ...DATA, ...env }).httpPort, http)
    })
  }

  it('reads coap and grpc ports by their older names too', () => {
    const config = loadAgentConfig({ ...DATA, coap_PORT: '1234', GRPC_PORT: '-1' })
    assert.equal(config.coapPort, 1234)
    assert.equal(config.grpcPort, -1)
  })

  it('reads labels', () => {
    const config = loadAgentConfig({ ...DATA, SHOAL_NODE_LABELS: 'site=north, rack=2,spare=' })
    assert.deepEqual(config.nodeLabels, { site: 'north', rack: '2', spare: '' })
  })

  it('takes booleans as text', () => {
    assert.equal(loadAgentConfig({ ...DATA, SHOAL_REMOVE_HANDLERS: 'true' }).removeHandlers, true)
    assert.equal(loadAgentConfig({ ...DATA, SHOAL_REMOVE_HANDLERS: 'false' }).removeHandlers, false)
  })

  const wrong = [
    {
      name: 'a port that is no number',
      env: { SHOAL_HTTP_PORT: 'http' },
      says: /SHOAL_HTTP_PORT=http/,
    },
    { name: 'a port above the range', env: { coap_PORT: '70000' }, says: /coap_PORT=70000/ },
    {
      name: 'no worker',
      env: { SHOAL_WORKERS: '0' },
      says: /SHOAL_WORKERS=0 must be a whole number from 1 to 64/,
    },
    {
      name: '65 workers',
      env: { SHOAL_WORKERS: '65' },
      says: /SHOAL_WORKERS=65 must be a whole number from 1 to 64/,
    },
    { name: 'half a worker', env: { SHOAL_WORKERS: '1.5' }, says: /SHOAL_WORKERS=1.5/ },
    { name: 'workers that are no number', env: { SHOAL_WORKERS: 'x' }, says: /SHOAL_WORKERS=x/ },
    {
      name: 'a probe less often than a timer can wait for',
      env: { SHOAL_PROBE_EVERY_MS: '2592000000' },
      says: /SHOAL_PROBE_EVERY_MS=2592000000/,
    },
    { name: 'an engine nobody has', env: { SHOAL_ENGINE: 'podman' }, says: /SHOAL_ENGINE=podman/ },
    {
      name: 'a node name that is no DNS label',
      env: { SHOAL_NODE_NAME: 'A b' },
      says: /SHOAL_NODE_NAME/,
    },
    {
      name: 'a label without value',
      env: { SHOAL_NODE_LABELS: 'site' },
      says: /"site" is not key=value/,
    },
    { name: 'a label twice', env: { SHOAL_NODE_LABELS: 'a=1,a=2' }, says: /label a comes twice/ },
    {
      name: 'a label that no selector could name',
      env: { SHOAL_NODE_LABELS: 'a=b c' },
      says: /SHOAL_NODE_LABELS/,
    },
    {
      name: 'a misspelt setting',
      env: { SHOAL_HTTP_PROT: '1' },
      says: /SHOAL_HTTP_PROT.*SHOAL_HTTP_PORT/,
    },
    {
      name: 'a folder too long for sockets',
      env: { SHOAL_DATA: `/${'d'.repeat(90)}` },
      says: /SHOAL_DATA is 7 bytes too long/,
    },
  ]
  for (const { name, env, says } of wrong) {
    it(`refuses ${name}`, () => {
      assert.throws(
        () => loadAgentConfig({ ...DATA, ...env }),
        (error: unknown) => Fault.is(error, 'CONFIG_INVALID') && says.test(error.message),
      )
    })
  }

  it('reports every problem at once', () => {
    const env = {
      SHOAL_HTTP_PORT: 'x',
      SHOAL_ENGINE: 'y',
      SHOAL_NODE_LABELS: 'z',
      SHOAL_ENGIN: 'q',
    }
    assert.throws(
      () => loadAgentConfig({ ...DATA, ...env }),
      (error: unknown) => {
        assert.ok(Fault.is(error, 'CONFIG_INVALID'))
        for (const name of Object.keys(env)) assert.match(error.message, new RegExp(name))
        return true
      },
    )
  })

  it("does not mind the other parts' settings", () => {
    const env = {
      SHOAL_NATS_PORT: '4222',
      SHOAL_API_PORT: '7420',
      SHOAL_SAMPLES: '0',
      SHOAL_X: '1',
    }
    assert.equal(loadAgentConfig({ ...DATA, ...env }).httpPort, 8000)
  })
})

describe('misspelt', () => {
  const rows: [string, string | undefined][] = [
    ['SHOAL_HTTP_PORT', undefined],
    ['SHOAL_HTTP_PROT', 'SHOAL_HTTP_PORT'],
    ['SHOAL_HTP_PORT', 'SHOAL_HTTP_PORT'],
    ['SHOAL_HTTPS_PORT', 'SHOAL_HTTP_PORT'],
    ['SHOAL_API_PORT', undefined],
    ['SHOAL_SOMETHING_ELSE', undefined],
  ]
  for (const [name, meant] of rows) {
    it(`${name}: ${meant ?? 'not one of ours'}`, () => {
      assert.equal(misspelt(name, ['SHOAL_HTTP_PORT', 'SHOAL_ENGINE']), meant)
    })
  }
})

it('the printed config shows everything but secrets', () => {
  const config = loadAgentConfig({ ...DATA, SHOAL_JOIN_TOKEN: 'c2VjcmV0' })
  const printed = printableConfig(config)
  assert.equal(printed['joinToken'], '(set, not shown)')
  assert.equal(printed['httpPort'], 8000)
  assert.doesNotMatch(JSON.stringify(printed), /c2VjcmV0/)
})

it('the help names every setting with its default', () => {
  assert.match(settingsHelp(), /SHOAL_HTTP_PORT +HTTP; -1 turns it off \[8000\]/)
  assert.match(settingsHelp(), /SHOAL_REMOVE_HANDLERS/)
})
