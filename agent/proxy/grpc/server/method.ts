import type { ServerCall } from './server-call.ts'

/** What a service does with the calls of one of its methods. What is thrown ends the call as `INTERNAL`. */
export type Method =
  | {
      /** The request is one message. */
      readonly kind: 'message'
      handle(call: ServerCall, message: Buffer): void
    }
  | {
      /** The request is any number of messages, and no time is too long for it. */
      readonly kind: 'stream'
      /** Of each: one may stay unfinished for as long as its caller likes. */
      readonly messageBytesMax: number
      open(call: ServerCall): MessageConsumer
    }

export interface MessageConsumer {
  message(bytes: Buffer): void
  end(): void
}
