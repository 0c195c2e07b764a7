-- Strategies are pure functions of the graph: these run on graphs made by
-- hand, with segments worked out on paper.

local ckpt = require 'reprise.ckpt'
local segments = require 'reprise.segments'

--- A stack of `n` layers of 3 nodes (norm, attention, mlp) of 10 bytes each,
-- with one node before and two behind.
local function stack(n)
  local graph = {nodes = {}, layers = {}, blocks = {}}
  local function node(op, scope, fields)
    local i = #graph.nodes + 1
    local made = {
      first = i, last = i, op = op, scope = scope, bytes = 10, inputs = {i > 1 and i - 1 or -1},
      read_by_backward = true, mark = 0, costly = op == 'linear',
    }
    for key, value in pairs(fields or {}) do made[key] = value end
    graph.nodes[i] = made
    return i
  end
  node('embedding', 'gpt.tokens')
  for k = 1, n do
    local scope = 'gpt.blocks.' .. k
    local first = node('layer_norm', scope .. '.norm')
    node('linear', scope .. '.attention.qkv')
    local last = node('relu', scope .. '.mlp')
    graph.layers[k] = {name = scope, first = first, last = last, input_bytes = 10, saved_bytes = 30}
  end
  node('linear', 'gpt.head')
  node('cross_entropy', '')
  graph.n_forward = #graph.nodes
  return graph
end

local function spans(spec, graph)
  local list = {}
  for i, segment in ipairs(ckpt.resolve(spec).apply(graph)) do
    list[i] = segment.first .. '-' .. segment.last
  end
  return table.concat(list, ' ')
end

--- The reason why a spec is refused for a graph.
local function refusal(spec, graph)
  local strategy, reason = ckpt.parse(spec)
  if not strategy then return reason end
  local ok, message = pcall(strategy.apply, graph)
  assert.is_false(ok)
  return message
end

