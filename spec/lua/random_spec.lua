-- Random ops: what is drawn depends on the seed and on nothing else, and has
-- the distribution it says. Bounds are six standard deviations of the
-- statistic; seeds are fixed, so a run says the same each time.

local rp = require 'reprise'
local raw = require 'spec.support.raw'

local N = 40000

local function draw(seed, name, ...)
  rp.manual_seed(seed)
  return raw.read(rp[name](...).ptr)
end

local function moments(x)
  local n, mean = #x, 0
  for i = 1, n do mean = mean + x[i] end
  mean = mean / n
  local m2, m3, m4 = 0, 0, 0
  for i = 1, n do
    local d = x[i] - mean
    m2, m3, m4 = m2 + d ^ 2, m3 + d ^ 3, m4 + d ^ 4
  end
  return mean, m2 / n, m3 / n / (m2 / n) ^ 1.5, m4 / n / (m2 / n) ^ 2
end

--- The largest distance between the empirical and a given distribution
-- function (Kolmogorov and Smirnov), times sqrt(n): above 1.95 in one of a
-- thousand.
local function distance(x, cdf)
  local sorted = {}
  for i = 1, #x do sorted[i] = x[i] end
  table.sort(sorted)
  local worst = 0
  for i = 1, #sorted do
    local f = cdf(sorted[i])
    worst = math.max(worst, math.abs(f - i / #x), math.abs(f - (i - 1) / #x))
  end
  return worst * math.sqrt(#x)
end

--- Correlation of neighbours.
local function serial(x)
  local mean, variance = moments(x)
  local sum = 0
  for i = 1, #x - 1 do sum = sum + (x[i] - mean) * (x[i + 1] - mean) end
  return sum / (#x - 1) / variance
end

--- The normal distribution function, by the series of Marsaglia (2004).
local function normal(x)
  if x < -8 then return 0 elseif x > 8 then return 1 end
  local sum, term, k = x, x, 1
  while math.abs(term) > 1e-17 do
    k = k + 2
    term = term * x * x / k
    sum = sum + term
  end
  return 0.5 + sum * math.exp(-0.5 * x * x - 0.91893853320467274178)
end

for _, dtype in ipairs {'f32', 'f64'} do
  local o = {dtype = dtype}

  describe('random ops in ' .. dtype, function()
    it('draw the same for the same seed and another for another', function()
      for _, name in ipairs {'rand', 'randn'} do
        local x = draw(1, name, 100, o)
        assert.is_nil(raw.bit_difference(draw(1, name, 100, o), x))
        assert.truthy(raw.bit_difference(draw(2, name, 100, o), x))
      end
    end)

    it('draw anew with each call', function()
      rp.manual_seed(1)
      local x, y = rp.rand(100, o), rp.rand(100, o)
      assert.truthy(raw.bit_difference(raw.read(x.ptr), raw.read(y.ptr)))
    end)

    it('do not depend on when they run', function()
      rp.manual_seed(1)
      local x, y = rp.rand(100, o), rp.randn(100, o)
      local b = raw.read(y.ptr)
      local a = raw.read(x.ptr)
      rp.manual_seed(1)
      x, y = rp.rand(100, o), rp.randn(100, o)
      assert.is_nil(raw.bit_difference(raw.read(x.ptr), a))
      assert.is_nil(raw.bit_difference(raw.read(y.ptr), b))
    end)

    it('are a function of the element: a longer draw starts the same', function()
      local long, short = draw(3, 'rand', 101, o), draw(3, 'rand', 37, o)
      for i = 1, 37 do assert.equal(long[i], short[i]) end
    end)

    it('rand is uniform in [0, 1)', function()
      local x = draw(4, 'rand', N, o)
      for i = 1, N do assert(x[i] >= 0 and x[i] < 1) end
      local mean, variance = moments(x)
      assert.near(0.5, mean, 6 * math.sqrt(1 / 12 / N))
      assert.near(1 / 12, variance, 6 * math.sqrt(1 / 180 / N))
      assert(distance(x, function(v) return v end) < 1.95)
      assert.near(0, serial(x), 6 / math.sqrt(N))
    end)

    it('randn is normal', function()
      local x = draw(5, 'randn', N, o)
      local mean, variance, skew, kurtosis = moments(x)
      assert.near(0, mean, 6 / math.sqrt(N))
      assert.near(1, variance, 6 * math.sqrt(2 / N))
      assert.near(0, skew, 6 * math.sqrt(6 / N))
      assert.near(3, kurtosis, 6 * math.sqrt(24 / N))
      assert(distance(x, normal) < 1.95)
      assert.near(0, serial(x), 6 / math.sqrt(N))
      for i = 1, N do assert(math.abs(x[i]) < 9) end
    end)

    it('dropout keeps 1 - p and divides by it; its gradient has the mask',
      function()
        local p = 0.25
        rp.manual_seed(6)
        local x = rp.ones(N, {dtype = dtype, requires_grad = true})
        local y = rp.dropout(x, p)
        local kept = raw.read(y.ptr)
        local count = 0
        for i = 1, N do
          if kept[i] ~= 0 then
            count = count + 1
            assert.near(1 / (1 - p), kept[i], 1e-6)
          end
        end
        assert.near(1 - p, count / N, 6 * math.sqrt(p * (1 - p) / N))
        assert.near(0, serial(kept), 6 / math.sqrt(N))
        local dx = rp.grad(y:sum(), {x})[1]
        assert.is_nil(raw.bit_difference(raw.read(dx.ptr), kept))
      end)
  end)
end

describe('random ops in bf16', function()
  it('round what is drawn in f32', function()
    for _, name in ipairs {'rand', 'randn'} do
      rp.manual_seed(7)
      local x = rp[name](3, 5, {dtype = 'bf16', requires_grad = true})
      assert.equal('bf16', x.dtype)
      assert.is_true(x.requires_grad)
      rp.manual_seed(7)
      local want = rp[name](3, 5):to 'bf16'
      assert.is_nil(raw.bit_difference(raw.read(x.ptr), raw.read(want.ptr)))
    end
  end)
end)

describe('randint', function()
  for _, dtype in ipairs {'i32', 'i64'} do
    it('is uniform over low .. high - 1 in ' .. dtype, function()
      rp.manual_seed(7)
      local x = raw.read(rp.randint(-3, 8, {N}, {dtype = dtype}).ptr)
      local seen = {}
      for i = 1, N do
        assert(x[i] >= -3 and x[i] <= 7 and x[i] == math.floor(x[i]))
        seen[x[i]] = (seen[x[i]] or 0) + 1
      end
      -- Chi-squared with 10 degrees of freedom: above 29.6 in one of a
      -- thousand.
      local chi = 0
      for v = -3, 7 do chi = chi + ((seen[v] or 0) - N / 11) ^ 2 / (N / 11) end
      assert(chi < 29.6, chi)
    end)
  end
end)
