--- LayerNorm, RMSNorm.

local init = require 'reprise.nn.init_values'
local module = require 'reprise.nn.module'
local arguments = require 'reprise.ops.arguments'
local functional = require 'reprise.ops.functional'

local norm = {}

local function sizes_of(sizes, where)
  if type(sizes) == 'number' then sizes = {sizes} end
  return (arguments.sizes(where, sizes))
end

local LayerNorm = module.class('LayerNorm', function(self, sizes, options)
  self.sizes = sizes_of(sizes, 'nn.LayerNorm')
  options = arguments.options(options, {eps = true, bias = true, dtype = true}, 'nn.LayerNorm')
  self.eps = options.eps or 1e-5
  self.weight = module.Parameter(init.ones(self.sizes, options.dtype))
  if options.bias ~= false then
    self.bias = module.Parameter(init.zeros(self.sizes, options.dtype))
  end
end)

function LayerNorm:forward(x)
  return functional.layer_norm(x, self.weight, self.bias, self.eps)
end

function LayerNorm:describe()
  return ('%s, eps=%g'):format(table.concat(self.sizes, ', '), self.eps)
end

--- nn.LayerNorm(width or sizes, {eps = 1e-5, bias, dtype}), over the trailing
-- dims.
norm.LayerNorm = LayerNorm

local RMSNorm = module.class('RMSNorm', function(self, sizes, options)
  self.sizes = sizes_of(sizes, 'nn.RMSNorm')
  options = arguments.options(options, {eps = true, dtype = true}, 'nn.RMSNorm')
  self.eps = options.eps
  self.weight = module.Parameter(init.ones(self.sizes, options.dtype))
end)

function RMSNorm:forward(x)
  return functional.rms_norm(x, self.weight, self.eps)
end

function RMSNorm:describe()
  return table.concat(self.sizes, ', ')
end

--- nn.RMSNorm(width or sizes, {eps, dtype}); eps is the dtype's epsilon when
-- absent.
norm.RMSNorm = RMSNorm

return norm