describe('strategies', function()
  -- Layers are 2-4, 5-7, 8-10, 11-13, 14-16; the graph is 1..18.
  local five = stack(5)

  it('none has no segments', function()
    assert.equal('', spans('none', five))
  end)

  it('every=N takes layers 1, 1+N, 1+2N, ...', function()
    assert.equal('2-4 8-10 14-16', spans('every=2', five))
    assert.equal('2-4 5-7 8-10 11-13 14-16', spans({every = 1}, five))
    assert.equal('2-4', spans('every=9', five))
  end)

  it('uniform=N takes N consecutive layers a segment', function()
    assert.equal('2-7 8-13 14-16', spans('uniform=2', five))
    assert.equal('2-16', spans('uniform=7', five))
  end)

  it('segments=K has sizes that differ by at most one', function()
    assert.equal('2-7 8-13 14-16', spans('segments=3', five))
    assert.equal('2-16', spans('segments=1', five))
    assert.equal('2-7 8-10 11-13 14-16', spans('segments=4', five))
    assert.equal(spans('every=1', five), spans('segments=9', five))
  end)

  it('nodes=N keeps one node in N, whatever the layers', function()
    local list = ckpt.resolve('nodes=4').apply(five)
    assert.equal('1-4 5-8 9-12 13-16 17-18', spans('nodes=4', five))
    assert.same({4}, list[1].keep)
    assert.same({18}, list[5].keep)
    assert.equal('', spans('nodes=1', five))
  end)

  it('attention takes attention scopes alone', function()
    assert.equal('3-3 6-6 9-9 12-12 15-15', spans('attention', five))
  end)

  it('scope takes the outermost scopes that match a glob', function()
    assert.equal('4-4 7-7 10-10 13-13 16-16', spans('scope=*.mlp', five))
    assert.equal('2-4 17-17', spans('scope=*.blocks.1,*.head', five))
    assert.equal('2-16', spans('scope=gpt.blocks', five))
    assert.equal('1-17', spans('scope=g?t', five))
  end)

  it('blocks takes named, consecutive layers', function()
    assert.equal('2-7 11-13', spans('blocks=blocks.1..blocks.2,4..4', five))
    assert.equal('5-10', spans({blocks = {{'2', '3'}}}, five))
    assert.equal('2-4', spans('blocks=gpt.blocks.1..1', five))
  end)

  it('ops keeps costly nodes, one segment a layer and stretch between', function()
    local list = ckpt.resolve('ops').apply(five)
    assert.equal('2-4 5-7 8-10 11-13 14-16 17-18', spans('ops', five))
    assert.same({3}, list[1].keep)
    assert.same({17}, list[6].keep)
    assert.same({2, 3}, ckpt.resolve('ops=linear,layer_norm').apply(five)[1].keep)
    assert.same({3}, ckpt.resolve('ops=matmul,conv2d').apply(five)[1].keep)
  end)

  it('sqrt cuts where kept boundaries and largest segment are least', function()
    -- 16 blocks that save 100 bytes and begin with 20: k equal segments cost
    -- 20 (k - 1) + 1600 / k, so 16 pieces 400, 8 pieces 340, 4 pieces 460.
    local graph = {nodes = {}, layers = {}, blocks = {}, n_forward = 32}
    for i = 1, 16 do
      graph.blocks[i] = {first = 2 * i - 1, last = 2 * i, input_bytes = 20, saved_bytes = 100}
    end
    assert.equal('1-4 5-8 9-12 13-16 17-20 21-24 25-28', spans('sqrt', graph))
    -- Boundaries of 100: 8 pieces cost 900, 4 pieces 700, 2 pieces 900.
    for i = 1, 16 do graph.blocks[i].input_bytes = 100 end
    assert.equal('1-8 9-16 17-24', spans('sqrt', graph))
  end)

  it('sqrt has about sqrt(n) segments where blocks and boundaries weigh the same', function()
    local graph = {nodes = {}, layers = {}, blocks = {}, n_forward = 100}
    for i = 1, 100 do
      graph.blocks[i] = {first = i, last = i, input_bytes = 1, saved_bytes = 1}
    end
    assert.equal(9, #ckpt.resolve('sqrt').apply(graph))
  end)
end)

describe('specs that match nothing', function()
  local five = stack(5)
  local flat = {nodes = {five.nodes[1]}, layers = {}, blocks = {}, n_forward = 1}

  it('say what there is', function()
    assert.matches('the model has no layers: .*nn.Layers', refusal('every=2', flat))
    assert.matches("no scope matches '%*.mpl'; there is .*gpt.blocks.1.mlp",
      refusal('scope=*.mpl', five))
    assert.matches('no scope has a part named attention or attn; there is gpt, gpt.tokens',
      refusal('attention', flat))
    assert.matches("no layer 'fc9'; there is gpt.blocks.1, gpt.blocks.2",
      refusal('blocks=fc9..2', five))
    assert.matches('no op conv1d or conv2d; it has cross_entropy, embedding',
      refusal('ops=conv1d,conv2d', five))
  end)

  it('name a gap, an overlap, a reversed range, an ambiguous name', function()
    assert.equal("'4' does not follow '2': gpt.blocks.3 lies between",
      refusal({blocks = {{'2', '4'}}}, five))
    assert.equal("'1..2' and '2..3' overlap: both have gpt.blocks.2",
      refusal('blocks=1..2,2..3', five))
    assert.equal("'3..1' runs backwards: 1 comes before 3", refusal('blocks=3..1', five))
    local twice = stack(2)
    twice.layers[2].name = 'gpt.other.1'
    assert.equal("'1' is both gpt.blocks.1 and gpt.other.1: say which",
      refusal('blocks=1..2', twice))
    assert.equal("'3' is no stretch: write first..last (3..3 for one layer)",
      refusal('blocks=3', five))
  end)
end)

describe('specs', function()
  local function reason(spec)
    return (select(2, ckpt.parse(spec)))
  end

  it('are refused with the nearest valid one', function()
    assert.equal("no strategy 'evry'; did you mean every=2?  (" ..
      table.concat(ckpt.names(), ', ') .. ', or ./FILE.lua)', reason 'evry=2')
    assert.matches('did you mean sqrt%?', reason 'sqt')
    assert.matches('did you mean attention%?', reason 'atention')
    assert.is_nil(reason 'xyzzy':find('did you mean', 1, true))
    assert.matches("no strategy 'support'", reason 'support')
  end)

  it('want whole numbers of at least 1', function()
    assert.equal('N is a whole number of at least 1, not 0', reason 'every=0')
    assert.equal('N is a whole number of at least 1, not -3', reason 'uniform=-3')
    assert.equal('N is a whole number of at least 1, not 1.5', reason 'nodes=1.5')
    assert.equal('K is a whole number of at least 1, not two', reason 'segments=two')
    local missing = 'N is missing: every=N, a whole number of at least 1'
    assert.equal(missing, reason 'every')
    assert.equal(missing, reason 'every=')
    assert.equal("none takes no argument, and got '2'", reason 'none=2')
  end)

  it('of other types are refused', function()
    assert.equal('a spec is a string, a table or a function, not number', reason(2))
    assert.equal('a table names one strategy, as {every = 2}; this one has every, nodes',
      reason{every = 2, nodes = 3})
    assert.matches('the spec is empty', reason ' ')
  end)

  it('have an identity by content', function()
    assert.equal(ckpt.resolve('every=2').identity, ckpt.resolve({every = 2}).identity)
    local function f() return {} end
    assert.equal(ckpt.resolve(f).identity, ckpt.resolve(f).identity)
    assert.not_equal(ckpt.resolve(f).identity,
      ckpt.resolve(function() return {} end).identity)
  end)

  it('set the default', function()
    assert.equal('none', ckpt())
    assert.equal('every=2', ckpt 'every=2')
    assert.equal('every=2', ckpt.resolve(nil).text)
    ckpt 'none'
  end)

  it('raise at the line of the caller', function()
    local ok, message = pcall(function() ckpt 'evry=2' end)
    assert.is_false(ok)
    assert.matches('^%S*spec/lua/ckpt_spec.lua:%d+: %[ckpt%] evry=2: no strategy', message)
  end)
end)

describe('a strategy of one\'s own', function()
  local path

  before_each(function() path = os.tmpname() .. '.lua' end)
  after_each(function() os.remove(path) end)

  local function write(text)
    local file = assert(io.open(path, 'w'))
    file:write(text)
    file:close()
  end

  it('is read from a file', function()
    write 'return function(graph) return {graph.layers[1]} end'
    assert.equal('2-4', spans(path, stack(2)))
  end)

  it('may take an argument', function()
    write 'return function(n) return function(graph) return {graph.layers[tonumber(n)]} end end'
    assert.equal('5-7', spans(path .. '=2', stack(2)))
  end)

  it('has an identity that changes with its content', function()
    write 'return function(graph) return {} end'
    local before = ckpt.resolve(path).identity
    write 'return function(graph) return  {} end'
    assert.not_equal(before, ckpt.resolve(path).identity)
  end)

  it('says the line of what is wrong in it', function()
    write 'return function(graph)\n  return {'
    assert.matches(path:gsub('%p', '%%%0') .. ":2: .*near '<eof>'", select(2, ckpt.parse(path)))
    write 'local x = nil\nlocal y = x.z\nreturn y'
    assert.matches(':2: attempt to index', select(2, ckpt.parse(path)))
    write 'return 7'
    assert.matches('returned a number, not a strategy', select(2, ckpt.parse(path)))
    assert.matches('No such file', select(2, ckpt.parse './no-such-file.lua'))
  end)
end)

describe('segments', function()
  local function refused(list)
    local ok, reason = pcall(segments.flatten, list, 20)
    assert.is_false(ok)
    return reason
  end

  it('are made flat, parents before children, siblings by position', function()
    local flat = segments.flatten({
      {first = 11, last = 20}, {1, 10, keep = {3, {first = 7}}, segments = {{6, 8}, {2, 4}}},
    }, 20)
    local text = {}
    for i = 0, flat.n - 1 do
      local s = flat.array[i]
      text[i + 1] = ('%d-%d<%d'):format(s.first, s.last, s.parent)
    end
    assert.equal('0-9<-1 1-3<0 5-7<0 10-19<-1', table.concat(text, ' '))
    assert.equal(2, flat.array[0].n_keep)
    assert.equal(2, flat.array[0].keep[0])
    assert.equal(6, flat.array[0].keep[1])
  end)

  it('are refused when they are nonsense', function()
    assert.equal('segments is a number (3), not a list of segments', refused(3))
    assert.matches('segments%[1%] is a string %(x%), not a segment', refused{'x'})
    assert.matches('segments has an entry under a string %(first%)', refused{first = 1})
    assert.equal('segments[1].last is nothing, not a position in graph.nodes',
      refused{{first = 1}})
    assert.equal('segments[1].last is 21: the forward nodes are 1..20', refused{{1, 21}})
    assert.equal('segments[1].first is 0: the forward nodes are 1..20', refused{{0, 2}})
    assert.equal('segments[1]: last (2) comes before first (4)', refused{{4, 2}})
    assert.equal('segments[1], 1..5, and segments[2], 5..9, overlap', refused{{1, 5}, {5, 9}})
    assert.equal('segments[1].segments[1], 4..9, is not inside its parent 3..8',
      refused{{3, 8, segments = {{4, 9}}}})
    assert.equal('segments[1]: keep[1] is 9, outside of 3..8', refused{{3, 8, keep = {9}}})
  end)

  it('that can save nothing are told of, with the reason', function()
    local graph = stack(2)
    local function useless(...) return segments.useless(graph, {...}) end
    local keep = {}
    assert.is_nil(useless{first = 2, last = 4, keep = keep})
    assert.matches('^1 of 1 segments can save nothing; the first is 2%.%.2 ' ..
      '%(gpt.blocks.1.norm: layer_norm%): a single op', useless{first = 2, last = 2, keep = keep})
    assert.matches('kept for what follows; make it longer',
      useless{first = 2, last = 3, keep = {2}})
    local single = {{first = 2, last = 2, keep = keep}}
    assert.is_nil(segments.useless(graph, single, true))
    graph.nodes[2].mark = 1
    assert.matches('layer_norm, in rp.checkpoint', segments.useless(graph, single, true))
    for _, node in ipairs(graph.nodes) do node.read_by_backward = false end
    assert.matches('nothing in it is trained', useless{first = 2, last = 4, keep = keep})
  end)
end)

describe('an explicit program', function()
  it('runs and frees nodes by position', function()
    local array, n = segments.program({1, 2, -1, 3}, 3)
    assert.equal(4, n)
    -- In C node i is i - 1, and its FREE -1 - (i - 1).
    assert.same({0, 1, -1, 2}, {array[0], array[1], array[2], array[3]})
  end)

  it('is refused when it names no node', function()
    assert.has_error(function() segments.program({1, 0}, 3) end,
      'program[2] is a number (0): i runs node i, -i frees its values, i in 1..3')
    assert.has_error(function() segments.program({4}, 3) end)
  end)
end)
