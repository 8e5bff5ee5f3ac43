import { Agent, request } from 'node:http'

export interface LoadReport {
  calls: number
  /** Anything but a 200 with an accepted body; the first few are kept to be shown. */
  failures: string[]
  failed: number
  /** How often each body came. */
  readonly bodies: Map<string, number>
}

export interface RunningLoad {
  readonly report: LoadReport
  /** Ends after the calls in flight and resolves to the report. */
  stop(): Promise<LoadReport>
}

/** Calls `url` over `connections` keep-alive connections, each again as soon as it was answered, until stopped. */
export function httpLoad(url: string, connections: number): RunningLoad {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const report: LoadReport = { calls: 0, failures: [], failed: 0, bodies: new Map() }
  const control = { stopping: false }
  const fail = (text: string): void => {
    report.failed += 1
    if (report.failures.length < 10) report.failures.push(text)
  }
  const worker = async (): Promise<void> => {
    while (!control.stopping) {
      report.calls += 1
      try {
        const { status, body } = await post(agent, url)
        report.bodies.set(body, (report.bodies.get(body) ?? 0) + 1)
        if (status !== 200) fail(`${status} ${body}`)
      } catch (error) {
        fail(String(error))
      }
    }
  }
  const workers = Array.from({ length: connections }, worker)
  return {
    report,
    async stop() {
      control.stopping = true
      await Promise.all(workers)
      agent.destroy()
      return report
    },
  }
}

function post(agent: Agent, url: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: 'POST', agent, timeout: 60_000 }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
      )
      answer.on('error', reject)
    })
    sent.on('error', reject)
    sent.on('timeout', () => sent.destroy(new Error('no answer within 60 s')))
    sent.end('x')
  })
}
