/**
 * Bits of the code of each byte, as digits in base 36 (RFC 7541, appendix B). The codes themselves follow from the lengths: they are
 * given out in order of length, then of value, and the last of them is the end mark's.
 */
const LENGTHS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca' +
  'd67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq'
const END_MARK = 256
const END_MARK_BITS = 30

/** Tables of 256 entries, one per byte of a code: what the next eight bits mean. */
const TABLE_ENTRIES = 256
const TABLE = buildTable()

/**
 * An entry: 0 where no code is, below 0 the number of the next table, else the symbol (from bit 8 on) and how many of
 * these eight bits are its code's.
 */
function buildTable(): Int32Array {
  const tables: Int32Array[] = [new Int32Array(TABLE_ENTRIES)]
  const symbols = Array.from(LENGTHS, (digit, symbol) => ({
    symbol,
    bits: Number.parseInt(digit, 36),
  }))
  symbols.push({ symbol: END_MARK, bits: END_MARK_BITS })
  let code = 0
  let before = 0
  for (const { symbol, bits } of symbols.toSorted(
    (a, b) => a.bits - b.bits || a.symbol - b.symbol,
  )) {
    code <<= bits - before
    before = bits
    addCode(tables, symbol, code, bits)
    code += 1
  }
  const joined = new Int32Array(tables.length * TABLE_ENTRIES)
  for (const [index, table] of tables.entries()) joined.set(table, index * TABLE_ENTRIES)
  return joined
}

function addCode(tables: Int32Array[], symbol: number, code: number, bits: number): void {
  let table = tables[0]
  let left = bits
  for (; left > 8 && table !== undefined; left -= 8) {
    const byte = (code >>> (left - 8)) & 0xff
    let next = -(table[byte] ?? 0)
    if (next === 0) {
      next = tables.push(new Int32Array(TABLE_ENTRIES)) - 1
      table[byte] = -next
    }
    table = tables[next]
  }
  // All bytes that begin with what is left of the code.
  const first = (code << (8 - left)) & 0xff
  table?.fill((symbol << 8) | left, first, first + (1 << (8 - left)))
}

/** The text (one character a byte) of `bytes[start, end)`; `undefined` when it is not properly coded. */
export function decodeHuffman(bytes: Buffer, start: number, end: number): string | undefined {
  let text = ''
  let table = 0
  let bits = 0
  let bitCount = 0
  for (let at = start; at < end; at += 1) {
    bits = (bits << 8) | (bytes[at] ?? 0)
    bitCount += 8
    while (bitCount >= 8) {
      const entry = TABLE[table + ((bits >>> (bitCount - 8)) & 0xff)] ?? 0
      if (entry > 0) {
        const symbol = entry >>> 8
        if (symbol === END_MARK) return undefined
        text += String.fromCharCode(symbol)
        bitCount -= entry & 0xff
        table = 0
      } else {
        table = -entry * TABLE_ENTRIES
        bitCount -= 8
      }
    }
  }
  // A code of less than eight bits may be left, then the first bits of the end mark: ones.
  while (bitCount > 0) {
    const entry = TABLE[table + ((bits << (8 - bitCount)) & 0xff)] ?? 0
    if (entry <= 0 || (entry & 0xff) > bitCount) break
    text += String.fromCharCode(entry >>> 8)
    bitCount -= entry & 0xff
    table = 0
  }
  const padding = (1 << bitCount) - 1
  return table === 0 && (bits & padding) === padding ? text : undefined
}
