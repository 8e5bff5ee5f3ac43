/**
 * The messages of the two services of functions, read from requests and written as frames.
 * Depends on proto/, proxy/grpc/server and @bufbuild/protobuf.
 * Used by proxy/grpc.
 */
export { answerFrame, type InvokeAnswer, textFrame } from './answers.ts'
export { type DataCall, decode, type InvokeCall, readData, readInvokeRequest } from './requests.ts'
