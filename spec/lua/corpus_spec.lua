local ffi = require 'ffi'
local corpus = require 'reprise.data.corpus'
local generator = require 'reprise.data.generator'
local idx = require 'reprise.data.idx'
local stories = require 'reprise.data.stories'
local text = require 'reprise.data.text'

local function temporary(content)
  local path = os.tmpname()
  local file = assert(io.open(path, 'wb'))
  file:write(content)
  file:close()
  return path
end

describe('the data generator', function()
  it('is xoshiro128**', function()
    -- From its authors' reference C, state 1 2 3 4.
    local random = generator.from_state(1, 2, 3, 4)
    for _, expected in ipairs {11520, 0, 5927040, 70819200, 2031721883,
        1637235492, 1287239034, 3734860849, 3729100597, 4258142804} do
      assert.equal(expected, random:next())
    end
  end)

  it('has a stream for each seed and stream number', function()
    local seen = {}
    for _, seed in ipairs {0, 1, 2, 2 ^ 31, 2 ^ 32, 2 ^ 32 + 1} do
      for stream = 0, 2 do
        local first = generator.new(seed, stream):next()
        assert.is_nil(seen[first])
        seen[first] = true
      end
    end
  end)

  it('draws every value below n about as often', function()
    local random, count, draws = generator.new(7), {}, 60000
    for _ = 1, draws do
      local k = random:below(6)
      count[k] = (count[k] or 0) + 1
    end
    -- Chi-squared with 5 degrees of freedom passes 20.5 once in a thousand.
    local chi = 0
    for k = 0, 5 do chi = chi + (count[k] - draws / 6) ^ 2 / (draws / 6) end
    assert.is_true(chi < 20.5)
  end)

  it('picks two different entries', function()
    local random = generator.new(3)
    for _ = 1, 200 do
      local a, b = random:pick_two {1, 2, 3}
      assert.not_equal(a, b)
    end
  end)
end)

