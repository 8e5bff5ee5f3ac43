const SLAB_BYTES = 128 * 1024
const KEPT_MAX = 4

const kept: Buffer[] = []

/**
 * Scratch memory of all writers of the process: a slab belongs to the writer that took it until it gives it back, so the
 * memory needed follows the writers busy at one moment, not the connections open.
 */
export const slabs = {
  take(bytesMin: number): Buffer {
    if (bytesMin > SLAB_BYTES) return Buffer.allocUnsafeSlow(bytesMin)
    return kept.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
  },

  give(slab: Buffer): void {
    if (slab.length === SLAB_BYTES && kept.length < KEPT_MAX) kept.push(slab)
  },
}
