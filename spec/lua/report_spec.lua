local cjson = require 'cjson'
local rp = require 'reprise'
local run = require 'spec.support.run'
local json = require 'reprise.report.json'
local memory = require 'reprise.report.memory'
local plan_report = require 'reprise.report.plan'
local progress = require 'reprise.report.progress'
local summary_of = require 'reprise.report.summary'
local units = require 'reprise.report.units'

local MIB = 2 ^ 20

describe('units', function()
  it('writes bytes', function()
    assert.equal('0 B', units.bytes(0))
    assert.equal('1023 B', units.bytes(1023))
    assert.equal('1.0 KiB', units.bytes(1024))
    assert.equal('1.0 MiB', units.bytes(2 ^ 20 - 1))
    assert.equal('318.4 MiB', units.bytes(318.4 * MIB))
    assert.equal('1.00 GiB', units.bytes(2 ^ 30 - 1))
    assert.equal('-1.5 KiB', units.bytes(-1536))
  end)

  it('reads bytes', function()
    for text, bytes in pairs {['16GiB'] = 2 ^ 34, ['300 MiB'] = 300 * MIB,
        ['1.5kb'] = 1500, ['17'] = 17, ['1e3'] = 1000} do
      assert.equal(bytes, units.parse_bytes(text))
    end
    assert.equal(4096, units.parse_bytes(4096))
    for _, text in ipairs {'', 'GiB', '-1', '0', '1 apple', 'nan', '1e999'} do
      assert.is_nil(units.parse_bytes(text))
    end
  end)

  it('writes clocks, counts, rates and shares', function()
    assert.equal('0:00', units.clock(0.4))
    assert.equal('1:42', units.clock(102))
    assert.equal('1:00', units.clock(59.6))
    assert.equal('2:03:09', units.clock(7389))
    assert.equal('840 us', units.seconds(0.00084))
    assert.equal('<1 us', units.seconds(4e-7))
    assert.equal('12.5 ms', units.seconds(0.0125))
    assert.equal('1.42 s', units.seconds(1.416))
    assert.equal('5:30', units.seconds(330))
    assert.equal('950', units.count(950))
    assert.equal('10.8 M', units.count(10.77e6))
    assert.equal('124 M', units.count(124.4e6))
    assert.equal('1.56 G', units.count(1.558e9))
    assert.equal('1.00 M', units.count(999999))
    assert.equal('840', units.rate(840))
    assert.equal('18.4k', units.rate(18412))
    assert.equal('1.0M', units.rate(999960))
    assert.equal('<1 %', units.percent(0.002))
    assert.equal('0 %', units.percent(0))
    assert.equal('0 %', units.percent(-0.002))
    assert.equal('31 %', units.percent(0.312))
  end)
end)

describe('json', function()
  it('writes doubles that read back as the same bits', function()
    for _, x in ipairs {0.1, 1 / 3, 2.3141592653589793, 1e-300, -5e-324,
        2 ^ 52 + 1, 1e300} do
      local line = json.object {{'x', x}}
      assert.equal(x, tonumber(line:match ':(.*)}'))
    end
  end)

  it('keeps the order, escapes, and is JSON', function()
    local line = json.object {{'b', 'a "b"\\\n\1'}, {'a', {1, true, 'x'}},
      {'none', nil}, {'null', json.null}, {'nan', 0 / 0},
      {'o', {object = {{'k', 2}}}}}
    assert.equal('{"b":"a \\"b\\"\\\\\\n\\u0001","a":[1,true,"x"],'
      .. '"null":null,"nan":null,"o":{"k":2}}', line)
    assert.equal('a "b"\\\n\1', cjson.decode(line).b)
  end)
end)

