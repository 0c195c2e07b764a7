--- Layers for images (batch, channels, height, width).

local failure = require 'reprise.failure'
local init = require 'reprise.nn.init_values'
local module = require 'reprise.nn.module'
local arguments = require 'reprise.ops.arguments'
local images = require 'reprise.ops.image'
local shape = require 'reprise.ops.shape'

local image = {}

local function text(value)
  return type(value) == 'table' and table.concat(value, 'x') or tostring(value)
end

local function pair(value, where, what)
  local a, b = value, value
  if type(value) == 'table' then a, b = value[1], value[2] or value[1] end
  return arguments.count(a, 1, where, what), arguments.count(b, 1, where, what)
end

-- ---- convolution ------------------------------------------------------------------

local Conv2d = module.class('Conv2d', function(self, inputs, outputs, kernel, options)
  local where = 'nn.Conv2d'
  self.inputs = arguments.count(inputs, 1, where, 'the number of input channels')
  self.outputs = arguments.count(outputs, 1, where, 'the number of output channels')
  local rows, columns = pair(kernel, where, 'the kernel size')
  options = arguments.options(options, {stride = true, padding = true, dilation = true,
    groups = true, bias = true, dtype = true}, where)
  self.kernel, self.options = kernel, {stride = options.stride or 1,
    padding = options.padding or 0, dilation = options.dilation or 1,
    groups = options.groups or 1}
  local groups = arguments.count(self.options.groups, 1, where, 'groups')
  if inputs % groups ~= 0 or outputs % groups ~= 0 then
    failure.raise('[%s] %d groups do not divide %d and %d channels', where, groups,
      inputs, outputs)
  end
  local taps = inputs / groups * rows * columns
  -- PyTorch's Kaiming initialisation with a = sqrt(5).
  local bound = 1 / math.sqrt(taps)
  self.weight = module.Parameter(init.uniform({outputs, inputs / groups, rows, columns},
    bound, options.dtype))
  if options.bias ~= false then
    self.bias = module.Parameter(init.uniform({outputs}, bound, options.dtype))
  end
end)

function Conv2d:forward(x)
  return images.conv2d(x, self.weight, self.bias, self.options)
end

function Conv2d:describe()
  return ('%d, %d, kernel=%s, stride=%s, padding=%s%s'):format(self.inputs, self.outputs,
    text(self.kernel), text(self.options.stride), text(self.options.padding),
    self.bias and '' or ', bias=false')
end

--- nn.Conv2d(inputs, outputs, kernel, {stride, padding, dilation, groups, bias,
-- dtype}), with weight (outputs, inputs/groups, rows, columns).
image.Conv2d = Conv2d

-- ---- normalisation ------------------------------------------------------------------

--- weight and bias a channel unless options.affine is false.
local function make_affine(self, channels, options)
  if options.affine == false then return end
  self.weight = module.Parameter(init.ones({channels}, options.dtype))
  self.bias = module.Parameter(init.zeros({channels}, options.dtype))
end

local BatchNorm2d = module.class('BatchNorm2d', function(self, channels, options)
  local where = 'nn.BatchNorm2d'
  self.channels = arguments.count(channels, 1, where, 'the number of channels')
  options = arguments.options(options, {eps = true, momentum = true, affine = true,
    track_running_stats = true, dtype = true}, where)
  self.eps, self.momentum = options.eps or 1e-5, options.momentum or 0.1
  make_affine(self, channels, options)
  if options.track_running_stats ~= false then
    self.running_mean = module.Buffer(init.zeros({channels}, options.dtype))
    self.running_var = module.Buffer(init.ones({channels}, options.dtype))
  end
end)

function BatchNorm2d:forward(x)
  if arguments.rank(x) ~= 4 or arguments.size(x, 1) ~= self.channels then
    failure.raise('[nn.BatchNorm2d] x is (batch, %d, height, width), not %s', self.channels,
      tostring(x.shape))
  end
  local training = self.training or self.running_mean == nil
  return images.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
    training, self.momentum, self.eps)
end

function BatchNorm2d:describe()
  return ('%d, eps=%g, momentum=%g'):format(self.channels, self.eps, self.momentum)
end

--- nn.BatchNorm2d(channels, {eps = 1e-5, momentum = 0.1, affine,
-- track_running_stats, dtype}): the batch's statistics while training, the
-- running ones (buffers) in eval mode. A forward that is replayed does not
-- count twice.
image.BatchNorm2d = BatchNorm2d

local GroupNorm = module.class('GroupNorm', function(self, groups, channels, options)
  local where = 'nn.GroupNorm'
  self.groups = arguments.count(groups, 1, where, 'the number of groups')
  self.channels = arguments.count(channels, 1, where, 'the number of channels')
  if channels % groups ~= 0 then
    failure.raise('[%s] %d groups do not divide %d channels', where, groups, channels)
  end
  options = arguments.options(options, {eps = true, affine = true, dtype = true}, where)
  self.eps = options.eps or 1e-5
  make_affine(self, channels, options)
end)

function GroupNorm:forward(x)
  return images.group_norm(x, self.groups, self.weight, self.bias, self.eps)
end

function GroupNorm:describe()
  return ('%d, %d, eps=%g'):format(self.groups, self.channels, self.eps)
end

--- nn.GroupNorm(groups, channels, {eps = 1e-5, affine, dtype}).
image.GroupNorm = GroupNorm

-- ---- pooling, resizing, shape ----------------------------------------------------------

local function pool_class(name, fn, known)
  local class = module.class(name, function(self, kernel, options)
    pair(kernel, 'nn.' .. name, 'the kernel size')
    self.kernel = kernel
    self.options = arguments.options(options, known, 'nn.' .. name)
  end)
  function class:forward(x)
    if next(self.options) == nil then return fn(x, self.kernel) end
    return fn(x, self.kernel, self.options)
  end
  function class:describe() return text(self.kernel) end
  return class
end

--- nn.MaxPool2d(kernel, {stride, padding, dilation, ceil_mode}).
image.MaxPool2d = pool_class('MaxPool2d', images.max_pool2d,
  {stride = true, padding = true, dilation = true, ceil_mode = true})

--- nn.AvgPool2d(kernel, {stride, padding, ceil_mode, count_include_pad,
-- divisor_override}).
image.AvgPool2d = pool_class('AvgPool2d', images.avg_pool2d, {stride = true,
  padding = true, ceil_mode = true, count_include_pad = true, divisor_override = true})

--- nn.AdaptiveAvgPool2d(rows or {rows, columns}).
image.AdaptiveAvgPool2d = pool_class('AdaptiveAvgPool2d', images.adaptive_avg_pool2d, {})

local Upsample = module.class('Upsample', function(self, options)
  self.options = arguments.options(options,
    {size = true, scale_factor = true, mode = true}, 'nn.Upsample')
end)

function Upsample:forward(x)
  return images.interpolate(x, self.options)
end

function Upsample:describe()
  return self.options.size and text(self.options.size) or
    'scale_factor=' .. text(self.options.scale_factor)
end

--- nn.Upsample{size = ... or scale_factor = ..., mode = 'nearest'}.
image.Upsample = Upsample

local Flatten = module.class('Flatten', function(self, first, last)
  self.first, self.last = first or 2, last or -1
end)

function Flatten:forward(x)
  return shape.flatten(x, self.first, self.last)
end

--- nn.Flatten(first, last): dims first..last (2 and -1 when absent) as one.
image.Flatten = Flatten

return image
