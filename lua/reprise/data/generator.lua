--- A small integer generator for data: which window, which word.
--
-- xoshiro128** (Blackman and Vigna, "Scrambled linear pseudorandom number
-- generators", 2021), seeded through splitmix32. Its stream depends on the
-- seed alone, so a corpus or an order of batches is the same everywhere.
-- Tensors draw from the core's counter-based generator, never from this one.

local bit = require 'bit'
local bxor, lshift, rshift, rol, tobit =
  bit.bxor, bit.lshift, bit.rshift, bit.rol, bit.tobit

---@class reprise.Generator
---@field private a integer
---@field private b integer
---@field private c integer
---@field private d integer
local Generator = {}
Generator.__index = Generator

-- The low 32 bits of x * m, as a signed number; 16 bits at a time, so that no
-- product leaves the integers a double holds.
local function multiply(x, m)
  local low, high = bit.band(x, 0xffff), rshift(x, 16)
  return tobit(low * m + bit.lshift(tobit(high * (m % 65536)), 16))
end

local function mix(x)
  x = multiply(bxor(x, rshift(x, 16)), 0x21f0aaad)
  x = multiply(bxor(x, rshift(x, 15)), 0x735a2d97)
  return bxor(x, rshift(x, 15))
end

--- The next 32 bits, 0 .. 2^32 - 1.
---@return integer
function Generator:next()
  local b = self.b
  -- The factors 5 and 9 keep the products below 2^53.
  local result = tobit(rol(tobit(b * 5), 7) * 9)
  local t = lshift(b, 9)
  local c, d = bxor(self.c, self.a), bxor(self.d, b)
  self.b, self.a = bxor(b, c), bxor(self.a, d)
  self.c, self.d = bxor(c, t), rol(d, 11)
  return result % 4294967296
end

--- A whole number 0 .. n - 1, each as likely to within n / 2^32.
---@param n integer 1 .. 2^31
---@return integer
function Generator:below(n)
  return math.floor(self:next() * n / 4294967296)
end

--- A number in [0, 1) with 32 random bits.
---@return number
function Generator:unit()
  return self:next() / 4294967296
end

--- One entry of a list.
---@generic T
---@param list T[]
---@return T
function Generator:pick(list)
  return list[self:below(#list) + 1]
end

--- True with probability p.
---@param p number
---@return boolean
function Generator:chance(p)
  return self:unit() < p
end

--- Two different entries of a list of at least two.
---@generic T
---@param list T[]
---@return T, T
function Generator:pick_two(list)
  local i = self:below(#list)
  local j = (i + 1 + self:below(#list - 1)) % #list
  return list[i + 1], list[j + 1]
end

local generator = {}

--- A generator whose stream the four 32-bit words fix; not all zero.
---@return reprise.Generator
function generator.from_state(a, b, c, d)
  return setmetatable({a = tobit(a), b = tobit(b), c = tobit(c),
                       d = tobit(d)}, Generator)
end

--- A generator for a seed (any whole number) and, where several streams share
--- one seed, the stream's number.
---@param seed integer
---@param stream? integer default 0
---@return reprise.Generator
function generator.new(seed, stream)
  local state, words = 0x2545f491, {}
  for _, word in ipairs {math.floor(seed / 4294967296), seed, stream or 0} do
    state = mix(bxor(state, tobit(word)))
  end
  for i = 1, 4 do
    state = tobit(state + 0x9e3779b9)
    words[i] = mix(state)
  end
  if words[1] == 0 and words[2] == 0 and words[3] == 0 then words[1] = 1 end
  return generator.from_state(words[1], words[2], words[3], words[4])
end

return generator
