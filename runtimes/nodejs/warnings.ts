/** A folder without a package.json whose .js file has ESM syntax: how a first function looks, and no mistake. */
const USUAL = 'MODULE_TYPELESS_PACKAGE_JSON'

/** Node's warnings become log lines of the function, except the one that would greet every newcomer. */
export function printWarnings(): void {
  process.removeAllListeners('warning')
  process.on('warning', (warning) => {
    if (Reflect.get(warning, 'code') === USUAL) return
    process.stderr.write(`${warning.name}: ${warning.message}\n`)
  })
}
