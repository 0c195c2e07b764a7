--- Trains 1,200 steps of changing shapes under changing strategies and prints
-- what is held after 200 and at the end. Run by refusal_spec.lua, from the
-- repository's root: luajit spec/support/growth.lua

package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path

local rp = require 'reprise'
local nn = rp.nn

local WARM, MORE = 200, 1000
local SPECS = {'none', 'every=1', 'sqrt', 'ops', 'nodes=2', 'budget=min', 'revolve=2'}

local function resident()
  for line in io.lines '/proc/self/status' do
    local kib = line:match '^VmRSS:%s+(%d+) kB'
    if kib then return tonumber(kib) * 1024 end
  end
end

local function level()
  collectgarbage() collectgarbage()
  local m = rp.memory()
  return m.bytes, m.recipe_bytes, m.nodes, resident()
end

local model = nn.Layers(3, function()
  return nn.Sequential {nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.1)}
end)
local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})

-- 15 shapes and 7 strategies, 105 pairs: more than plans are kept, so plans
-- are dropped and made again all the time.
local function step(i)
  local loss = model(rp.ones(2 + i % 15, 8)):square():mean()
  local spec = SPECS[1 + i % #SPECS]
  if i % 5 == 0 then
    loss:backward {ckpt = spec}
    opt:step()
    opt:zero_grad()
  elseif i % 11 == 0 then
    opt:minimize(loss + 0 / 0, {ckpt = spec, if_finite = true})
  else
    opt:minimize(loss, {ckpt = spec, if_finite = i % 3 == 0})
  end
  return loss:item()
end

for i = 1, WARM do step(i) end
print(level())
for i = WARM + 1, WARM + MORE do step(i) end
print(level())