local function summary(changes)
  local plan = {
    strategy = 'every=2', peak_bytes = 318 * MIB, persistent_bytes = 130 * MIB,
    arena_bytes = 188 * MIB, parameter_bytes = 41 * MIB,
    optimizer_bytes = 82 * MIB, held_gradient_bytes = 0,
    gradient_bytes = 18 * MIB, kept_bytes = 140 * MIB,
    recomputed_bytes = 30 * MIB, workspace_bytes = 1 * MIB,
    passing_bytes = 0, buffer_bytes = 0, input_bytes = 4 * MIB,
    result_bytes = 64, fragmentation_bytes = 2 * MIB - 64, seconds = 1.216,
    min_budget_bytes = 150 * MIB,
    recompute_fraction = 0.16, step_fraction = 0.05, n_segments = 1,
    n_replays = 42, recomputed_nodes = 42, light_nodes = 0,
    most_replays = 1, layers = {'a', 'b', 'c', 'd'}, recomputed_layers = {1, 3},
    peak_at = 'gelu_tanh_grad in gpt.blocks.4.mlp', peak_instruction = 412,
    n_instructions = 1038,
    largest = {{name = 'gpt.blocks.4.mlp.fc', shape = '8x256x1536',
                bytes = 12 * MIB, reason = 'kept: read by backward of gelu'}},
    segments = {{first = 1, last = 9, from = 'a', to = 'b'}},
  }
  for key, value in pairs(changes or {}) do plan[key] = value end
  return plan
end

local none = summary {strategy = 'none', peak_bytes = 512 * MIB,
  kept_bytes = 364 * MIB, recomputed_bytes = 0, n_replays = 0, n_segments = 0,
  recompute_fraction = 0, segments = {}, recomputed_layers = {},
  input_bytes = 4 * MIB}

describe('the memory report', function()
  it('is made of parts that add up to the peak', function()
    for _, plan in ipairs {summary(), none} do
      local total = 0
      for _, part in ipairs(memory.parts(plan)) do total = total + part[2] end
      assert.equal(plan.peak_bytes, total)
    end
  end)

  it('says what checkpointing saves and costs', function()
    assert.equal('Activation checkpointing: ENABLED (every=2: peak 318.0 MiB, '
      .. '38 % below none, recomputes 16 % of the forward)',
      memory.verdict(summary(), none))
    assert.is_truthy(memory.verdict(none, none):find(
      'Activation checkpointing: DISABLED (use --ckpt', 1, true))
    assert.is_truthy(memory.verdict(summary {peak_bytes = 600 * MIB}, none)
      :find('17 % above none', 1, true))
  end)

  it('shows the chosen strategy beside none', function()
    local report = memory.text(summary(), none)
    assert.is_truthy(report:find('every=2%s+none\n'))
    assert.is_truthy(report:find('activations%s+170.0 MiB%s+364.0 MiB\n'))
    assert.is_truthy(report:find('peak%s+318.0 MiB%s+512.0 MiB\n'))
    assert.is_nil(memory.text(none, none):find('none%s+none'))
  end)
end)

