// Counts the primes up to 10,000, or up to the number in the body.
const STANDARD = 10_000
const LIMIT = 10_000_000

module.exports = (req, res) => {
  const text = String(req.body ?? '').trim()
  const limit = text === '' ? STANDARD : Number(text)
  if (!Number.isInteger(limit) || limit < 0 || limit > LIMIT) {
    res.status(400).send(`a whole number from 0 to ${LIMIT}, please\n`)
    return
  }
  res.send(`Found ${primesUpTo(limit).length} primes up to ${limit}\n`)
}

function primesUpTo(limit) {
  const composite = new Uint8Array(limit + 1)
  const primes = []
  for (let number = 2; number <= limit; number += 1) {
    if (composite[number] === 1) continue
    primes.push(number)
    for (let multiple = number * number; multiple <= limit; multiple += number) {
      composite[multiple] = 1
    }
  }
  return primes
}
