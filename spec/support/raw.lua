--- The C interface with the least Lua around it, for specs that walk the op
-- registry. Dims and positions are C's here: 0-based. Everything raises.

local ffi = require 'ffi'
local bit = require 'bit'
local binding = require 'reprise.ffi'
local C, ctx = binding.C, binding.ctx

local raw = {C = C, ctx = ctx}

raw.code = {f32 = C.RP_F32, f64 = C.RP_F64, bf16 = C.RP_BF16, i32 = C.RP_I32,
            i64 = C.RP_I64, bool = C.RP_BOOL}
raw.dtype_name = {}
for name, code in pairs(raw.code) do raw.dtype_name[tonumber(code)] = name end

local element = {f32 = 'float', f64 = 'double', bf16 = 'uint16_t',
                 i32 = 'int32_t', i64 = 'int64_t', bool = 'uint8_t'}

local function own(tensor, what)
  if tensor == nil then
    error((what or '') .. ffi.string(C.rp_message(ctx)), 3)
  end
  return ffi.gc(tensor, C.rp_tensor_release)
end

function raw.check(status)
  if status ~= C.RP_OK then error(ffi.string(C.rp_message(ctx)), 2) end
end

local function pointers(tensors)
  local out = ffi.new('rp_tensor *[?]', math.max(1, #tensors))
  for i, t in ipairs(tensors) do out[i - 1] = t end
  return out
end

function raw.count(shape)
  local n = 1
  for _, dim in ipairs(shape) do n = n * dim end
  return n
end

--- shape (a list) and dtype name of a tensor.
function raw.type(tensor)
  local type = C.rp_tensor_type(tensor)
  local shape = {}
  for i = 1, type.rank do shape[i] = tonumber(type.dims[i - 1]) end
  return shape, raw.dtype_name[type.dtype]
end

--- A leaf with these numbers.
function raw.leaf(dtype, shape, data, requires_grad)
  local type = ffi.new('rp_type')
  type.dtype, type.rank = raw.code[dtype], #shape
  for i, dim in ipairs(shape) do type.dims[i - 1] = dim end
  local leaf = own(C.rp_leaf(ctx, C.RP_INPUT, type))
  local n = raw.count(shape)
  local bytes = ffi.new(element[dtype] .. '[?]', math.max(1, n))
  for i = 1, n do bytes[i - 1] = data[i] end
  raw.check(C.rp_leaf_write(leaf, bytes, n * ffi.sizeof(element[dtype])))
  if requires_grad then raw.check(C.rp_tensor_set_requires_grad(leaf, true)) end
  return leaf
end

--- Records one node; returns output 0.
function raw.record(name, inputs, ints, reals)
  local op = C.rp_op_find(name)
  if op == nil then error('no op ' .. name, 2) end
  ints, reals = ints or {}, reals or {}
  return own(C.rp_record(ctx, op, pointers(inputs), #inputs,
    ffi.new('int64_t[?]', math.max(1, #ints), ints), #ints,
    ffi.new('double[?]', math.max(1, #reals), reals), #reals), name .. ': ')
end

function raw.output(tensor, k) return own(C.rp_tensor_output(tensor, k)) end

--- d sum(y * dy) / d xs, as recipes.
function raw.grad(y, dy, xs)
  local out = ffi.new('rp_tensor *[?]', #xs)
  raw.check(C.rp_grad(y, dy, pointers(xs), #xs, out))
  local result = {}
  for i = 1, #xs do result[i] = own(out[i - 1]) end
  return result
end

--- The tensor's value as it lies in memory, a string; runs it.
function raw.bytes(tensor)
  local shape, dtype = raw.type(tensor)
  local size = raw.count(shape) * ffi.sizeof(element[dtype])
  local bytes = ffi.new('uint8_t[?]', math.max(1, size))
  raw.check(C.rp_tensor_read(tensor, bytes, size))
  return ffi.string(bytes, size)
end

local word = ffi.new 'union { uint32_t u; float f; }'

--- The tensor's value as a flat list of numbers; runs it.
function raw.read(tensor)
  local shape, dtype = raw.type(tensor)
  local n = raw.count(shape)
  local bytes = ffi.new(element[dtype] .. '[?]', math.max(1, n))
  raw.check(C.rp_tensor_read(tensor, bytes, n * ffi.sizeof(element[dtype])))
  local out = {}
  for i = 1, n do
    if dtype == 'bf16' then
      word.u = bit.lshift(bytes[i - 1], 16)
      out[i] = tonumber(word.f)
    else
      out[i] = tonumber(bytes[i - 1])
    end
  end
  return out
end

-- Inputs that are bf16 where others stay f32; all are where none is named.
local narrow = {
  linear = {1, 2}, conv2d = {1, 2}, cross_entropy_grad = {2},
  batch_norm = {1}, batch_norm_grad = {1, 2},
  group_norm = {1}, group_norm_grad = {1, 2},
  layer_norm = {1}, layer_norm_grad = {1, 2},
  rms_norm = {1}, rms_norm_grad = {1, 2},
  attention_grad = {1, 2, 3, 4, 5}, packed_attention_grad = {1, 2, 3},
  linear_cross_entropy = {1, 2}, linear_cross_entropy_grad = {1, 2},
}

--- Whether floating input i of that op is bf16 in the op's bf16 kernel.
function raw.is_narrow(op, i)
  if not narrow[op] then return true end
  for _, k in ipairs(narrow[op]) do if k == i then return true end end
  return false
end

--- Whether the op has a bf16 kernel: its row is that of input 1, which may be
-- f32 in it.
function raw.takes_bf16(op)
  return raw.has_kernel(op, 'bf16') or not raw.is_narrow(op, 1)
end

--- A leaf as raw.leaf, or a cast of it for bf16 where the op takes that.
function raw.floating(op, i, dtype, shape, data)
  if dtype ~= 'bf16' then return raw.leaf(dtype, shape, data) end
  local leaf = raw.leaf('f32', shape, data)
  if not raw.is_narrow(op, i) then return leaf end
  return raw.record('cast', {leaf}, {tonumber(raw.code.bf16)})
end

--- Every op of the registry: a list of plain tables.
function raw.ops()
  local list = {}
  local info = ffi.new 'rp_op_info'
  for i = 0, C.rp_op_count() - 1 do
    local op = C.rp_op_at(i)
    C.rp_op_describe(op, info)
    list[#list + 1] = {
      op = op, name = ffi.string(info.name), inputs = info.inputs,
      outputs = info.outputs, variadic = info.variadic, view = info.view,
      effect = info.effect, random = info.random,
      elementwise = info.elementwise, decomposes = info.decomposes,
      differentiable = info.differentiable,
    }
  end
  return list
end

function raw.has_kernel(name, dtype)
  return C.rp_op_has_kernel(C.rp_op_find(name), raw.code[dtype])
end

-- ---- numbers both sides of the golden values compute -----------------------

--- count numbers k / 2^20 in [0, 1): Park and Miller's generator, exact in
-- doubles. spec/golden/make.py has the same.
local function uniform(seed, count)
  local modulus = 2147483647
  local state = (seed * 7919 + 17) % modulus
  local out = {}
  for i = -2, count do
    state = state * 16807 % modulus
    if i >= 1 then out[i] = math.floor(state / 2048) / 1048576 end
  end
  return out
end

--- A flat list of numbers in [lo, hi) for the seed.
function raw.fill(seed, shape, lo, hi)
  lo, hi = lo or -1, hi or 1
  local out = uniform(seed, raw.count(shape))
  for i = 1, #out do out[i] = lo + (hi - lo) * out[i] end
  return out
end

local special = {nan = 0 / 0, inf = math.huge, ['-inf'] = -math.huge}

--- Numbers as the golden files write them: what JSON lacks is a string.
function raw.numbers(list)
  local out = {}
  for i, x in ipairs(list) do out[i] = special[x] or x end
  return out
end

--- The numbers of an input as a golden case describes it.
function raw.input_data(spec)
  if spec.kind == 'given' then return raw.numbers(spec.data) end
  local data = raw.fill(spec.seed, spec.shape, spec.lo, spec.hi)
  if spec.kind == 'int' then
    for i = 1, #data do data[i] = math.floor(data[i]) end
  end
  return data
end

-- ---- comparing ----------------------------------------------------------------

--- The first place where got is not within tolerance * (|want| + scale / 8)
-- of want, as text; nil when there is none. scale is the largest finite
-- |want|, at least `floor` (0 when absent): sums cancel, so an element is
-- judged against its array too, or against what was summed.
function raw.difference(got, want, tolerance, floor)
  if #got ~= #want then
    return ('%d numbers where %d were expected'):format(#got, #want)
  end
  local scale = floor or 0
  for _, w in ipairs(want) do
    local size = math.abs(w)
    if size < math.huge and size > scale then scale = size end
  end
  for i, w in ipairs(want) do
    local g = got[i]
    local room = tolerance * (math.abs(w) + 0.125 * scale)
    local near = g == w or (g ~= g and w ~= w) or math.abs(g - w) <= room
    if not near then
      return ('element %d of %d is %.17g, expected %.17g (off by %.3g, ' ..
        'allowed %.3g)'):format(i, #want, g, w, math.abs(g - w), room)
    end
  end
end

--- The first place where two flat lists differ in a bit, as text; nil: none.
function raw.bit_difference(got, want)
  if #got ~= #want then
    return ('%d numbers where %d were expected'):format(#got, #want)
  end
  for i = 1, #want do
    local g, w = got[i], want[i]
    local same = g == w and (g ~= 0 or 1 / g == 1 / w) or (g ~= g and w ~= w)
    if not same then
      return ('element %d of %d is %.17g, expected %.17g'):format(i, #want, g, w)
    end
  end
end

--- Reads a golden file.
function raw.golden(name)
  local here = debug.getinfo(1, 'S').source:match '^@(.*)support[/\\]'
  local file = assert(io.open(here .. 'golden/' .. name))
  local text = file:read '*a'
  file:close()
  return require('cjson').decode(text)
end

return raw
