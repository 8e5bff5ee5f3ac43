import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')

/** Looks at all memory, as the engine itself does when it has too little. */
export const collectGarbage: () => void = runInNewContext('gc')
