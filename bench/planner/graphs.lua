--- Small graphs on which the planner is compared with Checkmate's optimum:
-- chains, residual stacks, U-Nets and random graphs, each of 10 to 25 forward
-- nodes and twice that with backward. f64, whose kernels need no workspace, so
-- that sizes are the same on every machine.
--
-- Each entry: {name, loss = function() -> a newly recorded loss}.

local rp = require 'reprise'

local ROWS = 64

--- Numbers 1..n from a seed, the same everywhere (Park & Miller, 1988).
local function generator(seed)
  local state = seed * 7919 + 17
  return function(n)
    state = state * 48271 % 2147483647
    return state % n + 1
  end
end

local widths = {32, 48, 64, 64, 96, 128}
-- What backward reads of each differs: its result, its operand, or nothing.
local unary = {'exp', 'sin', 'gelu', 'tanh', 'sigmoid', 'square'}

local function parameter(rows, columns)
  return rp.ones(rows, columns, {dtype = 'f64', requires_grad = true})
end

local function constant(rows, columns)
  return rp.ones(rows, columns, {dtype = 'f64'})
end

--- x through a matrix that is not trained, to `columns` columns.
local function project(x, columns)
  return x:matmul(constant(x.shape[2], columns))
end

--- f(x) or f(w x), layer after layer; every third w is trained where asked.
local function chain(seed, layers, trained)
  local pick = generator(seed)
  local h = parameter(ROWS, widths[pick(6)])
  for i = 1, layers do
    local columns = widths[pick(6)]
    if trained and i % 3 == 0 then
      h = h:matmul(parameter(h.shape[2], columns))
    elseif pick(3) == 1 then
      h = project(h, columns)
    end
    h = rp[unary[pick(6)]](h)
  end
  return h:sum()
end

--- x + f(w g(x)), block after block.
local function residual(seed, blocks)
  local pick = generator(seed)
  local width = widths[pick(6)]
  local h = parameter(ROWS, width)
  for _ = 1, blocks do
    local inner = project(rp[unary[pick(6)]](h), widths[pick(6)])
    h = h + project(rp[unary[pick(6)]](inner), width)
  end
  return h:square():sum()
end

--- Down by halves and up again, each level joined with its own way down.
local function unet(seed, levels)
  local pick = generator(seed)
  local width = widths[pick(3) + 3]
  local h = parameter(ROWS, width)
  local ways = {}
  for i = 1, levels do
    h = rp[unary[pick(6)]](h)
    ways[i] = h
    h = project(h, math.max(8, math.floor(h.shape[2] / 2)))
  end
  h = rp[unary[pick(6)]](h)
  for i = levels, 1, -1 do
    h = project(h, ways[i].shape[2])
    h = pick(2) == 1 and h * ways[i] or h + ways[i]
  end
  return h:square():sum()
end

--- Each node reads one or two of the last few; what nobody read is summed.
local function random(seed, nodes)
  local pick = generator(seed)
  local made, read = {parameter(ROWS, widths[pick(6)])}, {}
  local function any()
    local at = math.max(1, #made + 1 - pick(4))
    read[at] = true
    return made[at]
  end
  for _ = 1, nodes do
    local a = any()
    if pick(3) == 1 then
      made[#made + 1] = rp[unary[pick(6)]](a)
    else
      local b = any()
      if a.shape[2] ~= b.shape[2] then b = project(b, a.shape[2]) end
      made[#made + 1] = pick(2) == 1 and a * b or rp.sin(a + b)
    end
  end
  local total
  for i = 2, #made do
    if not read[i] then
      local part = made[i]:square():sum()
      total = total and total + part or part
    end
  end
  return total
end

local graphs = {}

local function add(list, kind, make, ...)
  local arguments = {...}
  list[#list + 1] = {
    name = ('%s-%d'):format(kind, #list + 1),
    loss = function() return make(unpack(arguments)) end,
  }
end

-- Seeds whose graphs have 10 to 25 forward nodes and keep, under none, at
-- least 1.5 times what their hungriest node needs by itself.

-- The search's settings were chosen on these.
graphs.golden = {}
for _, a in ipairs {{4, 8}, {7, 8}, {5, 8}, {1, 10}} do
  add(graphs.golden, 'chain', chain, a[1], a[2], false)
end
for _, a in ipairs {{5, 6}, {6, 6}, {3, 8}, {5, 8}} do
  add(graphs.golden, 'trained', chain, a[1], a[2], true)
end
for seed = 1, 8 do add(graphs.golden, 'residual', residual, seed, 2) end
add(graphs.golden, 'residual', residual, 4, 3)
for seed = 1, 8 do add(graphs.golden, 'unet', unet, seed, 2) end
add(graphs.golden, 'unet', unet, 3, 3)
for seed = 1, 8 do add(graphs.golden, 'random', random, seed, 6) end

-- Nothing was chosen on these: what the planner does out of sample.
graphs.fresh = {}
for seed = 101, 106 do
  add(graphs.fresh, 'random', random, seed, 6)
  add(graphs.fresh, 'chain', chain, seed, 8, false)
  add(graphs.fresh, 'residual', residual, seed, 2)
  add(graphs.fresh, 'trained', chain, seed, 7, true)
  add(graphs.fresh, 'unet', unet, seed, 2)
end

return graphs
