--- One op at a time, ours and PyTorch's in turn, at the sizes of gpt-10m and of
-- ResNet-18 on 32 images of 32 x 32, heads at those of gpt2-124m: microseconds,
-- and the ratio. `head` is the separate ops that linear_cross_entropy is one
-- of; PyTorch has the separate ones alone.
--
--     PYTHON=python3 luajit bench/ops.lua [--only matmul] [--repeat 9]

local measure = dofile(((arg[0]:match '^(.*/)') or './') .. 'measure.lua')
local rp = require 'reprise'

local o = measure.options {only = '', rounds = 9, threads = 2, inner = 0}
rp.set_num_threads(o.threads)

local n, d = 2048, 384
local all = {
  {'add', {{n, d}, {n, d}}}, {'add', {{n, d}, {d}}},
  {'mul', {{n, d}, {n, d}}},
  {'exp', {{n, d}}}, {'tanh', {{n, d}}}, {'erf', {{n, d}}},
  {'gelu_tanh', {{n, 4 * d}}}, {'gelu', {{n, 4 * d}}},
  {'gelu_tanh.grad', {{n, 4 * d}}},
  {'sum', {{n, d}}}, {'sum_rows', {{n, d}}},
  {'softmax', {{48 * 256, 256}}}, {'softmax.grad', {{48 * 256, 256}}},
  {'layer_norm', {{n, d}, {d}, {d}}}, {'layer_norm.grad', {{n, d}, {d}, {d}}},
  {'cross_entropy', {{n, 65}}}, {'cross_entropy.grad', {{n, 65}}},
  {'head.grad', {{256, 768}, {50257, 768}}},
  {'linear_cross_entropy', {{256, 768}, {50257, 768}}},
  {'linear_cross_entropy.grad', {{256, 768}, {50257, 768}}},
  {'linear_cross_entropy.grad', {{n, d}, {65, d}}},
  {'embedding', {{65, d}, {8, 256}}},
  {'dropout', {{n, d}}},
  {'copy_transposed', {{n, d}}},
  {'matmul', {{n, d}, {d, 4 * d}}}, {'matmul', {{48, 256, 64}, {48, 64, 256}}},
  {'linear', {{n, d}, {4 * d, d}, {4 * d}}},
  {'linear.grad', {{n, d}, {4 * d, d}, {4 * d}}},
  {'attention', {{8, 6, 256, 64}, {8, 6, 256, 64}, {8, 6, 256, 64}}},
  {'attention.grad', {{8, 6, 256, 64}, {8, 6, 256, 64}, {8, 6, 256, 64}}},
  {'attention_dropout',
   {{8, 6, 256, 64}, {8, 6, 256, 64}, {8, 6, 256, 64}}},
  {'attention_dropout.grad',
   {{8, 6, 256, 64}, {8, 6, 256, 64}, {8, 6, 256, 64}}},
  {'packed_attention', {{8, 256, 3, 6, 64}}},
  {'packed_attention.grad', {{8, 256, 3, 6, 64}}},
  {'packed_attention_dropout.grad', {{8, 256, 3, 6, 64}}},
  {'attention', {{1, 6, 4096, 64}, {1, 6, 4096, 64}, {1, 6, 4096, 64}}},
  {'attention.grad', {{1, 6, 4096, 64}, {1, 6, 4096, 64}, {1, 6, 4096, 64}}},
  {'conv2d', {{32, 3, 32, 32}, {64, 3, 3, 3}}},
  {'conv2d', {{32, 64, 32, 32}, {64, 64, 3, 3}}},
  {'conv2d.grad', {{32, 64, 32, 32}, {64, 64, 3, 3}}},
  {'conv2d.grad', {{32, 512, 4, 4}, {512, 512, 3, 3}}},
  {'batch_norm', {{32, 64, 32, 32}, {64}, {64}}},
  {'batch_norm.grad', {{32, 64, 32, 32}, {64}, {64}}},
  {'max_pool2d', {{32, 64, 32, 32}}}, {'max_pool2d.grad', {{32, 64, 32, 32}}},
}

