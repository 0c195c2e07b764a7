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

-- Wide in rows and narrow in columns: many bytes for little work.
local layers = {}
for _ = 1, 8 do
  layers[#layers + 1] = nn.Sequential {nn.Linear(128, 128), nn.Tanh(),
                                       nn.Dropout(0.1)}
end
local model = nn.Sequential(layers)
local x = rp.zeros(16384, 128)
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})

local function step()
  local y = model(x)
  local loss = (y * y):mean()
  local plan = opt:plan(loss, {ckpt = arg[1]})
  opt:minimize(loss, {ckpt = arg[1]})
  return plan
end

-- Growth is the high-water mark above what is resident before the first step;
-- an earlier, higher mark would hide it.
local before = status 'VmRSS'
assert(status 'VmHWM' - before < 8 * 2 ^ 20, 'the start left a high-water mark')
local plan = step()
step()
print(('predicted %d grown %d'):format(plan.peak_bytes, status 'VmHWM' - before))
