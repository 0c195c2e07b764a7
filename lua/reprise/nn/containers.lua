--- Modules made of a list of modules.

local binding = require 'reprise.ffi'
local failure = require 'reprise.failure'
local module = require 'reprise.nn.module'
local scope = require 'reprise.scope'
local walk = require 'reprise.nn.walk'

local C, ctx = binding.C, binding.ctx

local containers = {}

local function take(self, list, where)
  if type(list) ~= 'table' or walk.is_module(list) then
    failure.raise('[%s] a list of modules is wanted: %s{a, b}', where, where)
  end
  for i = 1, #list do
    local entry = list[i]
    if not walk.is_module(entry) and type(entry) ~= 'function' then
      failure.raise('[%s] entry %d is a %s, not a module or a function', where, i,
        type(entry))
    end
    self[i] = entry
  end
end

local function enter_entry(name)
  scope.enter(name)
  failure.check(C.rp_entry_enter(ctx))
end

local function enter_layer(name)
  scope.enter(name)
  failure.check(C.rp_layer_enter(ctx))
end

--- Entries one after the other; the first gets all arguments.
local function run_from(self, enter, i, ...)
  local entry = self[i]
  if entry == nil then return ... end
  if type(entry) == 'function' then
    return run_from(self, enter, i + 1, scope.call(enter, tostring(i), nil, entry, ...))
  end
  return run_from(self, enter, i + 1, entry(...))
end

local Sequential = module.class('Sequential', function(self, list)
  take(self, list, 'nn.Sequential')
  for i = 1, #self do
    if walk.is_module(self[i]) then module.mark_entry(self[i]) end
  end
end)

function Sequential:forward(...)
  return run_from(self, enter_entry, 1, ...)
end

--- nn.Sequential{a, b, ...}: b(a(x)). Entries are modules or functions;
-- :named gives an entry a name in place of its number. Where a model has no
-- nn.Layers, the outermost Sequential's entries are its layers.
containers.Sequential = Sequential

local Layers = module.class('Layers', function(self, n, make)
  if type(n) == 'number' then
    if type(make) ~= 'function' then
      failure.raise('[nn.Layers] nn.Layers(n, function(i) return ... end)')
    end
    local list = {}
    for i = 1, n do list[i] = make(i) end
    n = list
  end
  take(self, n, 'nn.Layers')
  for i = 1, #self do
    if walk.is_module(self[i]) then module.mark_layer(self[i]) end
  end
end)

--- The layers one after the other; further arguments (a mask) go to each.
function Layers:forward(x, ...)
  for i = 1, #self do
    local entry = self[i]
    if type(entry) == 'function' then
      x = scope.call(enter_layer, tostring(i), nil, entry, x, ...)
    else
      x = entry(x, ...)
    end
  end
  return x
end

--- nn.Layers(n, function(i) return Block(...) end) or nn.Layers{a, b}: the
-- model's stack. Each entry is a layer for strategies and reports. Call it,
-- or its entries one by one.
containers.Layers = Layers

return containers
