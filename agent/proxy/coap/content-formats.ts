import { OCTETS, TEXT } from '../content-type.ts'

/** Content-Format numbers (IANA) and their media types; the first media type of a number is what functions see. */
const FORMATS: readonly (readonly [number, string])[] = [
  [0, TEXT],
  [16, 'application/cose; cose-type="cose-encrypt0"'],
  [40, 'application/link-format'],
  [41, 'application/xml'],
  [42, OCTETS],
  [47, 'application/exi'],
  [50, 'application/json'],
  [51, 'application/json-patch+json'],
  [52, 'application/merge-patch+json'],
  [60, 'application/cbor'],
  [61, 'application/cwt'],
  [62, 'application/multipart-core'],
  [63, 'application/cbor-seq'],
  [110, 'application/senml+json'],
  [111, 'application/sensml+json'],
  [112, 'application/senml+cbor'],
  [113, 'application/sensml+cbor'],
  [256, 'application/coap-group+json'],
  [257, 'application/concise-problem-details+cbor'],
  [310, 'application/senml+xml'],
  [311, 'application/sensml+xml'],
  [432, 'application/td+json'],
  [10_000, 'application/vnd.ocf+cbor'],
  [11_542, 'application/vnd.oma.lwm2m+tlv'],
  [11_543, 'application/vnd.oma.lwm2m+json'],
  [11_544, 'application/vnd.oma.lwm2m+cbor'],
  [20_000, 'text/css'],
  [20_001, 'text/html'],
  [20_002, 'text/javascript'],
  [21, 'image/gif'],
  [22, 'image/jpeg'],
  [23, 'image/png'],
  [30_000, 'image/svg+xml'],
]

const typeByNumber = new Map(FORMATS)
const numberByType = new Map(FORMATS.map(([number, type]) => [type, number]))
/** By media type alone; with parameters we do not know, `; charset=utf-8` say, the type still says what it is. */
const numberByEssence = new Map(FORMATS.map(([number, type]) => [essenceOf(type), number]))

/** The media type of a Content-Format number; `undefined` when it is none that we know. */
export function contentTypeOf(format: number): string | undefined {
  return typeByNumber.get(format)
}

/** The Content-Format number of a media type; `undefined` when it has none. */
export function contentFormatOf(contentType: string): number | undefined {
  return numberByType.get(contentType) ?? numberByEssence.get(essenceOf(contentType))
}

function essenceOf(contentType: string): string {
  return contentType.split(';', 1)[0]?.trim().toLowerCase() ?? ''
}
