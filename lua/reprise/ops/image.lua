--- Functions of images x:(batch, channels, height, width): convolution,
-- pooling, resizing, normalisation by channels. Names, order and defaults of
-- arguments are PyTorch's; where options begin, a table of them by name may
-- stand: conv2d(x, w, b, {padding = 1}). Sizes of windows are a number or
-- {rows, columns}.

local arguments = require 'reprise.ops.arguments'
local failure = require 'reprise.failure'
local record = require 'reprise.ops.record'
local shape = require 'reprise.ops.shape'
local tensor = require 'reprise.tensor'

local ints, reals, pointer = record.ints, record.reals, tensor.pointer
local rank_of, size_of = arguments.rank, arguments.size

local image = {}

--- Options given by position or as one table, in the order of `names`.
local function options_of(where, names, first, ...)
  if type(first) == 'table' and #first == 0 and next(first) ~= nil
    and not tensor.is(first) then
    local known = {}
    for _, name in ipairs(names) do known[name] = true end
    return arguments.options(first, known, where)
  end
  local options = {}
  for i, name in ipairs(names) do options[name] = (select(i, first, ...)) end
  return options
end

--- A number or {rows, columns} as two numbers.
local function pair(value, least, where, what)
  local a, b = value, value
  if type(value) == 'table' and not tensor.is(value) then
    a, b = value[1], value[2]
    if b == nil then b = a end
  end
  return arguments.count(a, least, where, what), arguments.count(b, least, where, what)
end

local function put_pair(at, value, least, where, what)
  ints[at], ints[at + 1] = pair(value, least, where, what)
end

-- ---- convolution ------------------------------------------------------------------

local conv_op = record.op 'conv2d'
local conv_options = {'stride', 'padding', 'dilation', 'groups'}

--- The padding that keeps the size, where it is the same on both sides.
local function padding_of(padding, weight, where)
  if padding == 'valid' then return 0 end
  if padding ~= 'same' then return padding or 0 end
  local list = {}
  for d = 0, 1 do
    local reach = (size_of(weight, 2 + d) - 1) * tonumber(ints[4 + d])
    if reach % 2 ~= 0 or ints[d] ~= 1 then
      failure.raise("[%s] padding 'same' is for stride 1 and kernels that reach " ..
        'equally far to both sides', where)
    end
    list[d + 1] = reach / 2
  end
  return list
end

--- x:(N, C, H, W) or (C, H, W), weight:(O, C/groups, KH, KW), bias:(O) or nil
-- -> (N, O, OH, OW). Options: stride, padding (a size, 'valid' or 'same'),
-- dilation, groups.
function image.conv2d(x, weight, bias, ...)
  local where = 'conv2d'
  pointer(x, where)
  pointer(weight, where)
  local options = options_of(where, conv_options, ...)
  if rank_of(x) == 3 then
    return shape.squeeze(image.conv2d(shape.unsqueeze(x, 1), weight, bias, ...), 1)
  end
  put_pair(0, options.stride or 1, 1, where, 'stride')
  put_pair(4, options.dilation or 1, 1, where, 'dilation')
  if rank_of(weight) == 4 then
    put_pair(2, padding_of(options.padding, weight, where), 0, where, 'padding')
  end
  ints[6] = arguments.count(options.groups or 1, 1, where, 'groups')
  if bias == nil then return record.two(conv_op, x, weight, 7) end
  pointer(bias, where)
  return record.many(conv_op, {x, weight, bias}, 3, 7)
end

-- ---- pooling ----------------------------------------------------------------------

local function put_window(where, kernel, options)
  put_pair(0, kernel, 1, where, 'the kernel size')
  put_pair(2, options.stride or kernel, 1, where, 'stride')
  put_pair(4, options.padding or 0, 0, where, 'padding')
  put_pair(6, options.dilation or 1, 1, where, 'dilation')
  ints[8] = options.ceil_mode and 1 or 0
end

local max_pool_op = record.op 'max_pool2d'
local max_pool_options = {'stride', 'padding', 'dilation', 'ceil_mode'}

