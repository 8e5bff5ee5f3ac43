/**
 * Handlers as sandboxed Docker containers; the only folder that imports dockerode.
 * Depends on shared, ../engine.ts and dockerode. Used by agent/handlers/index.ts.
 */
export { DockerEngine, type DockerEngineOptions } from './docker-engine.ts'
export { LABELS, containerName, containerOptions } from './container-options.ts'
