-- Pictures: that they are well-formed, and that what they draw is the plan.

local rp = require 'reprise'
local axis = require 'reprise.report.axis'
local curve = require 'reprise.report.curve'
local picture_of = require 'reprise.report.picture'
local run = require 'spec.support.run'
local svg = require 'reprise.report.svg'
local timeline = require 'reprise.report.timeline'

-- Every element that opens closes, in order, and no text breaks the markup.
local function assert_well_formed(text)
  local open = {}
  for close, name, rest in text:gmatch '<(/?)(%a+)([^>]*)>' do
    if close == '/' then
      assert.equal(name, table.remove(open))
    elseif rest:sub(-1) ~= '/' then
      open[#open + 1] = name
    end
    assert.is_nil(rest:gsub('"[^"]*"', ''):find '["&]')
  end
  assert.equal(0, #open)
  assert.is_nil(text:find 'nan')
  assert.is_nil(text:find 'inf"')
end

local function plan_of(name, spec)
  local made = run.model(name)
  local opt = rp.optim.AdamW(made.parameters, {lr = 1e-3})
  return opt:plan(made.loss(), {ckpt = spec})
end

describe('an svg', function()
  it('escapes text and rounds numbers', function()
    local picture = svg.new(10, 20)
    picture:text(1.26, 2, 'a < b & "c"', {font_size = 9})
    local text = tostring(picture)
    assert_well_formed(text)
    assert.is_truthy(text:find('a &lt; b &amp; &quot;c&quot;', 1, true))
    assert.is_truthy(text:find('font-size="9" x="1.3" y="2"', 1, true))
  end)

  it('has round ticks', function()
    assert.same({0, 20, 40, 60, 80, 100}, svg.ticks(100, 5))
    assert.same({0, 0.5, 1, 1.5}, svg.ticks(1.7, 4))
    local list, unit = axis.bytes(123 * 2 ^ 20, 560 * 2 ^ 20, 5)
    assert.equal('MiB', unit)
    assert.equal('200', list[1].label)
    assert.equal(200 * 2 ^ 20, list[1].value)
    assert.same({}, (axis.seconds(0, 0, 4)))
  end)
end)

describe('the timeline of a plan', function()
  setup(run.quiet)
  teardown(run.loud)

  it('stacks, at every run, to the bytes that are live there', function()
    for _, name in ipairs {'mlp', 'gpt', 'branches', 'nested'} do
      for _, spec in ipairs {'none', 'nodes=2', 'sqrt', 'budget=min'} do
        local plan = plan_of(name, spec)
        local line, most = timeline.of(plan), 0
        for i, r in ipairs(line.runs) do
          local total = 0
          for _, kind in ipairs(timeline.kinds) do
            total = total + line.live[kind][i]
          end
          assert.equal(r.live_bytes, total, name .. ' ' .. spec .. ' ' .. i)
          most = math.max(most, total)
        end
        assert.equal(plan.live_bytes, most)
        assert.equal(line.runs[line.peak].live_bytes, most)
      end
    end
  end)

  it('tells forward, replay, backward and update apart', function()
    local counts = {}
    local plan = plan_of('gpt', 'every=1')
    for _, r in ipairs(timeline.of(plan).runs) do
      counts[r.kind] = (counts[r.kind] or 0) + 1
    end
    assert.equal(plan.n_replays, counts.replay)
    assert.is_true(counts.forward > 10 and counts.backward > counts.forward)
    assert.equal(#run.model('gpt').parameters, counts.update)
  end)
end)

describe('the picture of a plan', function()
  setup(run.quiet)
  teardown(run.loud)

  it('is well-formed, and names the peak and its cause', function()
    for _, spec in ipairs {'none', 'every=1'} do
      local plan = plan_of('gpt', spec)
      local text = tostring(picture_of(plan, 'a < title'))
      assert_well_formed(text)
      assert.is_truthy(text:find('peak [%d.]+ KiB at '))
      if spec == 'every=1' then
        assert.is_truthy(text:find 'gpt.-recomputed: read by')
      end
    end
  end)
end)

describe('the curve', function()
  setup(run.quiet)
  teardown(run.loud)

  it('has no named strategy below it', function()
    local made = run.model 'gpt'
    local opt = rp.optim.AdamW(made.parameters, {lr = 1e-3})
    local loss = made.loss()
    local c = curve.of(function(spec) return opt:plan(loss, {ckpt = spec}) end)
    assert.is_true(#c.points >= 6)
    for i = 2, #c.front do
      assert.is_true(c.front[i].peak_bytes > c.front[i - 1].peak_bytes)
      assert.is_true(c.front[i].seconds < c.front[i - 1].seconds)
    end
    assert_well_formed(tostring(curve.picture(c, 'title')))
    local text = curve.text(c, 'title')
    for _, point in ipairs(c.points) do
      assert.is_truthy(text:find('\n  ' .. point.strategy .. ' ', 1, true))
    end
  end)

  it('leaves out what does not match', function()
    local made = run.model 'branches'
    local c = curve.of(function(spec)
      return made.loss():plan {ckpt = spec}
    end, {'none', 'attention'})
    assert.equal(1, #c.points)
  end)
end)
