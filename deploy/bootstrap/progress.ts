/**
 * Reads an engine's progress stream to its end and fails when the engine says that the work failed: it answers 200 before it
 * starts, so a build or pull that fails later is one line with an `error` key (docker-modem's `followProgress` calls that a
 * success). `onLine` gets what people want to see.
 * @throws Error in the engine's own words, with the last lines before them
 */
export async function drainProgress(
  stream: NodeJS.ReadableStream,
  onLine: (text: string) => void,
): Promise<void> {
  stream.setEncoding('utf8')
  const last: string[] = []
  let rest = ''
  const read = (line: string): void => {
    if (line.trim() === '') return
    const event: { error?: unknown; stream?: unknown; status?: unknown } = JSON.parse(line)
    const text = typeof event.stream === 'string' ? event.stream.trimEnd() : event.status
    if (typeof text === 'string' && text !== '') {
      onLine(text)
      last.push(text)
      if (last.length > 15) last.shift()
    }
    if (typeof event.error === 'string') throw new Error([...last, event.error].join('\n'))
  }
  for await (const chunk of stream) {
    const lines = (rest + String(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) read(line)
  }
  read(rest)
}
