-- The machine's rates: stored by one process, read by the next; the built-in
-- ones where nothing is stored or what is stored is damaged.

local ffi = require 'ffi'
local rp = require 'reprise'
local binding = require 'reprise.ffi'
local files = require 'spec.support.files'
local run = require 'spec.support.run'

local C, ctx = binding.C, binding.ctx

local folder, path

local content = files.content

local function write(text) files.write(path, text) end

-- What a process prints that has these settings.
local function process(environment, code)
  local out = os.tmpname()
  os.execute(([[%s OMP_NUM_THREADS=1 luajit -e "package.path = './lua/?.lua;]] ..
    [[./lua/?/init.lua;' .. package.path; rp = require 'reprise'; %s" > %s 2>&1]]):format(
    environment, code, out))
  local text = content(out)
  os.remove(out)
  return text
end

local RATES = "local b = require 'reprise.ffi'; local r = b.C.rp_rates_get(b.ctx); " ..
  "print(r.flops_per_second, r.bytes_per_second)"
local BUILT_IN = '150000000000\t20000000000\n'

describe('stored rates', function()
  setup(function()
    run.quiet()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute('mkdir ' .. folder))
    path = folder .. '/rates.json'
  end)

  teardown(function()
    run.loud()
    os.execute('rm -r ' .. folder)
  end)

  it('are not what these specs run with', function()
    assert.equal('off', os.getenv 'REPRISE_RATES')
    local rates = C.rp_rates_get(ctx)
    assert.equal(150e9, rates.flops_per_second)
    assert.equal(20e9, rates.bytes_per_second)
  end)

  it('are read where they are said to be', function()
    write '{"reprise_rates":1,"flops_per_second":3e9,"bytes_per_second":7e8,"threads":2}'
    assert.equal('3000000000\t700000000\n', process('REPRISE_RATES=' .. path, RATES))
    assert.equal(BUILT_IN, process('REPRISE_RATES=' .. path .. '.none', RATES))
    assert.equal(BUILT_IN, process('REPRISE_RATES=off', RATES))
    os.execute(('mkdir -p %s/reprise %s/.cache/reprise'):format(folder, folder))
    os.execute(('cp %s %s/reprise/rates.json'):format(path, folder))
    os.execute(('cp %s %s/.cache/reprise/rates.json'):format(path, folder))
    local unset = 'env -u REPRISE_RATES -u XDG_CACHE_HOME '
    assert.equal('3000000000\t700000000\n',
      process(unset .. 'XDG_CACHE_HOME=' .. folder, RATES))
    assert.equal('3000000000\t700000000\n', process(unset .. 'HOME=' .. folder, RATES))
    assert.equal(BUILT_IN, process(unset .. 'XDG_CACHE_HOME=spec HOME=/', RATES))
  end)

  it('that are damaged are told, and the built-in ones stand', function()
    for _, text in ipairs {'', '{', '[]', '{"reprise_rates":1}',
        '{"reprise_rates":2,"flops_per_second":3e9,"bytes_per_second":7e8}',
        '{"reprise_rates":1,"flops_per_second":-3e9,"bytes_per_second":7e8}',
        '{"reprise_rates":1,"flops_per_second":0,"bytes_per_second":7e8}'} do
      write(text)
      local told = process('REPRISE_RATES=' .. path, RATES)
      assert.equal(BUILT_IN, told:match '[^\n]*\n$')
      assert.is_truthy(told:find('reprise: ' .. path .. ' is damaged: ', 1, true), told)
      assert.is_truthy(told:find 'plans are made with the built%-in rates', told)
    end
  end)

  it('come from rp.calibrate, for the processes to come', function()
    os.remove(path)
    local text = process('REPRISE_RATES=' .. folder .. '/new/rates.json', RATES ..
      '; local m = rp.calibrate(); print(m.path); ' .. RATES)
    assert.equal(BUILT_IN .. folder .. '/new/rates.json\n' .. BUILT_IN, text)
    local next_text = process('REPRISE_RATES=' .. folder .. '/new/rates.json', RATES)
    local flops, bytes = next_text:match '^(%S+)\t(%S+)\n$'
    assert.is_true(tonumber(flops) > 0 and tonumber(bytes) > 0)
    assert.not_equal(BUILT_IN, next_text)
    assert.is_truthy(process('REPRISE_RATES=off', 'rp.calibrate()'):find(
      '[calibrate] there is no place to store rates: REPRISE_RATES=FILE names one', 1, true))
  end)

  it('are in a plan\'s key, and scale what it predicts', function()
    local made = run.model 'mlp'
    local function seconds() return made.loss():plan({ckpt = 'none'}).step_seconds end
    local before, built_in = seconds(), C.rp_rates_get(ctx)
    finally(function() C.rp_rates_set(ctx, built_in) end)
    assert.equal(C.RP_OK, C.rp_rates_set(ctx, ffi.new('rp_rates', 75e9, 10e9)))
    assert.is_true(math.abs(seconds() / before - 2) < 1e-12)
    C.rp_rates_set(ctx, built_in)
    assert.equal(before, seconds())
    assert.equal(C.RP_VALUE, C.rp_rates_set(ctx, ffi.new('rp_rates', 75e9, 0 / 0)))
    assert.equal(before, seconds())
  end)
end)

describe('a kernel with a cost of its own', function()
  local rates = {flops_per_second = 150e9, bytes_per_second = 20e9}

  --- Predicted seconds of a convolution of n images, 3 x 3, and of both gradients.
  local function seconds(n, channels, size)
    local x = rp.nn.Parameter(rp.randn(n, channels, size, size))
    local w = rp.nn.Parameter(rp.randn(channels, channels, 3, 3))
    local made = {}
    rp.conv2d(x, w, nil, {padding = 1}):sum():plan {ckpt = function(graph)
      for _, node in ipairs(graph.nodes) do
        if node.op:find '^conv2d' then made[node.op] = node.seconds end
      end
      return {}
    end}
    return made
  end

  it('is planned with it: Winograd by its products and its transforms', function()
    -- 32 tiles of 36 products; 52 values of each tile and channel and 45 of
    -- each pair of channels are moved.
    local flops = 2 * 36 * 32 * 32 * 32
    local bytes = 4 * (52 * 32 * (32 + 32) + 45 * 32 * 32)
    local want = flops / rates.flops_per_second + bytes / rates.bytes_per_second
    for op, took in pairs(seconds(2, 32, 16)) do
      assert.near(1, took / want, 1e-9, op)
    end
  end)

  it('is planned with the op\'s where the kernel is another', function()
    local flops = 2 * 9 * 24 * 24 * 2 * 64 * 64
    assert.near(1, seconds(2, 24, 64).conv2d * rates.flops_per_second / flops, 1e-9)
  end)
end)
