type Method = (...values: readonly unknown[]) => unknown

/**
 * Gives `light` every member of `real` that it does not have itself: each is answered by the real object that `realOf` makes of
 * the light one. `light` then also counts as an instance of the real class.
 */
export function delegate(light: object, real: object, realOf: (value: object) => object): void {
  Object.setPrototypeOf(light, real)
  for (const [name, member] of Object.entries(Object.getOwnPropertyDescriptors(real))) {
    if (Object.hasOwn(light, name)) continue
    if (member.get !== undefined) {
      Object.defineProperty(light, name, {
        ...member,
        get(this: object): unknown {
          return Reflect.get(real, name, realOf(this))
        },
      })
    } else if (isMethod(member.value)) {
      const method = member.value
      Object.defineProperty(light, name, {
        ...member,
        value(this: object, ...values: readonly unknown[]): unknown {
          return Reflect.apply(method, realOf(this), values)
        },
      })
    }
  }
}

function isMethod(value: unknown): value is Method {
  return typeof value === 'function'
}
