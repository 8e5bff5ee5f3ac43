import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Value } from 'typebox/value'
import { Fault } from '#shared/fault.ts'

const PROBLEMS_SHOWN = 5

/**
 * Checks requests by their TypeBox schemas. Text of paths and queries is converted to the schema's types, with defaults; a
 * JSON body is taken as it is. What does not fit is refused by the field's name, e.g. `settings.replicas`.
 */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const validator = Compile(schema)
  return (input: unknown) => {
    const value =
      httpPart === 'body'
        ? (input ?? {})
        : Value.Convert(schema, Value.Default(schema, structuredClone(input)))
    if (validator.Check(value)) return { value }
    const fields = new Set<string>()
    const problems = validator.Errors(value).map((problem) => {
      const field = fieldOf(httpPart, problem)
      fields.add(field)
      return `${field} ${problem.message}`
    })
    const message = [...new Set(problems)].slice(0, PROBLEMS_SHOWN).join('; ')
    const details = { fields: [...fields] }
    return { error: new Fault('REQUEST_INVALID', message, details) }
  }
}

interface Problem {
  readonly keyword: string
  readonly instancePath: string
  readonly params: object
}

function fieldOf(httpPart: string | undefined, { keyword, instancePath, params }: Problem): string {
  const path = instancePath.split('/').slice(1)
  // A missing or surplus property is named by the problem's parameters, not by its path.
  for (const key of ['requiredProperties', 'additionalProperties']) {
    const names: unknown = Reflect.get(params, key)
    if (Array.isArray(names) && keyword !== 'type') path.push(names.join(', '))
  }
  if (path.length > 0) return path.join('.')
  return httpPart ?? 'request'
}
