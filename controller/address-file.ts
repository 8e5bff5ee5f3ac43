import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ADDRESS_FILE, type ControllerAddress } from '#shared/schemas/address.ts'

/** Leaves word in the data folder where this controller listens: whoever finds the token there finds the address, too. */
export async function writeAddress(folder: string, address: ControllerAddress): Promise<void> {
  const file = join(folder, ADDRESS_FILE)
  await writeFile(`${file}.new`, `${JSON.stringify(address)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}
