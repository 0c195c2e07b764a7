-- Every differentiable op's gradient, and the gradient of its gradient,
-- against central differences in f64. The table below has cases by op name;
-- an op of the registry without one fails.

local ffi = require 'ffi'
local rp = require 'reprise'
local raw = require 'spec.support.raw'

local EPS, RTOL, ATOL = 1e-6, 1e-3, 1e-5

-- ---- the table ------------------------------------------------------------------

local seed = 0

--- A floating input in [lo, hi). Numbers from a seed keep clear of kinks: the
-- chance that one lies within 1e-6 of a given point is about 1e-6.
local function R(shape, lo, hi)
  seed = seed + 1
  return {dtype = 'f64', shape = shape, wrt = true,
          data = raw.fill(seed, shape, lo or -2, hi or 2)}
end

local function given(dtype, shape, data)
  return {dtype = dtype, shape = shape, data = data}
end

local function mask(shape)
  seed = seed + 1
  local data = raw.fill(seed, shape, 0, 2)
  for i = 1, #data do data[i] = math.floor(data[i]) end
  return given('bool', shape, data)
end

local cases = {}

local function case(name, inputs, ints, reals, options)
  cases[name] = cases[name] or {}
  local one = {inputs = inputs, ints = ints or {}, reals = reals or {}}
  for k, v in pairs(options or {}) do one[k] = v end
  table.insert(cases[name], one)
end

for _, name in ipairs {'neg', 'exp', 'tanh', 'sigmoid', 'relu', 'gelu',
                       'gelu_tanh', 'silu', 'sin', 'cos', 'abs', 'square',
                       'sign', 'erf'} do
  case(name, {R{3, 5}})
  case(name, {R{}})
end
for _, name in ipairs {'log', 'sqrt', 'rsqrt', 'reciprocal'} do
  case(name, {R({3, 5}, 0.5, 2)})
end
case('clamp', {R{4, 4}}, {}, {-0.75, 1.125})
for _, exponent in ipairs {2, 3, 0.5, -1.5, 1} do
  case('pow_scalar', {R({7}, 0.5, 2)}, {}, {exponent})
end
case('pow_scalar', {R({7}, -2, -0.5)}, {}, {3})

-- The second argument of a gradient kernel is what its forward op made or
-- read; any number in its range will do.
for name, range in pairs {tanh_grad = {-0.875, 0.875},
                          sigmoid_grad = {0.125, 0.875},
                          relu_grad = {-2, 2}, gelu_grad = {-2, 2},
                          gelu_tanh_grad = {-2, 2}, silu_grad = {-2, 2}} do
  case(name, {R{3, 4}, R({3, 4}, range[1], range[2])})
end
case('clamp_grad', {R{3, 4}, R{3, 4}}, {}, {-0.75, 1.125})

for _, name in ipairs {'add', 'sub', 'mul', 'maximum', 'minimum'} do
  case(name, {R{3, 4}, R{3, 4}})
  case(name, {R{2, 1, 4}, R{3, 1}})
  case(name, {R{5}, R{}})
end
case('div', {R{3, 4}, R({3, 4}, 0.5, 2)})
case('div', {R{2, 1, 4}, R({3, 1}, -2, -0.5)})
case('div', {R{}, R({5}, 0.5, 2)})
case('pow', {R({3, 4}, 0.5, 2), R{3, 4}})
case('pow', {R({2, 1, 3}, 0.5, 2), R{3, 1}})
case('where', {mask{3, 4}, R{3, 4}, R{3, 4}})
case('where', {mask{3, 1}, R{4}, R{}})
case('masked_fill', {R{3, 4}, mask{4}, R{}})
case('bce_with_logits', {R{3, 4}, R({3, 4}, 0, 1)})
case('cast', {R{3, 4}}, {tonumber(raw.code.f64)})
case('dropout', {R{4, 5}}, {}, {0.375})

