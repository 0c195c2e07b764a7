--- A strategy of your own, in a file: strategies/largest_first.lua recomputes
-- the layers that keep most, until half of what is kept is saved.
-- The same file works as luajit train.lua --ckpt examples/strategies/...
dofile((arg[0]:match '^(.*/)[^/]*$' or './') .. 'setup.lua')

local rp = require 'reprise'
local nn = rp.nn

rp.manual_seed(1)
local widths = {64, 64, 512, 64, 256, 64}
local model = nn.Layers(#widths, function(i)
  return nn.Sequential {nn.Linear(64, widths[i]), nn.Tanh(),
                        nn.Linear(widths[i], 64), nn.Tanh()}
end)
local opt = rp.optim.SGD(model:parameters(), {lr = 1e-2})
local loss = model(rp.randn(2048, 64)):mean()

local file = arg[0]:gsub('[^/]*$', '') .. 'strategies/largest_first.lua'
local none = opt:plan(loss, {ckpt = 'none'})
local mine = opt:plan(loss, {ckpt = file})

print(('none:          peak %5.1f MiB'):format(none.peak_bytes / 2 ^ 20))
print(('largest first: peak %5.1f MiB, %d segments'):format(
  mine.peak_bytes / 2 ^ 20, mine.n_segments))
assert(mine.peak_bytes < none.peak_bytes and mine.n_segments == 2)
