--- Linear, Embedding.

local init = require 'reprise.nn.init_values'
local module = require 'reprise.nn.module'
local arguments = require 'reprise.ops.arguments'
local functional = require 'reprise.ops.functional'
local index = require 'reprise.ops.index'
local ops = require 'reprise.ops'

local linear = {}

local Linear = module.class('Linear', function(self, inputs, outputs, options)
  self.inputs = arguments.count(inputs, 1, 'nn.Linear', 'the number of inputs')
  self.outputs = arguments.count(outputs, 1, 'nn.Linear', 'the number of outputs')
  options = arguments.options(options, {bias = true, dtype = true}, 'nn.Linear')
  -- PyTorch's Kaiming initialisation with a = sqrt(5).
  local bound = 1 / math.sqrt(inputs)
  self.weight = module.Parameter(init.uniform({outputs, inputs}, bound, options.dtype))
  if options.bias ~= false then
    self.bias = module.Parameter(init.uniform({outputs}, bound, options.dtype))
  end
end)

function Linear:forward(x)
  return functional.linear(x, self.weight, self.bias)
end

function Linear:describe()
  return ('%d, %d%s'):format(self.inputs, self.outputs, self.bias and '' or ', bias=false')
end

--- nn.Linear(inputs, outputs, {bias, dtype}): x:(..., in) -> (..., out), with
-- weight (out, in).
linear.Linear = Linear

local Embedding = module.class('Embedding', function(self, count, width, options)
  self.count = arguments.count(count, 1, 'nn.Embedding', 'the number of rows')
  self.width = arguments.count(width, 1, 'nn.Embedding', 'the width')
  options = arguments.options(options, {dtype = true}, 'nn.Embedding')
  self.weight = module.Parameter(ops.randn({count, width}, {dtype = options.dtype}))
end)

function Embedding:forward(indices)
  return index.embedding(indices, self.weight)
end

function Embedding:describe()
  return ('%d, %d'):format(self.count, self.width)
end

--- nn.Embedding(count, width, {dtype}): indices (...) in 0..count-1 ->
-- (..., width).
linear.Embedding = Embedding

return linear