for _, name in ipairs {'sum', 'mean', 'logsumexp', 'max', 'min'} do
  case(name, {R{2, 3, 4}}, {0})
  case(name, {R{2, 3, 4}}, {0, 1})
  case(name, {R{2, 3, 4}}, {1, 0, 2})
end
case('var', {R{2, 3, 4}}, {0, 1})
case('var', {R{2, 3, 4}}, {1, 0, 0, 2})
case('var', {R{2, 5}}, {0, 1, 1})
for dim = 0, 2 do case('cumsum', {R{2, 3, 4}}, {dim}) end
case('sum_to', {R{2, 3, 4}}, {3, 1})
case('sum_to', {R{2, 3}}, {})
case('sum_squares', {R{3, 4}})

for dim = 0, 2 do
  case('softmax', {R{2, 3, 4}}, {dim})
  case('log_softmax', {R{2, 3, 4}}, {dim})
  case('softmax_grad', {R{2, 3, 4}, R({2, 3, 4}, 0, 0.5)}, {dim})
  case('log_softmax_grad', {R{2, 3, 4}, R({2, 3, 4}, -2, 0)}, {dim})
end
case('scaled_masked_softmax', {R{2, 3, 4}}, {0}, {0.75})
case('scaled_masked_softmax', {R{2, 4, 4}}, {1}, {0.75})
case('scaled_masked_softmax', {R{2, 3, 4}, given('bool', {3, 4},
  {1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1})}, {0}, {0.5})
case('scaled_masked_softmax_grad', {R{2, 3, 4}, R({2, 3, 4}, 0, 0.5)}, {},
  {0.75})

-- q, k, v, mask; causal; scale, dropout: the words are the same each time.
local attending = given('bool', {1, 4, 5}, {1, 0, 1, 1, 0, 1, 1, 0, 1, 1,
  0, 0, 0, 0, 0, 1, 1, 1, 1, 1})
case('attention', {R{1, 2, 3, 4}, R{1, 2, 5, 4}, R{1, 2, 5, 3}}, {0},
  {0.5, 0})
case('attention', {R{2, 1, 4, 3}, R{2, 1, 4, 3}, R{2, 1, 4, 3}}, {1},
  {0.5, 0}, {outputs = {0, 1}})
case('attention', {R{1, 2, 4, 2}, R{1, 2, 5, 2}, R{1, 2, 5, 3}}, {1},
  {0.75, 0.375})
case('attention', {R{1, 2, 4, 3}, R{1, 2, 5, 3}, R{1, 2, 5, 2}, attending},
  {0}, {-0.5, 0.25})
case('packed_attention', {R{1, 4, 3, 2, 2}}, {0}, {0.5, 0.375})
case('packed_attention', {R{1, 3, 3, 2, 3}}, {1}, {0.5, 0},
  {outputs = {0, 1}})
case('packed_attention', {R{1, 5, 3, 1, 2}, given('bool', {5},
  {1, 0, 1, 1, 0})}, {0}, {0.5, 0.25})

-- The statistics are outputs too, and second derivatives reach them.
case('layer_norm', {R{3, 5}, R{5}, R{5}}, {}, {1e-5})
case('layer_norm', {R{3, 5}, R{5}, R{5}}, {}, {1e-5}, {outputs = {0, 1, 2}})
case('layer_norm', {R{2, 2, 3}, R{2, 3}, R{2, 3}}, {}, {1e-3})
case('rms_norm', {R{3, 5}, R{5}}, {}, {1e-5})
case('rms_norm', {R{3, 5}, R{5}}, {}, {1e-5}, {outputs = {0, 1}})
case('rms_norm', {R{2, 2, 3}, R{2, 3}}, {}, {1e-3})
case('batch_norm', {R{3, 2, 2, 2}, R{2}, R{2}}, {}, {1e-3, 0.1})
case('batch_norm', {R{5, 3}, R{3}, R{3}}, {}, {1e-5, 0.1},
  {outputs = {0, 1, 2}})
