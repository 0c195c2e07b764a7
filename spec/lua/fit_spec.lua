-- The largest size that fits, against trying them all.

local rp = require 'reprise'
local run = require 'spec.support.run'
local nn = rp.nn

local function build(n)
  local model = nn.Sequential {nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64),
    nn.Tanh(), nn.Linear(64, 4)}
  local opt = rp.optim.AdamW(model:parameters(), {lr = 1e-3})
  local x = rp.zeros(n, 8)
  return (model(x) ^ 2):mean(), opt
end

-- Attention's peak is quadratic in the sequence.
local function attend(n)
  local x = rp.zeros(1, n, 8)
  local attention = nn.MultiHeadAttention(8, 2, {causal = true})
  return attention(x):sum()
end

local function peak(make, n, ckpt)
  local loss, opt = make(n)
  local options = {ckpt = ckpt or 'budget=min'}
  return (opt and opt:plan(loss, options) or loss:plan(options)).peak_bytes
end

describe('rp.fit', function()
  setup(run.quiet)
  teardown(run.loud)

  it('finds what trying every size finds', function()
    for _, case in ipairs {{build, nil, 100}, {build, 'nodes=2', 100},
        {attend, 'none', 60}} do
      local make, ckpt, most = case[1], case[2], case[3]
      local peaks = {}
      for n = 1, most do peaks[n] = peak(make, n, ckpt) end
      for _, n in ipairs {1, 2, 3, 7, 16, 17, 33, most - 1} do
        -- The largest size that is no larger than n in bytes.
        local want = n
        while want < most and peaks[want + 1] <= peaks[n] do want = want + 1 end
        local found = rp.fit(make, peaks[n], {ckpt = ckpt, most = most})
        assert.equal(want, found.n)
        assert.equal(peaks[want], found.peak_bytes)
        if want < most then assert.equal(peaks[want + 1], found.next_bytes) end
      end
    end
  end)

  it('plans few sizes, and allocates none', function()
    local before = rp.memory().bytes
    local found = rp.fit(build, '1GiB')
    assert.is_true(found.n > 100000)
    assert.is_true(found.peak_bytes <= 2 ^ 30 and found.next_bytes > 2 ^ 30)
    assert.is_true(found.tried <= 12, found.tried)
    -- Plain numbers in arithmetic are leaves of 64 bytes.
    assert.is_true(rp.memory().bytes - before < 4096)
  end)

  it('says that not even the least fits', function()
    local found = rp.fit(build, 1000)
    assert.equal(0, found.n)
    assert.is_true(found.peak_bytes > 1000)
  end)

  it('stops where sizes are refused, and says why', function()
    local found = rp.fit(function(n)
      if n > 13 then error('only 13 there are', 0) end
      return build(n)
    end, '1GiB')
    assert.equal(13, found.n)
    assert.equal('only 13 there are', found.reason)
    assert.has_error(function()
      rp.fit(function() error('none at all', 0) end, '1GiB')
    end, 'none at all')
  end)

  it('refuses what is no size', function()
    for _, limit in ipairs {'abc', '-1', '0', '16 apples', ''} do
      assert.is_false(pcall(rp.fit, build, limit))
    end
  end)
end)
