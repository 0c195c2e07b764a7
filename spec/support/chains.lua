-- Random chains of elementwise ops, the same everywhere.

local rp = require 'reprise'

local chains = {}

-- A generator of its own.
local state = 1
local function draw(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return math.floor(state / 65536) % n + 1
end

function chains.seed(n) state = n end
chains.draw = draw

local unary = {'exp', 'tanh', 'sigmoid', 'relu', 'gelu', 'silu', 'sin', 'abs', 'neg', 'square'}
local binary = {'add', 'sub', 'mul', 'maximum', 'minimum'}

--- Operands of one shape, some of them views and broadcasts.
function chains.operands(shape, dtype)
  local reversed = {}
  for i = 1, #shape do reversed[i] = shape[#shape + 1 - i] end
  local row = {}
  for i = 1, #shape do row[i] = i == #shape and shape[i] or 1 end
  local column = {}
  for i = 1, #shape do column[i] = i == 1 and shape[i] or 1 end
  local wide = {}
  for i = 1, #shape do wide[i] = i == #shape and shape[i] + 3 or shape[i] end
  local turned = rp.randn(reversed, {dtype = dtype}):run()
  local order = {}
  for i = 1, #shape do order[i] = #shape + 1 - i end
  return {
    rp.randn(shape, {dtype = dtype}):run(), rp.randn(shape, {dtype = dtype}):run(),
    rp.randn(row, {dtype = dtype}):run(), rp.randn(column, {dtype = dtype}):run(),
    rp.randn(wide, {dtype = dtype}):run():narrow(-1, 3, shape[#shape]),
    turned:permute(order),
    rp.randn({}, {dtype = dtype}):run(),
  }
end

function chains.of(inputs, length)
  local x, dropped = inputs[1], false
  for _ = 1, length do
    local kind = draw(4)
    if kind == 1 then
      x = x[unary[draw(#unary)]](x)
    elseif kind == 2 then
      x = rp[binary[draw(#binary)]](x, inputs[draw(#inputs)])
    elseif kind == 3 then
      x = rp[binary[draw(#binary)]](inputs[draw(#inputs)]:tanh(), x)
    elseif not dropped then
      x, dropped = rp.dropout(x, 0.3), true
    elseif draw(2) == 1 then
      x = rp.where(x:gt(inputs[draw(#inputs)]), x, inputs[draw(2)])
    else
      x = x:masked_fill(x:lt(inputs[draw(#inputs)]), 0.25)
    end
  end
  return x
end

return chains
