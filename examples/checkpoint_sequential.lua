--- checkpoint_sequential: a list of functions, split into segments of nearly
-- equal size. Few segments come back in large pieces, many keep many ends.
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local nn = rp.nn

rp.manual_seed(1)
local stages = {}
for i = 1, 12 do
  stages[i] = nn.Sequential {nn.Linear(128, 128), nn.Tanh()}
end
local x = rp.randn(4096, 128)

print 'segments   peak (MiB)'
for _, segments in ipairs {1, 2, 3, 4, 6} do
  local loss = rp.checkpoint_sequential(stages, segments, x):mean()
  local peak = loss:plan().peak_bytes
  print(('%8d   %10.1f'):format(segments, peak / 2 ^ 20))
end