local function calls(name, x, shapes)
  local width = shapes[1][#shapes[1]]
  local table_of = {
    add = function() return x[1] + x[2] end,
    mul = function() return x[1] * x[2] end,
    exp = function() return x[1]:exp() end,
    tanh = function() return x[1]:tanh() end,
    erf = function() return x[1]:erf() end,
    gelu = function() return rp.gelu(x[1]) end,
    gelu_tanh = function() return rp.gelu(x[1], 'tanh') end,
    sum = function() return x[1]:sum() end,
    sum_rows = function() return x[1]:sum(1) end,
    softmax = function() return x[1]:softmax(-1) end,
    layer_norm = function() return rp.layer_norm(x[1], x[2], x[3]) end,
    dropout = function() return rp.dropout(x[1], 0.1) end,
    copy_transposed = function() return x[1]:t():contiguous() end,
    matmul = function() return x[1]:matmul(x[2]) end,
    linear = function() return rp.linear(x[1], x[2], x[3]) end,
    conv2d = function() return rp.conv2d(x[1], x[2], nil, {padding = 1}) end,
    batch_norm = function()
      return rp.batch_norm(x[1], nil, nil, x[2], x[3], true)
    end,
    max_pool2d = function() return rp.max_pool2d(x[1], 2) end,
    attention = function()
      return rp.scaled_dot_product_attention(x[1], x[2], x[3], {causal = true})
    end,
    attention_dropout = function()
      return rp.scaled_dot_product_attention(x[1], x[2], x[3],
        {causal = true, dropout_p = 0.1})
    end,
    packed_attention = function()
      return rp.packed_attention(x[1], {causal = true})
    end,
    packed_attention_dropout = function()
      return rp.packed_attention(x[1], {causal = true, dropout_p = 0.1})
    end,
  }
  local function labels(classes)
    local rows = {}
    for i = 1, #shapes[1] - 1 do rows[i] = shapes[1][i] end
    return rp.randint(0, classes, rows, {dtype = 'i32'}):run()
  end
  if name == 'cross_entropy' then
    local y = labels(width)
    return function() return rp.cross_entropy(x[1], y) end
  elseif name == 'head' then
    local y = labels(shapes[2][1])
    return function() return rp.cross_entropy(rp.linear(x[1], x[2]), y) end
  elseif name == 'linear_cross_entropy' then
    local y = labels(shapes[2][1])
    return function() return rp.linear_cross_entropy(x[1], x[2], y) end
  elseif name == 'embedding' then
    local index = rp.randint(0, shapes[1][1], shapes[2], {dtype = 'i32'})
    rp.run(index)
    return function() return rp.embedding(index, x[1]) end
  end
  return table_of[name]
end

--- A function that does the op's work once.
local function ours(name, shapes)
  local base = name:gsub('%.grad$', '')
  local x = {}
  for i, shape in ipairs(shapes) do x[i] = rp.randn(shape) end
  rp.run(unpack(x))
  local call = calls(base, x, shapes)
  if base == name then
    return function() rp.run(call()) end
  end
  local dy = rp.randn(call().shape)
  rp.run(dy)
  return function() rp.run(unpack(rp.grad(call(), x, dy))) end
end

local peer = measure.peer(o.threads)
local rows = {}
for _, entry in ipairs(all) do
  local name, shapes = entry[1], entry[2]
  if name:find(o.only, 1, true) then
    local run = ours(name, shapes)
    run()
    local once = measure.seconds(run)
    local inner = o.inner > 0 and o.inner
      or math.max(1, math.min(200, math.floor(0.02 / once)))
    local a = measure.each(run, o.rounds, inner)
    local b = peer and peer:ask('op', {name = name, shapes = shapes,
                                       ['repeat'] = o.rounds, inner = inner})
    local text = {}
    for i, s in ipairs(shapes) do text[i] = '(' .. table.concat(s, ',') .. ')' end
    rows[#rows + 1] = {
      name, table.concat(text, ' '), ('%.1f'):format(a * 1e6),
      b and ('%.1f'):format(b.seconds * 1e6),
      b and ('%.2f'):format(a / b.seconds),
    }
  end
end
measure.print_table({'op', 'shapes', 'ours us', 'peer us', 'ratio'}, rows)
if peer then peer:close() end
