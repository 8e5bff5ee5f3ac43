import type { NodeView } from '#shared/schemas/api.ts'

export interface CallExamplesInput {
  readonly name: string
  /** Of the controller. */
  readonly url: string
  /** One that serves the function. */
  readonly node: NodeView | undefined
  /** How many serve it. */
  readonly nodes: number
}

/** Lines to copy that call a function: through the controller, and at a node as devices do. Pure. */
export function callExamples({ name, url, node, nodes }: CallExamplesInput): string[] {
  const lines = ['call it:', `  shoal fn invoke ${name} --data 'text'`]
  const ports = node?.inventory?.ports
  if (node === undefined || ports === undefined) return lines
  // With one node beside the controller, that is where it is; elsewhere only its own network knows its address.
  const local = nodes === 1 && ['127.0.0.1', 'localhost', '[::1]'].includes(new URL(url).hostname)
  const host = local ? '127.0.0.1' : `<address of ${node.id}>`
  const at = (port: number, standard: number) => (port === standard ? host : `${host}:${port}`)
  if (ports.http > 0) lines.push(`  curl --data 'text' http://${at(ports.http, 80)}/${name}`)
  if (ports.coap > 0) {
    lines.push(`  coap-client -m post -e 'text' coap://${at(ports.coap, 5683)}/${name}`)
  }
  return lines
}
