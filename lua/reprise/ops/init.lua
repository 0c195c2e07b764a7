--- Every op as a function and, where its first argument is a tensor, as a
-- method. Ops without attributes come from the registry: a new one needs no
-- line here.

local ffi = require 'ffi'
local binding = require 'reprise.ffi'
local record = require 'reprise.ops.record'
local tensor = require 'reprise.tensor'

local C = binding.C
local methods = tensor.methods

local ops = {}

for _, family in ipairs{'pointwise', 'reduce', 'shape', 'index', 'functional', 'image',
                        'loss'} do
  for name, fn in pairs(require('reprise.ops.' .. family)) do
    ops[name] = fn
    methods[name] = fn
  end
end

local like = '_like$'
for name, fn in pairs(require 'reprise.ops.create') do
  ops[name] = fn
  if name:find(like) then methods[name] = fn end
end

-- What has attributes is recorded by a function above, under this or another
-- name; gradients' kernels are recorded by gradient rules.
local by_other_names = {
  leaf = true, custom_vjp = true, cast = true, pow_scalar = true,
  gelu_tanh = true, bce_with_logits = true, sum_to = true,
  conv2d_grad_input = true, conv2d_grad_weight = true, max_pool2d_take = true,
  attention = true, embedding_grad_add = true,
}

local function n_ary(op, name)
  return function(...)
    local list = {...}
    for i = 1, #list do tensor.pointer(list[i], name) end
    return record.many(op, list, #list)
  end
end

local info = ffi.new 'rp_op_info'
for i = 0, C.rp_op_count() - 1 do
  local op = C.rp_op_at(i)
  C.rp_op_describe(op, info)
  local name = ffi.string(info.name)
  if not ops[name] and not by_other_names[name] and not info.effect and
    not name:find '_grad$' then
    local fn
    if info.inputs == 1 and not info.variadic then
      fn = record.unary(op, name)
    elseif info.inputs == 2 and not info.variadic then
      fn = record.binary(op, name)
    else
      fn = n_ary(op, name)
    end
    ops[name] = fn
    methods[name] = fn
  end
end

return ops
