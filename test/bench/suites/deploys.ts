import { functionFolder } from '#test/function-folder.ts'
import type { ProductScope } from '#test/product.ts'
import { spread } from '../harness/alternate.ts'
import type { Plan, Question, Row } from '../harness/model.ts'
import { ECHO, echoProducts } from './echo-products.ts'

const GIVE_UP_MS = 60_000

/** From `shoal fn deploy` to the first answer: a new name each time, with a source that the builder has seen already. */
export async function deploys(plan: Plan): Promise<Question[]> {
  await using products = await echoProducts(plan)
  const rows: Row[] = []
  for (const [runtime, files] of Object.entries(ECHO)) {
    for (const { suffix, product } of products.all) {
      const times: number[] = []
      for (let round = 0; round < plan.rounds; round++) {
        times.push(await firstAnswer(product, `first-${runtime}-${round}`, files))
      }
      rows.push({
        group: 'the CLI’s own start included',
        name: `${runtime}${suffix}`,
        ...spread(times),
      })
    }
  }
  const title = 'fn deploy (already built) to first answer'
  return [{ id: 'deploys', title, unit: 'ms', better: 'less', rows }]
}

async function firstAnswer(
  product: ProductScope,
  name: string,
  files: Readonly<Record<string, string>>,
): Promise<number> {
  await using folder = await functionFolder(files)
  const startedAtMs = performance.now()
  const deploying = product.shoal('fn', 'deploy', folder.path, '--name', name)
  for (;;) {
    const answer = await fetch(product.url(`/${name}`), { method: 'POST', body: 'x' })
    await answer.arrayBuffer()
    if (answer.status === 200) break
    if (performance.now() - startedAtMs > GIVE_UP_MS) throw new Error(`${name} does not answer`)
  }
  const tookMs = Math.round(performance.now() - startedAtMs)
  await deploying
  await product.shoal('fn', 'rm', name)
  return tookMs
}
