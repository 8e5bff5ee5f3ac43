import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Fault } from '#shared/fault.ts'
import { loadDeployConfig } from '../../deploy/config.ts'
import { checkSettings } from '../../deploy/settings.ts'
import { formatTable } from '../../deploy/output.ts'

describe('deploy configuration', () => {
  it('has the documented defaults', () => {
    const config = loadDeployConfig({ HOME: '/nowhere' })
    assert.match(config.data, /\.local\/share\/shoal$/)
    assert.deepEqual(config.ports, {
      http: 8000,
      coap: 5683,
      grpc: 9000,
      admin: 8081,
      api: 7420,
      nats: 4222,
    })
    assert.equal(config.dockerSocket, '/var/run/docker.sock')
    assert.equal(config.engine, undefined)
    assert.equal(config.ca, undefined)
    assert.equal(config.samples, true)
    assert.deepEqual(config.proxy, {})
  })

  it('takes older port names, SHOAL_ first, then upper-case', () => {
    const all = { SHOAL_HTTP_PORT: '1', HTTP_PORT: '2', http_PORT: '3' }
    assert.equal(loadDeployConfig(all).ports.http, 1)
    assert.equal(loadDeployConfig({ ...all, SHOAL_HTTP_PORT: '' }).ports.http, 2)
    assert.equal(loadDeployConfig({ http_PORT: '3' }).ports.http, 3)
    assert.equal(loadDeployConfig({ COAP_PORT: '-1' }).ports.coap, -1)
  })

  it('reports every problem at once', () => {
    assert.throws(
      () =>
        loadDeployConfig({ SHOAL_ENGINE: 'podman', GRPC_PORT: 'many', SHOAL_NATS_PORT: '70000' }),
      (error: unknown) => {
        assert.ok(Fault.is(error, 'CONFIG_INVALID'))
        for (const name of ['SHOAL_ENGINE', 'GRPC_PORT', 'SHOAL_NATS_PORT']) {
          assert.match(error.message, new RegExp(name))
        }
        return true
      },
    )
  })

  const bundles = [
    { env: { SHOAL_CA_BUNDLE: '/a', NODE_EXTRA_CA_CERTS: '/b' }, ca: ['/a', 'SHOAL_CA_BUNDLE'] },
    { env: { NODE_EXTRA_CA_CERTS: '/b', SSL_CERT_FILE: '/c' }, ca: ['/b', 'NODE_EXTRA_CA_CERTS'] },
    { env: { SSL_CERT_FILE: '/c' }, ca: ['/c', 'SSL_CERT_FILE'] },
    { env: { SHOAL_CA_BUNDLE: '', NODE_EXTRA_CA_CERTS: '/b' }, ca: undefined },
    { env: {}, ca: undefined },
  ]
  for (const { env, ca } of bundles) {
    it(`builds trust ${ca?.join(' of ') ?? 'nothing more'} for ${JSON.stringify(env)}`, () => {
      const found = loadDeployConfig(env).ca
      assert.deepEqual(found === undefined ? undefined : [found.file, found.from], ca)
    })
  }

  it("finds the engine's socket by SHOAL_DOCKER_SOCKET, then DOCKER_HOST", () => {
    const env = { DOCKER_HOST: 'unix:///run/user/1000/docker.sock' }
    assert.equal(loadDeployConfig(env).dockerSocket, '/run/user/1000/docker.sock')
    assert.equal(loadDeployConfig({ ...env, SHOAL_DOCKER_SOCKET: '/x' }).dockerSocket, '/x')
    const remote = loadDeployConfig({ DOCKER_HOST: 'tcp://there:2375' })
    assert.equal(remote.dockerSocket, '/var/run/docker.sock')
  })

  it('hands proxy settings to builds in both spellings', () => {
    assert.deepEqual(loadDeployConfig({ HTTPS_PROXY: 'http://p:1' }).proxy, {
      https_proxy: 'http://p:1',
      HTTPS_PROXY: 'http://p:1',
    })
  })
})

describe('settings of all parts', () => {
  const rows: { env: Record<string, string>; problems?: RegExp[]; warnings?: RegExp[] }[] = [
    { env: { SHOAL_HTTP_PORT: '8001', SHOAL_NATS_HOST: '::', SHOAL_STARTS_MAX: '1' } },
    { env: { SHOAL_PROT: '1' }, problems: [/^SHOAL_PROT is not a setting; was SHOAL_\w+_PORT/] },
    { env: { SHOAL_DTA: '/x' }, problems: [/^SHOAL_DTA .* SHOAL_DATA meant/] },
    { env: { SHOAL_NATS_HSOT: '/x' }, problems: [/^SHOAL_NATS_HSOT .* SHOAL_NATS_HOST meant/] },
    { env: { SHOAL_WEATHER: 'fine' }, warnings: [/^SHOAL_WEATHER .*ignored$/] },
    { env: { SHOAL_SPARES: '99' }, problems: [/^SHOAL_SPARES=99 .* number from 0 to 16$/] },
    { env: { SHOAL_KEEP_MS: 'x' }, problems: [/^SHOAL_KEEP_MS=x .* number from 0 to 86400000$/] },
    { env: { SHOAL_COMPAT: 'x' }, problems: [/^SHOAL_COMPAT=x must be tinyfaas$/] },
    { env: { SHOAL_ENGINE: 'x' }, problems: [/^SHOAL_ENGINE=x must be docker or process$/] },
    { env: { SHOAL_API_PORT: '-1' }, problems: [/^SHOAL_API_PORT=-1 .* from 0 to 65535$/] },
    {
      env: { SHOAL_HTTP_PORT: 'x', SHOAL_HEARTBEAT_MS: '1', SHOAL_NATS_PORT: 'y' },
      problems: [/^SHOAL_HTTP_PORT=x/, /^SHOAL_HEARTBEAT_MS=1/, /^SHOAL_NATS_PORT/],
    },
  ]
  for (const { env, problems = [], warnings = [] } of rows) {
    it(`${JSON.stringify(env)}: ${problems.length} problems, ${warnings.length} warnings`, () => {
      const found = checkSettings({ HOME: '/nowhere', ...env })
      assert.equal(found.problems.length, problems.length, found.problems.join('\n'))
      assert.equal(found.warnings.length, warnings.length, found.warnings.join('\n'))
      for (const [n, says] of problems.entries()) assert.match(found.problems[n] ?? '', says)
      for (const [n, says] of warnings.entries()) assert.match(found.warnings[n] ?? '', says)
    })
  }
})

it('a table has its columns aligned and no blanks at the end of lines', () => {
  const text = formatTable([
    ['function', 'state'],
    ['a', 'ready'],
    ['longest name', ''],
  ])
  assert.equal(text, 'function      state\na             ready\nlongest name')
})
