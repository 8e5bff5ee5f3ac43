import {
  create,
  createRegistry,
  type DescFile,
  type DescService,
  type Registry,
  toBinary,
} from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import {
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from '#proto/index.ts'
import { decode } from './messages/index.ts'
import {
  frameOf,
  type MessageConsumer,
  type Method,
  type ServerCall,
  STATUS,
} from './server/index.ts'

const CALLS_MAX = 256
/** A question is a name. */
const QUESTION_BYTES_MAX = 4 * 1024

class NotFound extends Error {}

/**
 * `grpc.reflection.v1.ServerReflection` (its alpha has the same messages): tells clients such as grpcurl what the services look like. The
 * descriptors are those in the generated code; reading .proto files would not work in a bundle.
 */
export class ReflectionService {
  readonly #services: readonly DescService[]
  readonly #files = new Map<string, DescFile>()
  readonly #types: Registry
  readonly #calls = new Set<ServerCall>()

  constructor(files: readonly DescFile[]) {
    for (const file of files) this.#addFile(file)
    this.#services = files.flatMap((file) => file.services)
    this.#types = createRegistry(...this.#files.values())
  }

  get methods(): Readonly<Record<string, Method>> {
    const open = (call: ServerCall) => this.#serve(call)
    return {
      serverReflectionInfo: { kind: 'stream', messageBytesMax: QUESTION_BYTES_MAX, open },
    }
  }

  /** Ends all calls, so that they do not hold up the shutdown. */
  stop(): void {
    for (const call of this.#calls) call.finish()
  }

  #addFile(file: DescFile): void {
    // Under the name that others import it by.
    this.#files.set(`${file.name}.proto`, file)
    for (const dependency of file.dependencies) this.#addFile(dependency)
  }

  #serve(call: ServerCall): MessageConsumer {
    if (this.#calls.size >= CALLS_MAX) {
      call.fail({ code: STATUS.resourceExhausted, message: 'too many reflection calls' })
    } else {
      this.#calls.add(call)
      call.onOver = () => this.#calls.delete(call)
    }
    return {
      message: (bytes) => this.#take(call, bytes),
      end: () => call.finish(),
    }
  }

  /** The caller's next question waits until it has taken this answer. */
  #take(call: ServerCall, bytes: Buffer): void {
    if (call.send(this.#answer(decode(ServerReflectionRequestSchema, bytes)))) return
    call.pause()
    call.untilDrained().then(
      () => call.resume(),
      () => undefined, // The call is over.
    )
  }

  #answer(question: ServerReflectionRequest): Buffer {
    const answer = create(ServerReflectionResponseSchema, {
      validHost: question.host,
      originalRequest: question,
      messageResponse: this.#response(question),
    })
    return frameOf(toBinary(ServerReflectionResponseSchema, answer))
  }

  #response({ messageRequest }: ServerReflectionRequest) {
    try {
      switch (messageRequest.case) {
        case 'listServices': {
          const service = this.#services.map(({ typeName }) => ({ name: typeName }))
          return { case: 'listServicesResponse' as const, value: { service } }
        }
        case 'fileByFilename':
          return filesResponse(this.#fileByName(messageRequest.value))
        case 'fileContainingSymbol':
          return filesResponse(this.#fileOfSymbol(messageRequest.value))
        case 'allExtensionNumbersOfType':
          // None of our types can be extended: proto3 has no extensions.
          return {
            case: 'allExtensionNumbersResponse' as const,
            value: { baseTypeName: this.#typeName(messageRequest.value) },
          }
        case 'fileContainingExtension':
        case undefined:
        default:
          throw new NotFound('not found')
      }
    } catch (error) {
      if (!(error instanceof NotFound)) throw error
      const value = { errorCode: STATUS.notFound, errorMessage: error.message }
      return { case: 'errorResponse' as const, value }
    }
  }

  #fileByName(name: string): DescFile {
    const file = this.#files.get(name)
    if (file === undefined) throw new NotFound(`no file ${name}`)
    return file
  }

  #typeName(name: string): string {
    if (this.#types.getMessage(name) === undefined) throw new NotFound(`no message ${name}`)
    return name
  }

  /** A message, enum or service; or a method, field or enum value inside one. */
  #fileOfSymbol(symbol: string): DescFile {
    const type = this.#types.get(symbol)
    if (type !== undefined) return type.file
    const dot = symbol.lastIndexOf('.')
    const parent = this.#types.get(symbol.slice(0, Math.max(0, dot)))
    const name = symbol.slice(dot + 1)
    const members =
      parent?.kind === 'service'
        ? parent.methods
        : parent?.kind === 'message'
          ? parent.fields
          : parent?.kind === 'enum'
            ? parent.values
            : []
    if (parent === undefined || !members.some((member) => member.name === name)) {
      throw new NotFound(`no symbol ${symbol}`)
    }
    return parent.file
  }
}

/** A file with all it imports, itself first. */
function filesResponse(file: DescFile) {
  const all = new Set<DescFile>()
  const add = (one: DescFile): void => {
    all.add(one)
    one.dependencies.forEach(add)
  }
  add(file)
  const fileDescriptorProto = [...all].map(({ proto }) =>
    toBinary(FileDescriptorProtoSchema, proto),
  )
  return { case: 'fileDescriptorResponse' as const, value: { fileDescriptorProto } }
}
