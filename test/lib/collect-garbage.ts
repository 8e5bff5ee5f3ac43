import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')

const gc: () => void = runInNewContext('gc')

/**
 * Looks at all memory, as the engine itself does when it has too little, and returns once what it found is given up: the bytes of
 * buffers are freed beside the program after a look, and the next look waits for that.
 */
export function collectGarbage(): void {
  gc()
  gc()
}
