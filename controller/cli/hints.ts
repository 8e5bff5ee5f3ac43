import type { FaultCode } from '#shared/fault.ts'

/** What a person can do about it, where the message itself does not say. */
const HINTS: Partial<Record<FaultCode, string>> = {
  CONTROLLER_UNREACHABLE: 'is it running? `npm start` starts it; `shoal doctor` checks all parts',
  UNAUTHENTICATED:
    'the token is in <data folder>/controller/api-token of the controller; pass --token or SHOAL_API_TOKEN',
  FUNCTION_UNKNOWN: '`shoal fn ls` lists the functions',
  RELEASE_UNKNOWN: '`shoal fn show <name>` lists the releases',
  ROLLOUT_UNKNOWN: '`shoal rollout ls` lists the rollouts',
  NODE_UNKNOWN: '`shoal node ls` lists the nodes',
  NO_NODE_SELECTED: '`shoal node ls` shows the labels that --nodes can select by; `*` selects all',
  NODE_OFFLINE: '`shoal node ls` shows which nodes are online',
  NODE_TIMEOUT: 'try again; `shoal node show <id>` tells how the node is',
  RUNTIME_UNKNOWN: 'pass --runtime nodejs, python3 or binary',
  BUILD_FAILED:
    "the lines above are the tool's own; mend the dependency and deploy again. Nothing was changed",
  IMAGE_MISSING: '`npm start` makes the images',
  ENGINE_UNAVAILABLE: 'is Docker running? `shoal doctor` checks it',
  FUNCTION_SATURATED: 'try again in a moment',
  STORAGE: 'free some space; `shoal doctor` shows how much is left',
  INTERNAL:
    'the log of the controller (<data folder>/log/controller.log) has the details; --debug shows where it came from',
}

export function hintFor(code: FaultCode): string | undefined {
  return HINTS[code]
}
