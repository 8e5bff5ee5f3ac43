#!/bin/sh
# Starts an agent with the settings for memory that test/bench/cost.ts and test/bench/soak.ts found best for a small host:
#
#   agent-memory.sh <agent/main.ts or agent.mjs> [arguments]
#
# NODE names another Node than the first on PATH. What the environment has set already stays as it is; LD_PRELOAD= keeps the C
# library's allocator, NODE_COMPILE_CACHE= compiles at every start.

# jemalloc, where the host has it (Debian: libjemalloc2), gives back what is not used a second later, holes left by V8's compiler included.
# From 5.3 on each thread keeps a few blocks of each size up to 64 KiB, which Node takes for each datagram: a call over CoAP costs a sixth
# less, an idle agent a MiB more (test/bench/coap.ts, cost.ts). A shell tells whether the library can be loaded, and knows the settings.
quiet() {
  [ -z "$(LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF="$1" /bin/sh -c : 2>&1)" ]
}
decay=background_thread:true,narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0
blocks=tcache:true,lg_tcache_max:16,tcache_nslots_small_min:1,tcache_nslots_small_max:4,tcache_nslots_large:2
if [ -z "${LD_PRELOAD+set}" ]; then
  for settings in "$decay,$blocks" "$decay,tcache:false"; do
    quiet "$settings" || continue
    export LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF="${MALLOC_CONF-$settings}"
    break
  done
fi
# Else the C library keeps a pool per thread, and holes in them for good: under mixed load an agent grows by hundreds of MiB an hour.
# With these it does not. Mappings only from 128 KiB on would make calls over CoAP cheaper, for more memory after load.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX-1}"
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_-16384}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_-131072}"

# What Node has compiled is kept in the agent's own folder, which nobody else may write to: later starts are quicker and take less memory.
# Only where there is one: --help and --print-config make no folders.
data="${SHOAL_AGENT_DATA:-${SHOAL_DATA:-$HOME/.local/share/shoal}/agent}"
if [ -z "${NODE_COMPILE_CACHE+set}" ] && [ -d "$data" ]; then
  export NODE_COMPILE_CACHE="$data/compiled"
fi

# Young generation: with 256 calls in flight 2 MiB cost an agent a seventh of its time for garbage, 4 MiB half of that, for 8 to 12 MiB
# more under load. With the standard 16 MiB (three times, under load) garbage that has its bytes outside of the heap, such as bodies,
# waits longer. The collector: for giving memory back when the work is over.
exec "${NODE:-node}" --max-semi-space-size=4 --expose-gc "$@"
