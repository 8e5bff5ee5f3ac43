-- POSTs as many bytes as the argument behind the URL says, default 100.
wrk.method = "POST"

init = function(args)
  wrk.body = string.rep("x", tonumber(args[1] or "100"))
end

done = function(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format(
    '{"callsPerSecond":%f,"p50Ms":%f,"p99Ms":%f,"failed":%d}\n',
    summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end
