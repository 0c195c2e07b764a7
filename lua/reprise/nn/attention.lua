--- Attention.

local failure = require 'reprise.failure'
local init = require 'reprise.nn.init_values'
local linear = require 'reprise.nn.linear'
local module = require 'reprise.nn.module'
local scope = require 'reprise.scope'
local arguments = require 'reprise.ops.arguments'
local functional = require 'reprise.ops.functional'
local shape = require 'reprise.ops.shape'

local attention = {}

local MultiHeadAttention = module.class('MultiHeadAttention', function(self, width, heads, options)
  local where = 'nn.MultiHeadAttention'
  self.width = arguments.count(width, 1, where, 'the width')
  self.heads = arguments.count(heads, 1, where, 'the number of heads')
  if width % heads ~= 0 then
    failure.raise('[%s] width %d does not divide into %d heads', where, width, heads)
  end
  options = arguments.options(options,
    {causal = true, dropout = true, bias = true, dtype = true}, where)
  self.causal, self.dropout = options.causal or false, options.dropout or 0
  local inner = {bias = options.bias, dtype = options.dtype}
  self.qkv = linear.Linear(width, 3 * width, inner)
  self.out = linear.Linear(width, width, inner)
  -- PyTorch's: Xavier for the joint projection, zero biases.
  local bound = math.sqrt(6 / (width + 3 * width))
  self.qkv.weight = module.Parameter(init.uniform({3 * width, width}, bound, options.dtype))
  if options.bias ~= false then
    self.qkv.bias = module.Parameter(init.zeros({3 * width}, options.dtype))
    self.out.bias = module.Parameter(init.zeros({width}, options.dtype))
  end
end)

function MultiHeadAttention:forward(x, mask)
  local batch, length, width = x:size(1), x:size(2), self.width
  local qkv = shape.reshape(self.qkv(x), batch, length, 3, self.heads,
    width / self.heads)
  local y = functional.packed_attention(qkv, {
    mask = mask, is_causal = self.causal,
    dropout_p = self.training and self.dropout or 0,
  })
  return self.out(shape.reshape(y, batch, length, width))
end

function MultiHeadAttention:describe()
  return ('%d, heads=%d%s'):format(self.width, self.heads, self.causal and ', causal' or '')
end

--- nn.MultiHeadAttention(width, heads, {causal, dropout, bias, dtype}):
-- self-attention over x:(batch, length, width), called with x and perhaps a
-- mask (bool, true attends, broadcast to (batch, heads, length, length)).
attention.MultiHeadAttention = MultiHeadAttention

local CheckpointedAttention = module.class('CheckpointedAttention', function(self, options)
  options = arguments.options(options,
    {causal = true, is_causal = true, dropout = true, scale = true},
    'nn.CheckpointedAttention')
  self.causal = options.causal or options.is_causal or false
  self.dropout, self.scale = options.dropout or 0, options.scale
end)

function CheckpointedAttention:forward(q, k, v, mask)
  local options = {
    mask = mask, is_causal = self.causal, scale = self.scale,
    dropout_p = self.training and self.dropout or 0,
  }
  local attend = functional.scaled_dot_product_attention
  -- The op stores no weights; numbers as a mask go through them.
  if mask == nil or mask.dtype == 'bool' then return attend(q, k, v, options) end
  return scope.checkpoint(attend, q, k, v, options)
end

function CheckpointedAttention:describe()
  return self.causal and 'causal' or ''
end

--- nn.CheckpointedAttention{causal, dropout, scale}: called with q, k, v and
-- perhaps a mask; keeps those only, the weights are recomputed in backward.
attention.CheckpointedAttention = CheckpointedAttention

return attention
