--- Activations and dropout.

local module = require 'reprise.nn.module'
local arguments = require 'reprise.ops.arguments'
local functional = require 'reprise.ops.functional'
local ops = require 'reprise.ops'

local activation = {}

for class, op in pairs{ReLU = 'relu', SiLU = 'silu', Tanh = 'tanh', Sigmoid = 'sigmoid'} do
  local fn = ops[op]
  local made = module.class(class)
  function made.forward(_, x) return fn(x) end
  activation[class] = made
end

local GELU = module.class('GELU', function(self, options)
  options = arguments.options(options, {approximate = true}, 'nn.GELU')
  self.approximate = options.approximate or 'none'
end)

function GELU:forward(x)
  return ops.gelu(x, self.approximate)
end

function GELU:describe()
  return self.approximate == 'none' and '' or "approximate='" .. self.approximate .. "'"
end

--- nn.GELU() by erf, nn.GELU{approximate = 'tanh'}.
activation.GELU = GELU

local Dropout = module.class('Dropout', function(self, p)
  p = p or 0.5
  if type(p) ~= 'number' or p < 0 or p > 1 then
    require 'reprise.failure'.raise('[nn.Dropout] p is in 0..1, not %s', tostring(p))
  end
  self.p = p
end)

function Dropout:forward(x)
  return functional.dropout(x, self.p, self.training)
end

function Dropout:describe()
  return ('%g'):format(self.p)
end

--- nn.Dropout(p): drops values while training, does nothing in eval mode.
activation.Dropout = Dropout

return activation
