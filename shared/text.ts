const MARK = '...'

/**
 * Text of at most so many UTF-16 code units that has a form in UTF-8: what is cut ends with `...`, no pair is split, and a lone
 * surrogate becomes U+FFFD. For whatever text of a function or a peer goes on to somebody else: encoders throw at lone surrogates.
 *
 * @param charsMax - at least 3
 */
export function cutText(text: string, charsMax: number): string {
  if (text.length <= charsMax) return text.toWellFormed()
  const end = charsMax - MARK.length
  const splits = isHighSurrogate(text.charCodeAt(end - 1))
  return `${text.slice(0, splits ? end - 1 : end).toWellFormed()}${MARK}`
}

function isHighSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff
}
