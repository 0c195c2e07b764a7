-- What a strategy may not change: a bit. Losses of 20 steps, every gradient of
-- every step and the parameters at the end, dropout on.

local rp = require 'reprise'
local raw = require 'spec.support.raw'
local models = require 'spec.support.models'
local run = require 'spec.support.run'

-- A strategy file of a user's own: the first half of the forward nodes
-- is a segment, with one node kept.
local FILE = os.tmpname() .. '.lua'

local function write_strategy()
  local file = assert(io.open(FILE, 'w'))
  file:write [[
    return function(graph)
      local half = math.floor(graph.n_forward / 2)
      local first, last = 2, math.max(2, half)
      return {{first = first, last = last, keep = {first}}}
    end
  ]]
  file:close()
end

describe('a strategy', function()
  setup(function()
    run.quiet()
    write_strategy()
  end)

  teardown(function()
    run.loud()
    os.remove(FILE)
  end)

  for _, name in ipairs(models.names) do
    for _, dtype in ipairs {'f32', 'f64', 'bf16'} do
      it(('changes no bit of %s in %s'):format(name, dtype), function()
        local kept = run.train(name, {dtype = dtype, ckpt = 'none'})
        assert.equal(20, #kept.losses)
        assert.not_equal(kept.losses[1], kept.losses[2])
        local strategies = run.model(name, dtype).specs
        strategies[#strategies + 1] = FILE
        for _, spec in ipairs(strategies) do
          run.same_bits(kept, run.train(name, {dtype = dtype, ckpt = spec}), spec)
        end
        for _, spec in ipairs {'none', 'sqrt', 'ops', strategies[1]} do
          run.same_bits(kept, run.train(name, {dtype = dtype, ckpt = spec,
            how = 'minimize'}), spec .. ', minimize')
        end
      end)
    end

    it(('changes no bit of %s on two threads'):format(name), function()
      rp.set_num_threads(2)
      finally(function() rp.set_num_threads(1) end)
      local kept = run.train(name, {ckpt = 'none', steps = 5})
      for _, spec in ipairs {'sqrt', 'ops', 'nodes=2'} do
        run.same_bits(kept, run.train(name, {ckpt = spec, steps = 5}), spec)
      end
      run.same_bits(kept, run.train(name, {ckpt = 'sqrt', steps = 5,
        how = 'minimize'}), 'minimize')
    end)
  end

  it('does recompute: these runs are not all the same program', function()
    for _, name in ipairs(models.names) do
      local made = run.model(name)
      local opt = rp.optim.AdamW(made.parameters, {lr = 1e-2})
      local replays = 0
      for _, spec in ipairs(made.specs) do
        local plan = opt:plan(made.loss(), {ckpt = spec})
        replays = replays + (plan.n_replays > 0 and 1 or 0)
      end
      assert(replays >= 2, name .. ': only ' .. replays ..
        ' of its strategies replay anything')
    end
  end)

  it('leaves clipping alone', function()
    local kept = run.train('gpt', {ckpt = 'none', how = 'minimize', clip = 0.5})
    for _, spec in ipairs {'every=1', 'sqrt'} do
      run.same_bits(kept, run.train('gpt', {ckpt = spec, how = 'minimize',
        clip = 0.5}), spec)
      run.same_bits(kept, run.train('gpt', {ckpt = spec, clip = 0.5}),
        spec .. ', backward and step')
    end
  end)

  it('draws dropout anew each step and the same again on replay', function()
    local made = run.model 'mlp'
    local seen = {}
    for i = 1, 4 do seen[i] = made.loss():item() end
    assert.not_equal(seen[1], seen[2])
    assert.not_equal(seen[2], seen[3])
    assert.not_equal(seen[3], seen[4])
  end)
end)

-- ---- thread counts -------------------------------------------------------------

-- Inputs large enough that every kernel splits its work (parallel.h), odd
-- sizes so that pieces are uneven. By op name; `{shape, lo, hi}` is a floating
-- input, a table with `index` holds whole numbers below it.
local BIG = {53, 997}
local ROWS = {2, 7, 1801}

local function whole(shape, limit, dtype)
  return {shape, 0, limit, whole = true, dtype = dtype or 'i64'}
end

local sizes = {}

local function op(names, inputs, ints, reals)
  for name in names:gmatch '%S+' do
    sizes[name] = sizes[name] or {}
    table.insert(sizes[name], {inputs = inputs, ints = ints, reals = reals})
  end
end

op('neg exp tanh sigmoid relu gelu gelu_tanh silu sin cos abs square sign erf',
  {{BIG, -3, 3}})
op('log sqrt rsqrt reciprocal', {{BIG, 0.5, 3}})
op('clamp', {{BIG, -3, 3}}, {}, {-1, 1})
op('pow_scalar', {{BIG, 0.5, 3}}, {}, {1.5})
op('logical_not', {whole(BIG, 2, 'bool')})
op('tanh_grad sigmoid_grad relu_grad gelu_grad gelu_tanh_grad silu_grad',
  {{BIG, -3, 3}, {BIG, -1, 1}})
op('clamp_grad', {{BIG, -3, 3}, {BIG, -3, 3}}, {}, {-1, 1})
op('add sub mul div maximum minimum eq ne lt le gt ge bce_with_logits',
  {{BIG, -3, 3}, {BIG, 0.5, 1}})
op('add mul div', {{BIG, -3, 3}, {{997}, 0.5, 1}})
op('pow', {{BIG, 0.5, 3}, {{53, 1}, -2, 2}})
op('logical_and logical_or', {whole(BIG, 2, 'bool'), whole({997}, 2, 'bool')})
op('where', {whole(BIG, 2, 'bool'), {BIG, -1, 1}, {{53, 1}, -1, 1}})
op('masked_fill', {{BIG, -1, 1}, whole({997}, 2, 'bool'), {{}, -1, 1}})
op('cast', {{BIG, -3, 3}}, {tonumber(raw.code.i32)})
op('arange', {{{}, 0, 1}, {{}, 0, 1}}, {60001})
op('rand randn', {}, {tonumber(raw.code.f32), 60001})
op('randint', {}, {tonumber(raw.code.i32), 0, 1000, 60001})
op('dropout', {{BIG, -3, 3}}, {}, {0.25})
for _, dims in ipairs {{0}, {0, 0}, {0, 1}, {0, 2}, {1, 0, 2}} do
  op('sum mean max min logsumexp', {{ROWS, -3, 3}}, dims)
end
op('var', {{ROWS, -3, 3}}, {0, 1})
op('var', {{ROWS, -3, 3}}, {0, 1, 2})
op('var', {{ROWS, -3, 3}}, {0, 1, 0})
op('argmax', {{ROWS, -3, 3}}, {0, 2})
op('argmax', {{ROWS, -3, 3}}, {0, -1})
op('argmax', {{ROWS, -3, 3}}, {0, 0})
op('cumsum', {{ROWS, -3, 3}}, {2})
op('cumsum', {{ROWS, -3, 3}}, {0})
op('all_finite', {{BIG, -3, 3}})
op('all_finite total_squares', {{BIG, -3, 3}, {ROWS, -3, 3}, {{7}, -3, 3}})
op('sum_to', {{ROWS, -3, 3}}, {1, 1801})
op('sum_to', {{ROWS, -3, 3}}, {7, 1})
op('sum_squares', {{BIG, -3, 3}})
for dim = 0, 2 do
  op('softmax log_softmax', {{ROWS, -3, 3}}, {dim})
  op('softmax_grad log_softmax_grad', {{ROWS, -3, 3}, {ROWS, -1, 0}}, {dim})
end
op('scaled_masked_softmax', {{{3, 91, 97}, -3, 3}}, {1}, {0.5})
op('scaled_masked_softmax', {{{3, 91, 97}, -3, 3},
  whole({91, 97}, 2, 'bool')}, {0}, {0.5})
op('scaled_masked_softmax_grad', {{{3, 91, 97}, -3, 3}, {{3, 91, 97}, 0, 1}},
  {}, {0.5})
op('attention', {{{2, 3, 91, 37}, -3, 3}, {{2, 3, 197, 37}, -3, 3},
  {{2, 3, 197, 21}, -3, 3}}, {1}, {0.25, 0.125})
op('attention', {{{1, 1, 597, 5}, -3, 3}, {{1, 1, 97, 5}, -3, 3},
  {{1, 1, 97, 5}, -3, 3}, whole({597, 97}, 2, 'bool')}, {0}, {0.5, 0})
op('attention_grad', {{{2, 91, 3, 21}, -3, 3}, {{2, 3, 91, 37}, -3, 3},
  {{2, 3, 197, 37}, -3, 3}, {{2, 3, 197, 21}, -3, 3}, {{2, 91, 3, 21}, -3, 3},
  {{2, 3, 91}, 30, 40}}, {1}, {0.25, 0.125})
op('packed_attention', {{{2, 191, 3, 3, 33}, -3, 3}}, {1}, {0.25, 0.125})
op('packed_attention_grad', {{{2, 191, 3, 33}, -3, 3},
  {{2, 191, 3, 3, 33}, -3, 3}, {{2, 191, 3, 33}, -3, 3},
  {{2, 3, 191}, 30, 40}}, {1}, {0.25, 0.125})
op('layer_norm', {{BIG, -3, 3}, {{997}, -1, 1}, {{997}, -1, 1}}, {}, {1e-5})
op('layer_norm_grad', {{BIG, -3, 3}, {BIG, -3, 3}, {{997}, -1, 1},
  {{53}, -1, 1}, {{53}, 0.5, 1}}, {})
op('layer_norm_grad', {{{1801, 31}, -3, 3}, {{1801, 31}, -3, 3}, {{31}, -1, 1},
  {{1801}, -1, 1}, {{1801}, 0.5, 1}}, {})
op('rms_norm', {{BIG, -3, 3}, {{997}, -1, 1}}, {}, {1e-5})
op('rms_norm_grad', {{BIG, -3, 3}, {BIG, -3, 3}, {{997}, -1, 1},
  {{53}, 0.5, 1}}, {})
op('cross_entropy', {{{1801, 31}, -3, 3}, whole({1801}, 31)}, {-100, 0})
op('cross_entropy_grad', {{{}, 1, 2}, {{1801, 31}, -3, 3}, whole({1801}, 31),
  {{1801}, 3, 4}}, {-100, 0})
op('linear_cross_entropy', {{{1801, 31}, -3, 3}, {{997, 31}, -1, 1},
  whole({1801}, 997), {{997}, -1, 1}}, {-100, 0})
op('linear_cross_entropy_grad', {{{1801, 31}, -3, 3}, {{997, 31}, -1, 1},
  whole({1801}, 997), {{997}, -1, 1}}, {4, -100, 0, 7})
op('embedding', {{{31, 67}, -3, 3}, whole({1801}, 31)})
op('embedding_grad', {{{1801, 67}, -3, 3}, whole({1801}, 31)}, {31})
op('embedding_grad_add', {{{31, 67}, -3, 3}, {{1801, 67}, -3, 3},
  whole({1801}, 31)}, {31})
op('index_select', {{{31, 67}, -3, 3}, whole({1801}, 31)}, {0})
op('index_select_grad', {{{1801, 67}, -3, 3}, whole({1801}, 31)}, {0, 31})
op('gather', {{{31, 1801}, -3, 3}, whole({53, 1801}, 31)}, {0})
op('gather_grad', {{{53, 1801}, -3, 3}, whole({53, 1801}, 31)}, {0, 31})
op('contiguous', {{BIG, -3, 3}})
op('narrow_grad', {{BIG, -3, 3}}, {1, 2, 997, 1, 1000})
op('cat', {{BIG, -3, 3}, {BIG, -3, 3}}, {0})
op('cat', {{BIG, -3, 3}, {{53, 31}, -3, 3}}, {1})
op('pad', {{BIG, -3, 3}}, {1, 0, 0, 2}, {0.5})
op('max_pool2d', {{{3, 7, 61, 67}, -3, 3}}, {3, 2, 2, 2, 1, 0, 1, 1, 1})
op('max_pool2d_grad', {{{3, 7, 31, 34}, -3, 3}, {{3, 7, 61, 67}, -3, 3}},
  {3, 2, 2, 2, 1, 0, 1, 1, 1})
op('max_pool2d_take', {{{3, 7, 61, 67}, -3, 3}, {{3, 7, 61, 67}, -3, 3}},
  {3, 2, 2, 2, 1, 0, 1, 1, 1})
op('avg_pool2d', {{{3, 7, 61, 67}, -3, 3}}, {3, 2, 2, 2, 1, 0, 1, 1, 1, 0, 0})
op('avg_pool2d_grad', {{{3, 7, 31, 34}, -3, 3}},
  {3, 2, 2, 2, 1, 0, 1, 1, 1, 0, 0, 61, 67})
op('adaptive_avg_pool2d upsample_nearest2d adaptive_avg_pool2d_grad ' ..
  'upsample_nearest2d_grad', {{{3, 7, 61, 67}, -3, 3}}, {31, 101})
op('batch_norm', {{{3, 37, 41, 13}, -3, 3}, {{37}, -1, 1}, {{37}, -1, 1}}, {},
  {1e-5, 0.1})
op('batch_norm_grad', {{{3, 37, 41, 13}, -3, 3}, {{3, 37, 41, 13}, -3, 3},
  {{37}, -1, 1}, {{37}, -1, 1}, {{37}, 0.5, 1}}, {}, {1e-5})
op('group_norm', {{{3, 38, 41, 13}, -3, 3}, {{38}, -1, 1}, {{38}, -1, 1}}, {2},
  {1e-5})
op('group_norm_grad', {{{3, 38, 41, 13}, -3, 3}, {{3, 38, 41, 13}, -3, 3},
  {{38}, -1, 1}, {{3, 2}, -1, 1}, {{3, 2}, 0.5, 1}}, {2})

-- The libraries' products may differ between thread counts.
local libraries = {matmul = true, linear = true, conv2d = true,
                   conv2d_grad_input = true, conv2d_grad_weight = true}
-- These are built from products of which only CBLAS's, the f64 ones, do.
local f32_alone = {linear_cross_entropy = true,
                   linear_cross_entropy_grad = true}

describe('the number of threads', function()
  local threads

  setup(function() threads = rp.get_num_threads() end)
  teardown(function() rp.set_num_threads(threads) end)

  local function inputs_of(name, one, dtype)
    local inputs = {}
    for i, input in ipairs(one.inputs) do
      local data = raw.fill(600 + i, input[1], input[2], input[3])
      if input.whole then
        for k = 1, #data do data[k] = math.floor(data[k]) end
      end
      inputs[i] = input.dtype and raw.leaf(input.dtype, input[1], data)
        or raw.floating(name, i, dtype, input[1], data)
    end
    return inputs
  end

  local function value(name, one, dtype, inputs)
    raw.C.rp_manual_seed(raw.ctx, 5)
    local ints = one.ints
    if #one.inputs == 0 and ints[1] == tonumber(raw.code.f32) then
      ints = {tonumber(raw.code[dtype]), ints[2]}
    end
    local y = raw.record(name, inputs, ints, one.reals)
    local out = {}
    for k = 1, one.outputs do
      out[k] = raw.bytes(k == 1 and y or raw.output(y, k - 1))
    end
    return out
  end

  for _, info in ipairs(raw.ops()) do
    local ours = not (info.view or info.effect or libraries[info.name] or
      info.name == 'leaf')
    if ours then
      it('changes no bit of ' .. info.name, function()
        assert(sizes[info.name], 'no case for the op ' .. info.name ..
          ': add one to the table in spec/lua/identity_spec.lua')
        for number, one in ipairs(sizes[info.name]) do
          one.outputs = info.outputs < 0 and one.ints[1] or info.outputs
          local dtypes = f32_alone[info.name] and {'f32'} or {'f32', 'f64'}
          if raw.takes_bf16(info.name) then dtypes[#dtypes + 1] = 'bf16' end
          for _, dtype in ipairs(dtypes) do
            local inputs = inputs_of(info.name, one, dtype)
            rp.set_num_threads(1)
            local want = value(info.name, one, dtype, inputs)
            for count = 2, 3 do
              rp.set_num_threads(count)
              local got = value(info.name, one, dtype, inputs)
              for k = 1, one.outputs do
                assert(got[k] == want[k], ('%s, case %d, %s, output %d differs '
                  .. 'on %d threads'):format(info.name, number, dtype, k - 1, count))
              end
            end
          end
        end
      end)
    end
  end

  for _, name in ipairs {'SGD', 'Adam', 'AdamW'} do
    it('changes no bit of ' .. name, function()
      local function after(count)
        rp.set_num_threads(count)
        local p = rp.nn.Parameter(rp.tensor(raw.fill(1, {50021}, -1, 1)))
        local x = rp.tensor(raw.fill(2, {50021}, -1, 1))
        local options = {lr = 0.1, weight_decay = 0.1}
        if name == 'SGD' then options.momentum = 0.9 end
        local opt = rp.optim[name]({p}, options)
        opt:clip_grad_norm(1)
        for _ = 1, 3 do opt:minimize((p * p * x):sum()) end
        return raw.read(p.ptr)
      end
      local want = after(1)
      for count = 2, 3 do
        assert.is_nil(raw.bit_difference(after(count), want))
      end
    end)
  end
end)
