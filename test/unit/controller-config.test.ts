import assert from 'node:assert/strict'
import { it } from 'node:test'
import { loadControllerConfig } from '#controller/config/index.ts'
import { Fault } from '#shared/fault.ts'

it('the folder follows from SHOAL_DATA, and images.json lies beside it', () => {
  const config = loadControllerConfig({ SHOAL_DATA: '/srv/shoal' })
  assert.equal(config.controllerData, '/srv/shoal/controller')
  assert.equal(config.imagesFile, '/srv/shoal/images.json')
  assert.equal(config.apiHost, '127.0.0.1')
  assert.equal(config.apiPort, 7420)
  assert.deepEqual(config.compat, [])
})

it('SHOAL_CONTROLLER_DATA wins, lists are split, empty variables count as not set', () => {
  const config = loadControllerConfig({
    SHOAL_DATA: '/srv/shoal',
    SHOAL_CONTROLLER_DATA: '/other',
    SHOAL_NATS_URL: 'nats://a:4222, tls://b:4222',
    SHOAL_COMPAT: 'tinyfaas',
    SHOAL_API_PORT: '',
  })
  assert.equal(config.controllerData, '/other')
  assert.deepEqual(config.natsUrl, ['nats://a:4222', 'tls://b:4222'])
  assert.deepEqual(config.compat, ['tinyfaas'])
  assert.equal(config.apiPort, 7420)
})

it('every problem is named at once, by its setting', () => {
  assert.throws(
    () =>
      loadControllerConfig({
        SHOAL_API_PORT: 'http',
        SHOAL_COMPAT: 'openwhisk',
        SHOAL_HEARTBEAT_MS: '1',
        SHOAL_NATS_ULR: 'nats://a:4222',
        SHOAL_NATS_URL: 'http://a:4222',
      }),
    (error: unknown) =>
      Fault.is(error, 'CONFIG_INVALID') &&
      [
        'SHOAL_API_PORT=http',
        'SHOAL_COMPAT=openwhisk',
        'SHOAL_HEARTBEAT_MS=1',
        'SHOAL_NATS_URL=http://a:4222',
        'SHOAL_NATS_ULR is not a setting; was SHOAL_NATS_URL meant?',
      ].every((part) => error.message.includes(part)),
  )
})

it('settings of other parts are no misspellings', () => {
  loadControllerConfig({ SHOAL_HTTP_PORT: '8000', SHOAL_AGENT_DATA: '/a', SHOAL_NATS_PORT: '4222' })
})