describe('the built-in corpus', function()
  local content = corpus.generate(1)

  it('is the same for a seed and another for another', function()
    assert.equal(content, corpus.generate(1))
    assert.not_equal(content:sub(1, 2000), corpus.generate(2, 2000):sub(1, 2000))
  end)

  it('is about a megabyte of whole stories', function()
    assert.is_true(#content >= 1000000 and #content < 1002000)
    assert.equal('\n\n', content:sub(-2))
  end)

  it('leaves no slot and no choice unfilled, no space doubled', function()
    assert.is_nil(content:find '[{}|()]')
    assert.is_nil(content:find '  ')
    assert.is_nil(content:find ' [.,!?]')
    assert.is_nil(content:find '\n ')
  end)

  it('begins every paragraph with a capital and ends it with a stop', function()
    for line in content:gmatch '[^\n]+' do
      assert.is_truthy(line:match '^"?%u', line)
      assert.is_truthy(line:match '[.!?]"?$', line)
    end
  end)

  it('closes every quotation', function()
    for line in content:gmatch '[^\n]+' do
      local _, quotes = line:gsub('"', '')
      assert.equal(0, quotes % 2, line)
    end
  end)

  it('says "an" before a vowel and "a" elsewhere', function()
    assert.is_nil(content:find '%f[%a][Aa] [aeio]')
    assert.is_nil(content:find '%f[%a][Aa]n [^aeiouh]')
  end)

  it('counts coins right', function()
    local number = {one = 1, two = 2, three = 3, four = 4, five = 5, six = 6,
      seven = 7, eight = 8}
    local sums = 0
    for price, has, rest in content:gmatch
        'costs (%a+) coins,".-had only (%a+) coins?%.\n"You need (%a+) more' do
      assert.equal(number[price], number[has] + number[rest])
      sums = sums + 1
    end
    assert.is_true(sums > 50)
  end)

  it('finds a lost thing in the way it was lost', function()
    local found = 0
    for story in content:gmatch '(.-)\n\n' do
      local thing = story:match 'a strong wind came and %a+ the (%a+ %a+) away'
      if thing then
        assert.is_truthy(story:find('there was the ' .. thing ..
          ' in a tall tree', 1, true), story)
        found = found + 1
      end
    end
    assert.is_true(found > 20)
  end)

  it('tells every plot', function()
    local random = generator.new(5)
    for _, plot in ipairs(stories.plots) do
      for _ = 1, 40 do
        for _, paragraph in ipairs(plot(stories.cast(random), random)) do
          assert.is_true(#paragraph > 0)
        end
      end
    end
  end)
end)

describe('text', function()
  it('has the characters in byte order and decodes what it encodes', function()
    local t = text.new 'banana\n'
    assert.same({'\n', 'a', 'b', 'n'}, t.vocabulary)
    assert.equal('nab', t:decode(t:encode 'nab'))
    local tokens, missing = t:encode 'nix'
    assert.is_nil(tokens)
    assert.equal('i', missing)
  end)

  it('holds the last tenth out', function()
    local t = text.new(('x'):rep(1003))
    assert.equal(903, t.train_length)
  end)

  it('takes training windows from the first nine tenths only', function()
    -- Each character is its place modulo 251, so a window tells its start.
    local parts = {}
    for i = 0, 249 do parts[#parts + 1] = string.char(i) end
    local t = text.new(table.concat(parts))
    local x, y = ffi.new 'int32_t[40]', ffi.new 'int32_t[40]'
    local fill = t:random_windows(4, 10, 1)
    for _ = 1, 500 do
      fill(x, y)
      for i = 0, 39 do
        assert.equal(x[i] + 1, y[i])
        assert.is_true(y[i] < t.train_length)
      end
    end
  end)

  it('draws the same windows for a seed', function()
    local t = text.new(corpus.generate(1, 5000))
    local function draw(seed)
      local x, y = ffi.new 'int32_t[64]', ffi.new 'int32_t[64]'
      local fill = t:random_windows(2, 32, seed)
      fill(x, y)
      fill(x, y)
      return ffi.string(x, 256)
    end
    assert.equal(draw(1), draw(1))
    assert.not_equal(draw(1), draw(2))
  end)

  it('spreads held-out windows over the last tenth, within it', function()
    local parts = {}
    for i = 0, 249 do parts[#parts + 1] = string.char(i) end
    local t = text.new(table.concat(parts)) -- 25 held out
    local x, y = ffi.new 'int32_t[8]', ffi.new 'int32_t[8]'
    local batches, fill = t:held_out_windows(2, 4, 100)
    assert.equal(3, batches)
    local least, most = math.huge, 0
    for i = 1, batches do
      fill(i, x, y)
      for k = 0, 7 do
        least, most = math.min(least, x[k]), math.max(most, y[k])
      end
    end
    assert.equal(t.train_length, least)
    assert.is_true(most >= 245 and most <= 249)
  end)

  it('says which sequence fits', function()
    local t = text.new(('abcde'):rep(20), 'tiny.txt')
    assert.is_true((t:fits(9)))
    local fits, problem = t:fits(64)
    assert.is_false(fits)
    assert.equal('a sequence of 64 needs a text of at least 650 characters '
      .. '(the last tenth is held out); tiny.txt has 100: use --seq 9 or less',
      problem)
    assert.is_true((t:fits(9)))
    assert.is_false((t:fits(10)))
  end)

  it('says why a file cannot be read', function()
    local empty = temporary ''
    local t, problem = text.load(empty)
    assert.is_nil(t)
    assert.equal('the file is empty', problem)
    os.remove(empty)
    t, problem = text.load '/no/such/file'
    assert.is_nil(t)
    assert.equal('No such file or directory', problem)
    t, problem = text.load '/'
    assert.is_nil(t)
    assert.equal('Is a directory', problem)
  end)
end)

describe('idx', function()
  local good = '\0\0\8\2\0\0\0\2\0\0\0\3abcdef'

  local function read(content)
    local path = temporary(content)
    local array, problem = idx.read(path)
    os.remove(path)
    return array, problem and problem:gsub('^[^:]*: ', '')
  end

  it('reads dims and bytes', function()
    local array = assert(read(good))
    assert.same({2, 3}, array.dims)
    assert.equal('abcdef', ffi.string(array.data, 6))
  end)

  it('reads gzip as it reads plain files', function()
    local path = temporary(good)
    assert(os.execute('gzip -n ' .. path) == 0)
    local array = assert(idx.read(path .. '.gz'))
    assert.equal('abcdef', ffi.string(array.data, 6))
    -- The same, cut short, and with a damaged checksum.
    local file = assert(io.open(path .. '.gz', 'rb'))
    local packed = file:read '*a'
    file:close()
    os.remove(path .. '.gz')
    local short, problem = read(packed:sub(1, -10))
    assert.is_nil(short)
    assert.is_truthy(problem)
    local damaged
    damaged, problem = read(packed:sub(1, -9) .. '\1\2\3\4' .. packed:sub(-4))
    assert.is_nil(damaged)
    assert.is_truthy(problem:find 'damaged')
  end)

  it('refuses what is malformed, with the reason', function()
    for _, case in ipairs {
      {'', 'is empty'},
      {'\0\0', 'ends too early'},
      {'\1\0\8\1\0\0\0\1a', 'is no IDX file (it does not begin with two zero '
        .. 'bytes)'},
      {'\0\0\13\1\0\0\0\1aaaa', 'holds elements of type 0x0d; only unsigned '
        .. 'bytes (0x08) are read'},
      {'\0\0\8\0', 'has rank 0'},
      {'\0\0\8\2\0\0\0\2', 'ends too early'},
      {good:sub(1, -2), 'ends too early'},
      {good .. 'x', 'has bytes after its last element'},
      {'\0\0\8\3\255\255\255\255\255\255\255\255\255\255\255\255a',
        'says 4294967295... elements, more than its size can hold'},
    } do
      local array, problem = read(case[1])
      assert.is_nil(array)
      assert.equal(case[2], problem)
    end
  end)

  it('says which file of a folder is missing', function()
    local train, problem = idx.load '/no/such/folder'
    assert.is_nil(train)
    assert.equal('/no/such/folder: no train-images-idx3-ubyte.gz in it', problem)
  end)
end)