describe('the plan report', function()
  it('says where the peak is, what it is made of and what is largest', function()
    local report = plan_report.text(summary(), none, 'gpt-10m')
    for _, part in ipairs {
      'gpt-10m\n',
      'peak 318.0 MiB, while running gelu_tanh_grad in gpt.blocks.4.mlp '
        .. '(instruction 412 of 1038)',
      'none would need 512.0 MiB (+61 %); the least budget is 150.0 MiB',
      'recomputed: 42 nodes once in 2 of 4 layers (1, 3), 16 % of the forward, '
        .. 'about 5 % of the step',
      'gpt.blocks.4.mlp.fc                  8x256x1536      12.0 MiB  '
        .. 'kept: read by backward of gelu',
      'predicted: 1.22 s a step, 1.22 s under none',
      'fragmentation         2.0 MiB',
    } do
      assert.is_truthy(report:find(part, 1, true), part .. '\n' .. report)
    end
  end)

  it('leaves the middle out of long names', function()
    local name = 'gpt.blocks.4.attention.scaled_masked_softmax'
    local report = plan_report.text(summary {largest = {{name = name,
      shape = '8x6x256x256', bytes = 1, reason = 'x'}}}, none)
    assert.is_truthy(report:find('gpt.blocks.4.atte..ed_masked_softmax ', 1,
      true), report)
  end)

  it('is made of parts that add up to the peak', function()
    run.quiet()
    for _, name in ipairs {'mlp', 'gpt', 'branches'} do
      local made = run.model(name)
      local opt = rp.optim.AdamW(made.parameters, {lr = 1e-3})
      for _, spec in ipairs {'none', 'every=1', 'nodes=2', 'budget=min'} do
        local plan = summary_of.of(opt:plan(made.loss(), {ckpt = spec}))
        local total = 0
        for _, part in ipairs(plan_report.parts(plan)) do
          assert.is_true(part[2] >= 0, part[1])
          total = total + part[2]
        end
        assert.equal(plan.peak_bytes, total, name .. ' ' .. spec)
      end
    end
    run.loud()
  end)

  it('says why each of the ten largest values is alive', function()
    run.quiet()
    local made = run.model 'gpt'
    local plan = summary_of.of(made.loss():plan {ckpt = 'every=2'})
    run.loud()
    assert.equal(10, #plan.largest)
    local kinds = {}
    for i, value in ipairs(plan.largest) do
      assert.is_true(i == 1 or value.bytes <= plan.largest[i - 1].bytes)
      kinds[value.reason:match '^(%a+)'] = true
    end
    assert.is_true(kinds.kept)
  end)

  it('is one JSON object', function()
    local line = plan_report.json(summary(), none)
    assert.is_nil(line:find '\n')
    local object = cjson.decode(line)
    assert.equal('every=2', object.strategy)
    assert.equal(318 * MIB, object.peak_bytes)
    assert.equal(512 * MIB, object.none_peak_bytes)
    assert.equal(object.peak_bytes, object.persistent_bytes + object.arena_bytes)
    assert.equal(0.16, object.recompute_fraction)
    assert.equal(1.216, object.predicted_seconds)
    assert.equal(150 * MIB, object.min_budget_bytes)
    assert.equal(1, #object.segments)
    assert.equal('b', object.segments[1].to)
  end)
end)

describe('the progress line', function()
  local function step(n, changes)
    local s = {step = n, loss = 2.31412, seconds = n * 0.1, rate = 18412,
      unit = 'tokens', peak_bytes = 318 * MIB, promised_bytes = 318 * MIB}
    for key, value in pairs(changes or {}) do s[key] = value end
    return s
  end

  local function recorder()
    local written = {}
    return {
      write = function(_, ...)
        for _, part in ipairs {...} do written[#written + 1] = part end
      end,
      flush = function() end,
      text = function() return table.concat(written) end,
    }
  end

  it('has all of it', function()
    assert.equal('step  120/2000  loss 2.3141  val 2.4012  18.4k tokens/s  '
      .. '3:08 left  peak 318.0 MiB as promised',
      progress.text(2000, step(120, {val_loss = 2.40119})))
  end)

  it('says when a promise was broken', function()
    assert.is_truthy(progress.text(10, step(1, {peak_bytes = 319 * MIB}))
      :find('peak 319.0 MiB (promised 318.0 MiB)', 1, true))
  end)

  it('rewrites one line on a terminal, ends it at a held-out loss', function()
    local out = recorder()
    local line = progress.new(10, {out = out, terminal = true, width = 60})
    line:show(step(1))
    line:show(step(2, {val_loss = 2}))
    line:show(step(3))
    line:finish()
    local text = out.text()
    assert.equal(2, select(2, text:gsub('\n', '')))
    assert.equal(3, select(2, text:gsub('\r', '')))
    for shown in text:gmatch '\r([^\27]*)' do
      assert.is_true(#shown < 60)
      assert.is_nil(shown:find 'as')
    end
  end)

  it('writes few and whole lines elsewhere', function()
    local out = recorder()
    local line = progress.new(1000, {out = out, terminal = false})
    for n = 1, 1000 do line:show(step(n)) end
    local text = out.text()
    assert.is_nil(text:find '[\r\27]')
    -- The first, the last, and one each ten seconds of a hundred.
    local _, lines = text:gsub('\n', '')
    assert.is_true(lines >= 10 and lines <= 12)
  end)
end)
