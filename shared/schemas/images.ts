import { Type, type Static } from 'typebox'
import { Arch, Runtime } from './names.ts'

/**
 * `images.json` in the data folder: what this host can run, written by the bootstrap, read by agent and controller.
 *
 * Docker images are named by id (`sha256:...`), never by tag. `run` starts handlers, `build` is the runtime's builder
 * container (dependency installation). `process` is the command line of the runner for the process engine. A runtime that
 * this host cannot run is absent.
 */
export const Images = Type.Object({
  arch: Arch,
  docker: Type.Optional(
    Type.Partial(Type.Record(Runtime, Type.Object({ run: Type.String(), build: Type.String() }))),
  ),
  process: Type.Optional(
    Type.Partial(
      Type.Record(Runtime, Type.Object({ command: Type.Array(Type.String(), { minItems: 1 }) })),
    ),
  ),
})
export type Images = Static<typeof Images>
