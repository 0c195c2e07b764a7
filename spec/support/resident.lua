--- Trains two steps of a wide MLP and prints the plan's peak beside what the
-- process itself grew by. Run by contract_spec.lua, from the repository's
-- root: luajit spec/support/resident.lua SPEC

package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path

local rp = require 'reprise'
local nn = rp.nn

local function status(field)
  for line in io.lines '/proc/self/status' do
    local kib = line:match('^' .. field .. ':%s+(%d+) kB')
    if kib then return tonumber(kib) * 1024 end
  end
end

local layers = {}
for _ = 1, 8 do
  layers[#layers + 1] = nn.Sequential {nn.Linear(512, 512), nn.Tanh(),
                                       nn.Dropout(0.1)}
end
local model = nn.Sequential(layers)
local x = rp.zeros(8192, 512)
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})

local function step()
  local loss = (model(x) * model(x)):mean()
  local plan = opt:plan(loss, {ckpt = arg[1]})
  opt:minimize(loss, {ckpt = arg[1]})
  return plan
end

-- What was resident before the first step; the high-water mark may be higher
-- than that already, and then nothing below it would be seen.
local before = status 'VmRSS'
assert(status 'VmHWM' - before < 8 * 2 ^ 20, 'the start left a high-water mark')
local plan = step()
step()
print(('predicted %d grown %d'):format(plan.peak_bytes, status 'VmHWM' - before))