case('group_norm', {R{2, 4, 3}, R{4}, R{4}}, {2}, {1e-3})
case('group_norm', {R{2, 3, 2, 2}, R{3}, R{3}}, {1}, {1e-5},
  {outputs = {0, 1, 2}})

local labels = given('i64', {4}, {2, 0, -1, 1})
case('cross_entropy', {R{4, 3}, labels}, {-1, 0})
case('cross_entropy', {R{4, 3}, labels}, {-1, 0}, {}, {outputs = {0, 1}})
case('cross_entropy', {R{2, 2, 3}, given('i32', {2, 2}, {2, 0, 1, 1})},
  {-100, 1})
case('cross_entropy', {R{4, 3}, labels}, {-1, 2})
case('linear_cross_entropy', {R{4, 2}, R{3, 2}, labels, R{3}}, {-1, 0})
case('linear_cross_entropy', {R{4, 2}, R{3, 2}, labels}, {-1, 1})
-- n_outputs, ignore_index, reduction, what is wanted.
case('linear_cross_entropy_grad', {R{4, 2}, R{3, 2}, labels, R{3}},
  {4, -1, 0, 7}, {}, {outputs = {0, 1, 2, 3}})
case('linear_cross_entropy_grad', {R{2, 2, 2}, R{3, 2},
  given('i32', {2, 2}, {2, 0, 1, 1})}, {2, -100, 1, 2}, {}, {outputs = {1}})

local index = given('i64', {4}, {3, 0, 3, 1})
local table_index = given('i32', {2, 3}, {3, 0, 3, 2, 1, 1})
case('embedding', {R{5, 2}, table_index})
case('embedding_grad', {R{2, 3, 2}, table_index}, {5})
case('embedding_grad_add', {R{5, 2}, R{2, 3, 2}, table_index}, {5})
case('index_select', {R{4, 3}, index}, {0})
case('index_select', {R{2, 4, 2}, index}, {1})
case('index_select_grad', {R{2, 4, 2}, index}, {1, 5})
local which = given('i64', {2, 4}, {0, 2, 1, 1, 2, 0, 0, 1})
case('gather', {R{2, 3}, which}, {1})
case('gather', {R{3, 4}, which}, {0})
case('gather_grad', {R{2, 4}, which}, {1, 3})

case('reshape', {R{2, 6}}, {3, 4})
case('permute', {R{2, 3, 4}}, {2, 0, 1})
case('expand', {R{3, 1}}, {2, 3, 4})
case('narrow', {R{2, 5}}, {1, 1, 2, 2})
case('contiguous', {R{3, 4}})
case('narrow_grad', {R{2, 2}}, {1, 1, 2, 2, 5})
case('cat', {R{2, 3}, R{2, 1}, R{2, 2}}, {1})
case('pad', {R{2, 3}}, {1, 2, 0, 1}, {0.5})

case('matmul', {R{3, 4}, R{4, 2}})
case('matmul', {R{2, 1, 3, 2}, R{2, 2, 2}})
case('matmul', {R{2, 3, 4}, R{4, 2}})
case('linear', {R{3, 4}, R{2, 4}, R{2}})
case('linear', {R{2, 3, 4}, R{2, 4}})

-- ints: strides, paddings, dilations, groups; then the sizes of what is made.
case('conv2d', {R{2, 3, 4, 5}, R{2, 3, 3, 2}, R{2}})
case('conv2d', {R{2, 4, 5, 5}, R{6, 2, 3, 3}}, {2, 1, 1, 2, 1, 2, 2})
case('conv2d_grad_input', {R{2, 2, 2, 4}, R{2, 3, 3, 2}},
  {1, 1, 0, 0, 1, 1, 1, 4, 5})
case('conv2d_grad_input', {R{1, 4, 2, 3}, R{4, 1, 3, 2}},
  {2, 2, 1, 0, 1, 1, 2, 4, 7})
case('conv2d_grad_weight', {R{2, 2, 2, 4}, R{2, 3, 4, 5}},
  {1, 1, 0, 0, 1, 1, 1, 3, 2})
