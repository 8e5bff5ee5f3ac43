import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { it } from 'node:test'
import type { Command } from 'commander'
import { buildProgram, EXIT } from '#controller/cli/index.ts'

const DOCUMENT = readFileSync(new URL('../../controller/cli/JSON.md', import.meta.url), 'utf8')

const program = buildProgram({
  out: { tty: false, columns: 80, write() {}, note() {} },
  stdin: Readable.from([]),
  env: {},
  signal: new AbortController().signal,
  nowMs: () => 0,
  exitWith() {},
})

function leaves(command: Command, path: string): { path: string; command: Command }[] {
  if (command.commands.length === 0) return [{ path, command }]
  return command.commands.flatMap((child) => leaves(child, `${path} ${child.name()}`))
}

it('JSON.md has one section for each command with --json, and no other', () => {
  const commands = leaves(program, 'shoal')
  assert.ok(commands.length >= 15, `${commands.length} commands seen`)
  const json = commands
    .filter(({ command }) => command.options.some((option) => option.long === '--json'))
    .map(({ path }) => path)
  const sections = [...DOCUMENT.matchAll(/^## (.+)$/gm)].map(([, title]) => title ?? '')
  assert.deepEqual(sections.toSorted(), json.toSorted())
})

it('no option of a command has the name of an option of the program, which would take it away', () => {
  const taken = new Set(program.options.map((option) => option.long))
  assert.ok(taken.size >= 4)
  for (const { path, command } of leaves(program, 'shoal')) {
    const names = command.options.map((option) => option.long)
    assert.deepEqual(
      names.filter((name) => taken.has(name)),
      [],
      path,
    )
  }
})

it('every command says what it does, and so does each of its options', () => {
  for (const { path, command } of leaves(program, 'shoal')) {
    assert.notEqual(command.description(), '', path)
    for (const option of command.options)
      assert.notEqual(option.description, '', `${path} ${option.long}`)
  }
})

it('the help of the program names every exit code', () => {
  let help = ''
  program.configureOutput({ writeOut: (text) => (help += text) })
  program.outputHelp()
  for (const code of Object.values(EXIT)) assert.match(help, new RegExp(`^  ${code}  `, 'm'))
})
