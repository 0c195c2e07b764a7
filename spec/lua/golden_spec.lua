-- Every op against values that PyTorch or NumPy computed (spec/golden).

local raw = require 'spec.support.raw'

local golden = raw.golden 'ops.json'

-- f64: the kernels' own exp, log, tanh and erf are good to a few units in the
-- last place, and sums of up to 67 terms may be taken in another order.
-- f32: the same against inputs that f32 holds exactly; cancellation in
-- softmax and norm gradients costs a digit.
local tolerance = {f64 = 4e-14, f32 = 4e-6}
-- Where a formula multiplies rounding, f32 is given more room; each with why.
local loose = {
  -- |x| up to 80: the argument's last bit alone is 80 * 2^-24 of the result.
  exp = 2e-5,
  -- Gradients through the reciprocal of small variances, cubed.
  layer_norm = 4e-5, layer_norm_grad = 4e-5, rms_norm = 2e-5,
  rms_norm_grad = 2e-5,
  batch_norm = 4e-5, batch_norm_grad = 4e-5, group_norm = 4e-5,
  group_norm_grad = 4e-5,
  -- A row near 1000: half a unit in the last place of its logsumexp, 3e-5,
  -- is the gradient's relative error.
  logsumexp = 4e-5,
  -- Sums of 9001 products of both signs.
  linear_cross_entropy_grad = 1e-5,
  -- Its own gradient, a second derivative: sums of terms of both signs.
  gelu_tanh_grad = 1e-5,
}
-- Values that are what is left of 1 + tanh or 1 + erf far from zero.
local cancels = {gelu = true, gelu_tanh = true, gelu_grad = true,
                 gelu_tanh_grad = true}

local function allowed(op, dtype)
  return dtype == 'f32' and loose[op] or tolerance[dtype] or 0
end

-- Results whose dtype is fixed by the case keep it; floats follow the inputs.
local function expected_dtype(row, output, dtype)
  if output.dtype == row.dtypes[1] and row.op ~= 'cast' then return dtype end
  return output.dtype
end

local function check(row, dtype)
  local inputs = {}
  for i, spec in ipairs(row.inputs) do
    local own = spec.dtype or dtype
    inputs[i] = raw.leaf(own, spec.shape, raw.input_data(spec),
      row.grads and row.grads[i] ~= false)
  end
  local y = raw.record(row.op, inputs, row.ints, row.reals)
  local room = allowed(row.op, dtype)
  for k, want in ipairs(row.outputs) do
    local out = k == 1 and y or raw.output(y, k - 1)
    local shape, out_dtype = raw.type(out)
    assert.same(want.shape, shape)
    assert.equal(expected_dtype(row, want, dtype), out_dtype)
    local floating = out_dtype == 'f32' or out_dtype == 'f64'
    local exact = not floating and 0
    local problem = raw.difference(raw.read(out), raw.numbers(want.data),
      exact or room, cancels[row.op] and 1)
    if problem then error(('output %d: %s'):format(k, problem), 0) end
  end
  if not row.grads then return end
  local shape = row.outputs[1].shape
  local dy = raw.leaf(select(2, raw.type(y)), shape,
    raw.fill(golden.cotangent_seed, shape))
  local wanted, places = {}, {}
  for i, grad in ipairs(row.grads) do
    if grad then
      wanted[#wanted + 1], places[#places + 1] = inputs[i], i
    end
  end
  for k, dx in ipairs(raw.grad(y, dy, wanted)) do
    local i = places[k]
    assert.same(row.inputs[i].shape, (raw.type(dx)))
    local problem = raw.difference(raw.read(dx), raw.numbers(row.grads[i]), room,
      1)
    if problem then error(('gradient of input %d: %s'):format(i, problem), 0) end
  end
end

-- Ops that have no value another library could have computed: what they are
-- checked by instead.
local elsewhere = {
  leaf = 'a leaf is its bytes', all_finite = 'finite_spec',
  custom_vjp = 'gradcheck_spec',
  rand = 'random_spec', randn = 'random_spec', randint = 'random_spec',
  dropout = 'random_spec',
  assign = 'effects below', accumulate = 'effects below',
  sgd = 'training_spec', sgd_momentum = 'training_spec',
  adam = 'training_spec', adamw = 'training_spec',
  running_update = 'image_spec',
}

describe('golden values', function()
  local rows = {}
  for _, row in ipairs(golden.rows) do
    rows[row.op] = rows[row.op] or {}
    table.insert(rows[row.op], row)
  end

  for _, op in ipairs(raw.ops()) do
    if not elsewhere[op.name] then
      it('of ' .. op.name, function()
        local list = rows[op.name]
        assert(list, 'spec/golden/make.py has no case for ' .. op.name)
        for _, row in ipairs(list) do
          for _, dtype in ipairs(row.dtypes) do
            local ok, problem = pcall(check, row, dtype)
            if not ok then
              error(('%s [%s] %s: %s'):format(row.op, row.case, dtype,
                type(problem) == 'table' and tostring(problem.message)
                or problem), 0)
            end
          end
        end
      end)
    end
  end

  it('name only ops that exist', function()
    for name in pairs(rows) do
      assert(raw.C.rp_op_find(name) ~= nil, 'no op ' .. name)
    end
  end)
end)