case('conv2d_grad_weight', {R{1, 4, 2, 3}, R{1, 2, 4, 7}},
  {2, 2, 1, 0, 1, 1, 2, 3, 2})

-- kernel, stride, padding, dilation, ceiling; avg: include_pad, divisor.
case('max_pool2d', {R{2, 2, 4, 5}}, {2, 2, 2, 2, 0, 0, 1, 1, 0})
case('max_pool2d', {R{2, 5, 7}}, {3, 2, 1, 2, 1, 0, 1, 2, 1})
-- The second argument's order alone matters.
case('max_pool2d_grad', {R{2, 3, 4}, R{2, 5, 7}}, {3, 2, 2, 2, 1, 0, 1, 1, 1})
case('max_pool2d_take', {R{2, 5, 7}, R{2, 5, 7}}, {3, 2, 2, 2, 1, 0, 1, 1, 1})
case('avg_pool2d', {R{2, 2, 4, 5}}, {2, 2, 2, 2, 0, 0, 1, 1, 0, 1, 0})
case('avg_pool2d', {R{2, 5, 7}}, {3, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0})
case('avg_pool2d', {R{2, 5, 7}}, {3, 2, 2, 1, 1, 1, 1, 1, 0, 0, 5})
case('avg_pool2d_grad', {R{2, 3, 8}},
  {3, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 5, 7})
for _, name in ipairs {'adaptive_avg_pool2d', 'upsample_nearest2d',
                       'adaptive_avg_pool2d_grad', 'upsample_nearest2d_grad'} do
  case(name, {R{2, 3, 7}}, {2, 3})
  case(name, {R{1, 2, 3, 4}}, {7, 8})
end

-- Gradient kernels whose inputs depend on each other (a mean, a row's
-- logsumexp): perturbing one alone asks a question without meaning. They are
-- checked as the first derivative's kernel in their op's second derivative.
local through = {
  layer_norm_grad = 'layer_norm', rms_norm_grad = 'rms_norm',
  cross_entropy_grad = 'cross_entropy', batch_norm_grad = 'batch_norm',
  group_norm_grad = 'group_norm', attention_grad = 'attention',
  packed_attention_grad = 'packed_attention',
}

-- Checked by the specs further down.
local apart = {custom_vjp = true, detach = true}

-- ---- differences ------------------------------------------------------------------

local function copy(list)
  local out = {}
  for i = 1, #list do out[i] = list[i] end
  return out
end

local function dot(a, b)
  local sum = 0
  for i = 1, #a do sum = sum + a[i] * b[i] end
  return sum
end

local Check = {}
Check.__index = Check

