import assert from 'node:assert/strict'
import { coapClient, grpcCall } from './clients.ts'
import type { NodeUnderTest } from './node-under-test.ts'
import { memoryOf } from './process-facts.ts'

/** Twice what is promised of an idle machine: tests share theirs with builds and with each other. */
const START_MS_MAX = 1_000
const START_TRIES = 5
/** Above what it takes by a quarter: a bundle that has swallowed a second copy of something is above this. */
const RSS_MIB_MAX = 110

/** Starts the agent by `command` and calls it by every protocol; fails when it starts slowly every time, or is grossly large. */
export async function startsWell(node: NodeUnderTest, command: readonly string[]): Promise<void> {
  const startsMs: number[] = []
  for (let n = 0; n < START_TRIES && Math.min(...startsMs) > START_MS_MAX / 2; n++) {
    await using agent = await node.start(command)
    startsMs.push(agent.openMs)
    const { rssMiB } = memoryOf(agent.pid)
    assert.ok(rssMiB < RSS_MIB_MAX, `${rssMiB} MiB`)
    const uri = `coap://127.0.0.1:${agent.ports.coap}/${node.functions[1]}`
    assert.match((await coapClient(uri, { payload: 'by coap' })).stdout, /by coap/)
    const request = { function: node.functions[2], payload: Buffer.from('by grpc') }
    const path = 'shoal.v1.Functions/Invoke'
    const answer = await grpcCall(`127.0.0.1:${agent.ports.grpc}`, path, request)
    assert.equal(answer.payload.toString(), 'by grpc')
    await agent.kill('SIGTERM')
  }
  // The quickest counts: what else runs on this machine only adds.
  assert.ok(Math.min(...startsMs) < START_MS_MAX, `started in ${startsMs.join(', ')} ms`)
}
