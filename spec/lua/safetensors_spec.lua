-- Files of tensors: what is written is read again, by others too (the bytes
-- are spelled out below), and what is malformed is refused with the reason.

local rp = require 'reprise'
local header = require 'reprise.io.header'

local function refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

describe('rp.save and rp.load', function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function write(bytes)
    local file = assert(io.open(path, 'wb'))
    file:write(bytes)
    file:close()
  end

  local function read()
    local file = assert(io.open(path, 'rb'))
    local bytes = file:read '*a'
    file:close()
    return bytes
  end

  it('give back the same bits, shapes and dtypes', function()
    local tensors = {
      f32 = rp.randn(3, 4), f64 = rp.randn(2, {dtype = 'f64'}),
      bf16 = rp.randn(5):to 'bf16', i32 = rp.tensor({{1, -2}}, {dtype = 'i32'}),
      i64 = rp.tensor({2^40}, {dtype = 'i64'}), bool = rp.tensor{true, false, true},
      scalar = rp.tensor(7), empty = rp.zeros(0, 3), strided = rp.randn(2, 3):t(),
      ['a "quoted" name'] = rp.ones(1),
    }
    rp.save(path, tensors, {format = 'pt', note = 'x"y'})
    local back, metadata = rp.load(path)
    assert.same({format = 'pt', note = 'x"y'}, metadata)
    local n = 0
    for name, t in pairs(tensors) do
      n = n + 1
      assert.equal(t.dtype, back[name].dtype, name)
      assert.same(t.shape, back[name].shape, name)
      assert.equal(t:bytes(), back[name]:bytes(), name)
    end
    for _ in pairs(back) do n = n - 1 end
    assert.equal(0, n)
  end)

  it('write the format to the byte', function()
    rp.save(path, {x = rp.tensor({1, 2}, {dtype = 'i32'})})
    local text = '{"x":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}'
    text = text .. (' '):rep(-#text % 8)
    assert.equal(string.char(#text) .. ('\0'):rep(7) .. text .. '\1\0\0\0\2\0\0\0', read())
  end)

  it('leave the older file whole when writing fails', function()
    rp.save(path, {x = rp.ones(1)})
    local before = read()
    refused("%[save%] .*: 'y' is a number, not a tensor", rp.save, path,
      {x = rp.zeros(1), y = 3})
    assert.equal(before, read())
    assert.is_nil(io.open(path .. '.part'))
    refused('No such file', rp.save, '/no-such-folder/x', {})
  end)

  it('refuse malformed files, and name the file', function()
    write ''
    refused('%[load%] ' .. path:gsub('%p', '%%%0') .. ': 0 bytes are too few', rp.load, path)
    write('\255\255\255\255\255\255\255\255{}')
    refused('is too long', rp.load, path)
    write('\16\0\0\0\0\0\0\0{}')
    refused('the header says it has 16 bytes, the file has 10', rp.load, path)
    refused('No such file', rp.load, '/no-such-file')
  end)

  it('survive any cut and any changed byte', function()
    rp.save(path, {x = rp.tensor{1, 2}, y = rp.tensor({3}, {dtype = 'i64'})})
    local bytes = read()
    for cut = 0, #bytes - 1 do
      write(bytes:sub(1, cut))
      assert.is_false((pcall(rp.load, path)))
    end
    math.randomseed(1)
    for _ = 1, 500 do
      local at = math.random(1, #bytes)
      write(bytes:sub(1, at - 1) .. string.char(math.random(0, 255)) .. bytes:sub(at + 1))
      local ok, result = pcall(rp.load, path)
      assert.is_true(type(ok and result or result) == (ok and 'table' or 'string'))
    end
  end)
end)

describe('a header', function()
  local function parse(text, data_bytes)
    return header.parse(text, data_bytes)
  end

  local function entry(dtype, shape, first, last)
    return ('{"dtype":"%s","shape":%s,"data_offsets":[%s,%s]}'):format(dtype, shape, first, last)
  end

  it('lists tensors by position', function()
    local list = parse('{"b":' .. entry('F32', '[2]', 4, 12) .. ',"a":' ..
      entry('F32', '[]', 0, 4) .. '}', 12)
    assert.equal('a', list[1].name)
    assert.equal('b', list[2].name)
    assert.equal('f32', list[2].dtype)
  end)

  it('is refused with the reason', function()
    local function one(text) return '{"x":' .. text .. '}' end
    for pattern, case in pairs{
      ['no JSON object'] = {'[]', 0},
      ['the header is no JSON'] = {'{"x":', 0},
      ["the name 'x' appears twice"] = {'{"x":' .. entry('F32', '[1]', 0, 4) .. ', "\\u0078":' ..
        entry('F32', '[1]', 4, 8) .. '}', 8},
      ["the name 'shape' appears twice"] = {'{"x":{"dtype":"F32","shape":[1],"shape":[1],' ..
        '"data_offsets":[0,4]}}', 4},
      ['dtype F16 is not read here'] = {one(entry('F16', '[1]', 0, 2)), 2},
      ['size 1 is %-1'] = {one(entry('F32', '[-1]', 0, 4)), 4},
      ['size 1 is 1.5'] = {one(entry('F32', '[1.5]', 0, 6)), 6},
      ['its size overflows'] = {one(entry('F32', '[4294967296,4294967296]', 0, 0)), 0},
      ['9 dims'] = {one(entry('F32', '[1,1,1,1,1,1,1,1,1]', 0, 4)), 4},
      ['bytes 0..8 lie outside of the data, which has 4'] =
        {one(entry('F32', '[2]', 0, 8)), 4},
      ['bytes 8..4 lie outside'] = {one(entry('F32', '[1]', 8, 4)), 8},
      ['F32 of shape %(2%) has 8 bytes, data_offsets span 4'] =
        {one(entry('F32', '[2]', 0, 4)), 4},
      ["tensor 'y': its bytes start at 0, before the end of the one before at 4"] =
        {'{"x":' .. entry('F32', '[1]', 0, 4) .. ',"y":' .. entry('F32', '[1]', 0, 4) .. '}', 4},
      ['behind the end'] = {'{"x":' .. entry('F32', '[1]', 4, 8) .. '}', 8},
      ['the tensors have 4 bytes, the file has 9'] = {one(entry('F32', '[1]', 0, 4)), 9},
      ["unknown field 'extra'"] = {'{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4],' ..
        '"extra":1}}', 4},
      ['its entry is no object'] = {'{"x":3}', 0},
      ['shape is no list'] = {one(entry('F32', '{"a":1}', 0, 4)), 4},
      ['data_offsets are two whole numbers'] =
        {'{"x":{"dtype":"F32","shape":[],"data_offsets":[0]}}', 4},
      ['__metadata__ maps texts to texts'] = {'{"__metadata__":{"a":1}}', 0},
    } do
      refused(pattern, parse, case[1], case[2])
    end
  end)
end)