--- The op recorded on leaves with these numbers. Random ops draw the same
-- numbers each time.
function Check:record(data)
  raw.C.rp_manual_seed(raw.ctx, 7)
  local leaves = {}
  for i, input in ipairs(self.case.inputs) do
    leaves[i] = raw.leaf(input.dtype, input.shape, data[i], input.wrt)
  end
  local y = raw.record(self.name, leaves, self.case.ints, self.case.reals)
  local outputs = {}
  for _, k in ipairs(self.outputs) do
    outputs[#outputs + 1] = k == 0 and y or raw.output(y, k)
  end
  return leaves, outputs
end

--- A cotangent that depends on the shape alone.
local function cotangent(shape, number)
  return raw.fill(700 + number, shape)
end

--- sum_k sum(outputs[k] * cotangent k), as a recipe.
local function project(tensors)
  local total
  for k, t in ipairs(tensors) do
    local shape = raw.type(t)
    local c = raw.leaf('f64', shape, cotangent(shape, k))
    local part = raw.record('sum', {raw.record('mul', {t, c})}, {0})
    total = total and raw.record('add', {total, part}) or part
  end
  return total
end

local function project_numbers(tensors)
  local total = 0
  for k, t in ipairs(tensors) do
    total = total + dot(raw.read(t), cotangent((raw.type(t)), k))
  end
  return total
end

local function wanted(self, leaves)
  local out = {}
  for i, input in ipairs(self.case.inputs) do
    if input.wrt then out[#out + 1] = leaves[i] end
  end
  return out
end

--- The first derivatives, as recipes.
function Check:gradients(data)
  local leaves, outputs = self:record(data)
  local xs = wanted(self, leaves)
  if #outputs == 1 then
    local shape = raw.type(outputs[1])
    local dy = raw.leaf('f64', shape, cotangent(shape, 1))
    return raw.grad(outputs[1], dy, xs), xs
  end
  return raw.grad(project(outputs), nil, xs), xs
end

function Check:value(data)
  local _, outputs = self:record(data)
  return project_numbers(outputs)
end

function Check:slope(data)
  return project_numbers((self:gradients(data)))
end

--- Compares gradients (lists of numbers, one for each input that wants one)
-- with central differences of f(data).
function Check:compare(gradients, f, what)
  local data = {}
  for i, input in ipairs(self.case.inputs) do data[i] = copy(input.data) end
  local k = 0
  for i, input in ipairs(self.case.inputs) do
    if input.wrt then
      k = k + 1
      for e = 1, #input.data do
        data[i][e] = input.data[e] + EPS
        local above = f(self, data)
        data[i][e] = input.data[e] - EPS
        local below = f(self, data)
        data[i][e] = input.data[e]
        local slope = (above - below) / (2 * EPS)
        local got = gradients[k][e]
        local near = math.abs(got - slope) <= ATOL + RTOL * math.abs(slope)
        if not near then
          error(('%s of %s, case %d, input %d, element %d: %.10g, ' ..
            'differences say %.10g'):format(what, self.name, self.number, i, e,
            got, slope), 0)
        end
      end
    end
  end
end

function Check:first()
  local data = {}
  for i, input in ipairs(self.case.inputs) do data[i] = input.data end
  local numbers = {}
  for k, g in ipairs((self:gradients(data))) do numbers[k] = raw.read(g) end
  self:compare(numbers, Check.value, 'gradient')
end

function Check:second()
  local data = {}
  for i, input in ipairs(self.case.inputs) do data[i] = input.data end
  local gradients, xs = self:gradients(data)
  local numbers = {}
  for k, g in ipairs(raw.grad(project(gradients), nil, xs)) do
    numbers[k] = raw.read(g)
  end
  self:compare(numbers, Check.slope, 'second derivative')
end

local function each(name, run)
  for number, one in ipairs(cases[name]) do
    run(setmetatable({name = name, case = one, number = number,
                      outputs = one.outputs or {0}}, Check))
  end
end

-- ---- the specs ----------------------------------------------------------------------

describe('the gradient of', function()
  for _, op in ipairs(raw.ops()) do
    if op.differentiable and op.name ~= 'leaf' and not op.effect and
       not apart[op.name] and not through[op.name] then
      it(op.name, function()
        assert(cases[op.name], 'no case for the op ' .. op.name ..
          ': add one to the table in spec/lua/gradcheck_spec.lua')
        each(op.name, Check.first)
      end)
      it(op.name .. ', differentiated again', function()
        each(op.name, Check.second)
      end)
    end
  end

  for name, forward in pairs(through) do
    it(forward .. ' is the op ' .. name, function()
      local check
      each(forward, function(one) check = check or one end)
      local data = {}
      for i, input in ipairs(check.case.inputs) do data[i] = input.data end
      local seen, room = {}, ffi.new 'rp_tensor *[64]'
      for _, g in ipairs((check:gradients(data))) do
        for i = 0, raw.C.rp_tensor_history(g, room, 64) - 1 do
          local info = ffi.new 'rp_op_info'
          raw.C.rp_op_describe(raw.C.rp_tensor_op(room[i]), info)
          seen[ffi.string(info.name)] = true
        end
      end
      assert(seen[name], 'no gradient of ' .. forward .. ' comes from ' .. name)
    end)
  end

  it('detach is none', function()
    local x = raw.leaf('f64', {3}, {1, 2, 3}, true)
    local y = raw.record('mul', {x, raw.record('detach', {x})})
    local dy = raw.leaf('f64', {3}, {1, 1, 1})
    assert.same({1, 2, 3}, raw.read(raw.grad(y, dy, {x})[1]))
  end)

  it('custom_vjp is the user\'s own', function()
    local data, n = raw.fill(41, {2, 3}), 0
    local cube = rp.custom_vjp(function(x) return x * x * x, x * 2 end,
      function(d_y, d_z, _, _, x)
        n = n + 1
        return d_y * (x * x) * 3 + d_z * 2
      end)
    local x = rp.nn.Parameter(rp.tensor(data, {dtype = 'f64'}):reshape(2, 3))
    local y, z = cube(x)
    local total = (y * y):sum() + z:sum()
    local dx = rp.grad(total, {x})[1]
    local second = rp.grad(dx:sum(), {x})[1]
    local first, again = raw.read(dx.ptr), raw.read(second.ptr)
    for i, v in ipairs(data) do
      assert.near(6 * v ^ 5 + 2, first[i], 1e-12)
      assert.near(30 * v ^ 4, again[i], 1e-11)
    end
    assert.equal(1, n)
    -- What it says is believed, right or wrong.
    local wrong = rp.custom_vjp(function(v) return v * v end,
      function(d_y) return d_y * 0.5 end)
    assert.same({0.5, 0.5}, (function()
      local p = rp.nn.Parameter(rp.tensor({1, 2}, {dtype = 'f64'}))
      return rp.grad(wrong(p):sum(), {p})[1]:totable()
    end)())
  end)

  it('every op that has a case is in the registry', function()
    for name in pairs(cases) do
      assert(raw.C.rp_op_find(name) ~= nil, 'no op ' .. name)
    end
  end)
end)

-- f(x) = sum of cross_entropy(tanh(x W1) W2) over a batch: curvature from
-- tanh, matmul and softmax together.
local function network(x)
  local w = raw.leaf('f64', {4, 5}, raw.fill(31, {4, 5}))
  local v = raw.leaf('f64', {5, 3}, raw.fill(32, {5, 3}))
  local target = raw.leaf('i64', {3}, {2, 0, 1})
  local h = raw.record('tanh', {raw.record('matmul', {x, w})})
  return raw.record('cross_entropy', {raw.record('matmul', {h, v}), target},
    {-100, 1})
end

describe('a Hessian-vector product', function()
  local shape = {3, 4}
  local at = raw.fill(33, shape)
  local v = raw.fill(34, shape)

  local function gradient(data)
    local x = raw.leaf('f64', shape, data, true)
    return raw.grad(network(x), nil, {x})[1], x
  end

  it('is the difference of gradients along the vector', function()
    local g, x = gradient(at)
    local along = raw.leaf('f64', shape, v)
    local product = raw.record('sum', {raw.record('mul', {g, along})}, {0})
    local got = raw.read(raw.grad(product, nil, {x})[1])
    local above, below = {}, {}
    local step = 1e-5
    for i = 1, #at do
      above[i], below[i] = at[i] + step * v[i], at[i] - step * v[i]
    end
    above, below = raw.read((gradient(above))), raw.read((gradient(below)))
    for i = 1, #at do
      local want = (above[i] - below[i]) / (2 * step)
      assert.near(want, got[i], 1e-7)
    end
  end)

  it('is linear and symmetric', function()
    local function apply(u)
      local g, x = gradient(at)
      local along = raw.leaf('f64', shape, u)
      local product = raw.record('sum', {raw.record('mul', {g, along})}, {0})
      return raw.read(raw.grad(product, nil, {x})[1])
    end
    local u = raw.fill(35, shape)
    assert.near(dot(apply(v), u), dot(apply(u), v), 1e-12)
  end)
end)
