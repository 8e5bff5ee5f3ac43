/** llhttp compiled to WebAssembly, as undici carries it for its own client. */
declare module 'undici/lib/llhttp/llhttp-wasm.js' {
  const wasm: Buffer
  export default wasm
}

/** What we use of it: TypeScript declares it only together with a browser's document. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array)
    static exports(module: Module): readonly { readonly name: string }[]
  }
  class Instance {
    constructor(module: Module, imports: Record<string, Record<string, Function>>)
    readonly exports: object
  }
}
