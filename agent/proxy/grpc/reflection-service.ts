import {
  create,
  createRegistry,
  type DescFile,
  type DescService,
  type Registry,
  toBinary,
} from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { type ServerDuplexStream, status, type UntypedServiceImplementation } from '@grpc/grpc-js'
import { type ServerReflectionRequest, ServerReflectionResponseSchema } from '#proto/index.ts'

type Call = ServerDuplexStream<ServerReflectionRequest, unknown>

const CALLS_MAX = 256

class NotFound extends Error {}

/**
 * `grpc.reflection.v1.ServerReflection` (its alpha has the same messages): tells clients such as grpcurl what the services look like. The
 * descriptors are those in the generated code; reading .proto files would not work in a bundle.
 */
export class ReflectionService {
  readonly #services: readonly DescService[]
  readonly #files = new Map<string, DescFile>()
  readonly #types: Registry
  readonly #calls = new Set<Call>()

  constructor(files: readonly DescFile[]) {
    for (const file of files) this.#addFile(file)
    this.#services = files.flatMap((file) => file.services)
    this.#types = createRegistry(...this.#files.values())
  }

  get implementation(): UntypedServiceImplementation {
    return { serverReflectionInfo: (call: Call) => this.#serve(call) }
  }

  /** Ends all calls, so that they do not hold up the shutdown. */
  stop(): void {
    for (const call of this.#calls) call.end()
    this.#calls.clear()
  }

  #addFile(file: DescFile): void {
    // Under the name that others import it by.
    this.#files.set(`${file.name}.proto`, file)
    for (const dependency of file.dependencies) this.#addFile(dependency)
  }

  #serve(call: Call): void {
    if (this.#calls.size >= CALLS_MAX) {
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: 'too many reflection calls' })
      return
    }
    this.#calls.add(call)
    call.on('cancelled', () => this.#calls.delete(call))
    call.on('data', (question: ServerReflectionRequest) => {
      if (!call.write(this.#answer(question))) {
        call.pause()
        call.once('drain', () => call.resume())
      }
    })
    call.on('end', () => {
      this.#calls.delete(call)
      call.end()
    })
  }

  #answer(question: ServerReflectionRequest) {
    const messageResponse = this.#response(question)
    return create(ServerReflectionResponseSchema, {
      validHost: question.host,
      originalRequest: question,
      messageResponse,
    })
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
      const value = { errorCode: status.NOT_FOUND, errorMessage: error.message }
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