--- The greatest value of each window of (..., H, W). Options: stride (the
-- kernel's size when absent), padding, dilation, ceil_mode.
function image.max_pool2d(x, kernel_size, ...)
  pointer(x, 'max_pool2d')
  put_window('max_pool2d', kernel_size, options_of('max_pool2d', max_pool_options, ...))
  return record.one(max_pool_op, x, 9)
end

local avg_pool_op = record.op 'avg_pool2d'
local avg_pool_options = {'stride', 'padding', 'ceil_mode', 'count_include_pad',
                          'divisor_override'}

--- The mean of each window of (..., H, W). Options: stride (the kernel's size
-- when absent), padding, ceil_mode, count_include_pad (true when absent),
-- divisor_override.
function image.avg_pool2d(x, kernel_size, ...)
  local where = 'avg_pool2d'
  pointer(x, where)
  local options = options_of(where, avg_pool_options, ...)
  put_window(where, kernel_size, options)
  ints[9] = options.count_include_pad == false and 0 or 1
  ints[10] = options.divisor_override and
    arguments.count(options.divisor_override, 1, where, 'divisor_override') or 0
  return record.one(avg_pool_op, x, 11)
end

local adaptive_op = record.op 'adaptive_avg_pool2d'

--- Means of windows such that (..., H, W) becomes (..., rows, columns).
function image.adaptive_avg_pool2d(x, output_size)
  pointer(x, 'adaptive_avg_pool2d')
  put_pair(0, output_size, 1, 'adaptive_avg_pool2d', 'the output size')
  return record.one(adaptive_op, x, 2)
end

local upsample_op = record.op 'upsample_nearest2d'

--- (..., H, W) resized to (..., rows, columns): each value is the nearest's.
function image.upsample_nearest2d(x, size)
  pointer(x, 'upsample_nearest2d')
  put_pair(0, size, 1, 'upsample_nearest2d', 'the size')
  return record.one(upsample_op, x, 2)
end

--- upsample_nearest2d to options.size, or by options.scale_factor.
---@param x reprise.Tensor
---@param options {size: integer|integer[]?, scale_factor: number|number[]?, mode: 'nearest'?}
function image.interpolate(x, options)
  local where = 'interpolate'
  pointer(x, where)
  options = arguments.options(options, {size = true, scale_factor = true, mode = true}, where)
  if options.mode ~= nil and options.mode ~= 'nearest' then
    failure.raise("[%s] no mode '%s'; there is nearest", where, tostring(options.mode))
  end
  if (options.size == nil) == (options.scale_factor == nil) then
    failure.raise('[%s] one of size and scale_factor is wanted', where)
  end
  if options.size then return image.upsample_nearest2d(x, options.size) end
  local factor, sizes = options.scale_factor, {}
  for d = 1, 2 do
    local by = type(factor) == 'table' and factor[d] or factor
    arguments.number(by, where, 'scale_factor')
    if by ~= by or by <= 0 then
      failure.raise('[%s] scale_factor is above 0, not %g', where, by)
    end
    sizes[d] = math.floor(size_of(x, rank_of(x) - 3 + d) * by)
  end
  return image.upsample_nearest2d(x, sizes)
end

-- ---- normalisation ------------------------------------------------------------------

local batch_norm_op = record.op 'batch_norm'
local group_norm_op = record.op 'group_norm'
local rsqrt = record.unary(record.op 'rsqrt', 'batch_norm')
local expand_op = record.op 'expand'

local function channels_of(x, where)
  if rank_of(x) < 2 then
    failure.raise('[%s] x is (batch, channels, ...), not %s', where, tostring(x.shape))
  end
  return size_of(x, 1)
end

--- A weight or bias that was not given: value for every channel.
local function vector(x, t, value, where)
  if t ~= nil then
    pointer(t, where)
    return t
  end
  ints[0] = channels_of(x, where)
  return record.one(expand_op, record.weight(value, x), 1)
end

--- A vector over channels, broadcast against x.
local function beside(t, x)
  local sizes = {-1}
  for _ = 3, rank_of(x) do sizes[#sizes + 1] = 1 end
  return shape.reshape(t, sizes)
end

--- (x - mean) / sqrt(var + eps) * weight + bias by channels: with the batch's
-- statistics when training (the running ones, if given, then move towards
-- them, once a recorded call), else with the running ones.
-- momentum is 0.1, eps 1e-5 when absent.
function image.batch_norm(x, running_mean, running_var, weight, bias, training,
                          momentum, eps)
  local where = 'batch_norm'
  pointer(x, where)
  eps = arguments.number(eps or 1e-5, where, 'eps')
  momentum = arguments.number(momentum or 0.1, where, 'momentum')
  weight, bias = vector(x, weight, 1, where), vector(x, bias, 0, where)
  if (running_mean == nil) ~= (running_var == nil) then
    failure.raise('[%s] both running statistics or none', where)
  end
  if training then
    reals[0], reals[1] = eps, momentum
    local list = {x, weight, bias, running_mean, running_var}
    for i = 4, #list do pointer(list[i], where) end
    return record.many(batch_norm_op, list, #list, 0, 2)
  end
  if running_mean == nil then
    failure.raise('[%s] running statistics are needed where not training', where)
  end
  local scale = weight * rsqrt(running_var + eps)
  return x * beside(scale, x) + beside(bias - running_mean * scale, x)
end

--- (x - mean) / sqrt(var + eps) * weight + bias, mean and var over each image's
-- groups of channels; eps is 1e-5 when absent.
function image.group_norm(x, groups, weight, bias, eps)
  local where = 'group_norm'
  pointer(x, where)
  weight, bias = vector(x, weight, 1, where), vector(x, bias, 0, where)
  ints[0] = arguments.count(groups, 1, where, 'the number of groups')
  reals[0] = arguments.number(eps or 1e-5, where, 'eps')
  return record.many(group_norm_op, {x, weight, bias}, 3, 1, 1)
end

return image
