-- The main job, run as a user runs it: a process of its own, tiny sizes.

local cjson = require 'cjson'
local corpus = require 'reprise.data.corpus'

local SHAPE = '--layers 3 --heads 2 --width 16 --seq 16 '
local TINY = SHAPE .. '--batch 2 --dropout 0.1 '

local folder

local function run(arguments, before)
  local out, err = folder .. '/out', folder .. '/err'
  -- One thread: sizes this small have no work for two.
  local code = os.execute(('%s OMP_NUM_THREADS=1 luajit train.lua %s > %s '
    .. '2> %s'):format(before or '', arguments, out, err))
  local function content(path)
    local file = assert(io.open(path))
    local text = file:read '*a'
    file:close()
    return text
  end
  -- A shell's status is in the high byte where os.execute returns it raw.
  return {ok = code == 0 or code == true, code = code, out = content(out),
          err = content(err)}
end

local function succeed(arguments, before)
  local result = run(arguments, before)
  assert.is_true(result.ok, result.err)
  return result
end

local function write(name, content)
  local path = folder .. '/' .. name
  local file = assert(io.open(path, 'wb'))
  file:write(content)
  file:close()
  return path
end

local function log_of(arguments)
  local path = folder .. '/log.jsonl'
  succeed(arguments .. ' --log ' .. path)
  local objects, lines = {}, {}
  for line in io.lines(path) do
    lines[#lines + 1] = line
    objects[#objects + 1] = cjson.decode(line)
  end
  return objects, lines
end

describe('train.lua', function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute('mkdir ' .. folder))
  end)

  teardown(function() os.execute('rm -r ' .. folder) end)

  it('reports, trains, shows progress, writes a sample', function()
    local out = succeed(TINY .. '--steps 4 --ckpt every=2').out
    assert.is_truthy(out:find 'Activation checkpointing: ENABLED %(every=2: peak ')
    assert.is_truthy(out:find 'recomputes %d+ %% of the forward%)')
    assert.is_truthy(out:find 'step 4/4  loss %d+%.%d+  val %d+%.%d+')
    assert.is_truthy(out:find 'as promised')
    assert.is_truthy(out:find 'what the model writes')
    assert.is_nil(out:find '[\r\27]')
  end)

  it('says that checkpointing is off when it is', function()
    local out = succeed(TINY .. '--steps 1').out
    assert.is_truthy(out:find 'Activation checkpointing: DISABLED %(use %-%-ckpt')
  end)

  it('logs one JSON object a step', function()
    local log, lines = log_of(TINY .. '--steps 5 --eval-every 2')
    assert.equal(5, #log)
    for i, object in ipairs(log) do
      assert.equal(i, object.step)
      assert.is_number(object.loss)
      assert.is_number(object.seconds)
      assert.is_true(object.tokens_per_second > 0)
      assert.is_true(object.peak_bytes > 0)
      assert.is_true(object['memory/max_allocated_gb'] * 2 ^ 30
        >= object.peak_bytes - 1)
      -- At the steps of --eval-every, and at the end.
      assert.equal(i == 2 or i == 4 or i == 5, object.val_loss ~= nil)
    end
    assert.is_truthy(lines[1]:find '^{"step":1,"loss":%d%.%d')
    -- Never more than the plan said, and as much at every step.
    assert.equal(log[1].peak_bytes, log[5].peak_bytes)
  end)

  it('starts near log(vocabulary) and learns', function()
    local log = log_of(SHAPE .. '--dropout 0 --steps 60 --batch 8 --lr 1e-2 '
      .. '--eval-every 60')
    -- 52 characters; GPT-2's small weights begin at a nearly uniform guess.
    assert.is_true(math.abs(log[1].loss - math.log(52)) < 0.1)
    assert.is_true(log[60].val_loss < log[1].loss - 0.7)
  end)

  it('gives the same losses under every strategy, bit by bit', function()
    local file = write('mine.lua', 'return function(graph) '
      .. 'return {graph.layers[2]} end')
    local expected
    for _, spec in ipairs {'none', 'every=1', 'every=2', 'uniform=2',
        'segments=2', 'nodes=3', 'sqrt', 'attention', "'scope=*.mlp'",
        'blocks=blocks.1..blocks.2', 'ops', file} do
      local losses = {}
      local log, lines = log_of(TINY .. '--steps 4 --ckpt ' .. spec)
      for i, line in ipairs(lines) do
        losses[i] = line:match '"loss":([^,]*)'
        if log[i].val_loss then
          losses[#losses] = losses[#losses] .. line:match '"val_loss":([^,]*)'
        end
      end
      expected = expected or losses
      assert.same(expected, losses, spec)
    end
  end)

  it('trains on a file, with the vocabulary of the file', function()
    local path = write('mine.txt', corpus.generate(9, 20000):gsub('%l', 'a'))
    local log = log_of(TINY .. '--steps 2 --data ' .. path)
    local _, different = 0, {}
    for c in io.open(path):read('*a'):gmatch '.' do different[c] = true end
    local count = 0
    for _ in pairs(different) do count = count + 1 end
    assert.is_true(math.abs(log[1].loss - math.log(count)) < 0.15)
  end)

  it('accumulates gradients: K batches, one step', function()
    local log = log_of(TINY .. '--steps 3 --accumulate 3 --ckpt every=2')
    assert.equal(3, #log)
  end)

  it('stops at the first value that is not finite, and says where', function()
    local result = run(TINY .. '--steps 3 --lr 1e12 --ckpt every=1 --detect-anomaly')
    assert.is_false(result.ok)
    assert.matches('^train.lua: %[detect_anomaly%] [%a_]+ in gpt%.[%w_.]+ made an? %a+: ' ..
      'f32 %([%d,]+%), element %d+, a first run of the forward pass', result.err)
  end)

  it('verifies replays, and finds nothing', function()
    local arguments = TINY .. '--steps 2 --ckpt every=1'
    local plain = log_of(arguments)
    local verified = log_of(arguments .. ' --verify-replay --detect-anomaly')
    assert.equal(plain[2].loss, verified[2].loss)
  end)

  it('clips, and trains in f64', function()
    local log = log_of(TINY .. '--steps 2 --clip 0.5 --dtype f64')
    assert.equal(2, #log)
  end)

  it('trains in mixed precision, near f32, on fewer bytes', function()
    local wide = log_of(TINY .. '--steps 3')
    local mixed = log_of(TINY .. '--steps 3 --dtype bf16')
    for step = 1, 3 do
      assert.not_equal(wide[step].loss, mixed[step].loss)
      -- A loss of about ln 60 from logits of 8 bits.
      assert.near(wide[step].loss, mixed[step].loss, 0.01 * wide[step].loss)
      assert(mixed[step].peak_bytes < wide[step].peak_bytes)
    end
  end)

  describe('--model mlp', function()
    -- n images of 4 x 4 whose brightness tells the class, labels from `first`.
    local function write_images(prefix, n, first)
      local images, labels = {}, {}
      for i = 1, n do
        local class = i % 10
        images[i] = string.char(class * 25):rep(16)
        labels[i] = string.char(class + first)
      end
      local function header(rank, ...)
        local parts = {'\0\0\8' .. string.char(rank)}
        for _, size in ipairs {...} do
          parts[#parts + 1] = '\0\0\0' .. string.char(size)
        end
        return table.concat(parts)
      end
      write(prefix .. '-images-idx3-ubyte',
        header(3, n, 4, 4) .. table.concat(images))
      write(prefix .. '-labels-idx1-ubyte', header(1, n) .. table.concat(labels))
    end

    local SMALL = '--model mlp --width 32 --layers 2 --batch 16 '

    it('learns from IDX files, the same under every strategy', function()
      write_images('train', 200, 0)
      write_images('t10k', 40, 0)
      local expected
      for _, spec in ipairs {'none', 'every=1', 'every=2', 'sqrt', 'ops'} do
        local log, lines = log_of(SMALL .. '--steps 120 --dropout 0.1 --lr 1e-2 '
          .. '--data ' .. folder .. ' --ckpt ' .. spec)
        assert.is_true(log[120].val_loss < 0.5 * log[1].loss)
        local losses = {}
        for i, line in ipairs(lines) do
          losses[i] = line:match '"loss":([^,]*)'
        end
        expected = expected or losses
        assert.same(expected, losses, spec)
      end
    end)

    it('is a resnet too, the same under every strategy', function()
      write_images('train', 200, 0)
      write_images('t10k', 40, 0)
      local expected
      for _, spec in ipairs {'none', 'every=1', 'sqrt', 'budget=min', 'greedy=min'} do
        local log, lines = log_of('--model resnet --width 4 --layers 4 --batch 20 '
          .. '--lr 1e-2 --steps 30 --data ' .. folder .. ' --ckpt ' .. spec)
        assert.is_true(log[30].val_loss < 0.5 * log[1].loss)
        local losses = {}
        for i, line in ipairs(lines) do
          losses[i] = line:match '"loss":([^,]*)' .. ', '
            .. tostring(line:match '"val_loss":([^,]*)')
        end
        expected = expected or losses
        assert.same(expected, losses, spec)
      end
    end)

    it('refuses a label that is no class, before any parameter changes', function()
      write_images('train', 200, 3)
      local result = run(SMALL .. '--steps 1 --data ' .. folder)
      assert.is_false(result.ok)
      assert.is_truthy(result.err:find 'label 1[0-2]')
      assert.is_truthy(result.err:find '0%.%.9')
    end)
  end)

  describe('--plan', function()
    it('prints the report and stops', function()
      local out = succeed(TINY .. '--ckpt sqrt --plan').out
      assert.is_truthy(out:find '  peak %d.- while running ')
      assert.is_truthy(out:find 'none would need ')
      assert.is_truthy(out:find 'largest at the peak')
      assert.is_nil(out:find 'step 1')
    end)

    it('is of greedy, which takes sizes as budget does', function()
      local peak = cjson.decode(succeed(TINY .. '--ckpt greedy=85% --plan --json').out).peak_bytes
      local kib = ('%.0fKiB'):format(math.ceil(peak / 1024))
      local plan = cjson.decode(succeed(TINY .. '--ckpt greedy=' .. kib .. ' --plan --json').out)
      assert.equal('greedy=' .. kib, plan.strategy)
      assert.is_true(plan.peak_bytes <= math.ceil(peak / 1024) * 1024)
      local refused = run(TINY .. '--ckpt greedy=1KiB --plan')
      assert.is_false(refused.ok)
      assert.is_truthy(refused.err:find('^train.lua: %-%-ckpt greedy=1KiB: budget 1.0 KiB '))
    end)

    it('is one JSON object with --json', function()
      local out = succeed(TINY .. '--ckpt every=1 --plan --json').out
      assert.equal(1, select(2, out:gsub('\n', '')))
      local plan = cjson.decode(out)
      assert.equal('every=1', plan.strategy)
      assert.equal(plan.peak_bytes, plan.persistent_bytes + plan.arena_bytes)
      assert.is_true(plan.none_peak_bytes > plan.peak_bytes)
      assert.is_true(plan.recompute_fraction > 0 and plan.recompute_fraction < 1)
      assert.equal(3, #plan.segments)
      assert.is_true(plan.predicted_seconds > 0)
      assert.is_true(plan.min_budget_bytes <= plan.peak_bytes)
    end)

    it('names the least budget: it works, and one byte less does not', function()
      local least = cjson.decode(succeed(TINY .. '--plan --json').out)
        .min_budget_bytes
      local plan = cjson.decode(succeed(TINY .. ('--ckpt budget=%d --plan '
        .. '--json'):format(least)).out)
      assert.equal(least, plan.peak_bytes)
      assert.is_false(run(TINY .. ('--ckpt budget=%d --plan'):format(least - 1)).ok)
    end)

    it('draws the plan, and the curve', function()
      local path = folder .. '/plan.svg'
      succeed(TINY .. '--ckpt every=2 --plan --picture ' .. path)
      assert.is_truthy(io.open(path):read('*a'):find '^<svg .*</svg>\n$')
      local out = succeed(TINY .. '--curve ' .. path).out
      assert.is_truthy(out:find 'least time at that peak')
      assert.is_truthy(io.open(path):read('*a'):find 'no plan fits')
      local result = run(TINY .. '--curve /no/such/folder/curve.svg')
      assert.is_false(result.ok)
      assert.is_truthy(result.err:find('--curve /no/such/folder/curve.svg: No such', 1, true))
    end)

    it('promises what training then needs', function()
      for _, spec in ipairs {'none', 'every=2', 'sqrt'} do
        local options = SHAPE .. '--batch 8 --dropout 0.1 --ckpt ' .. spec
        local plan = cjson.decode(succeed(options .. ' --plan --json').out)
        for _, object in ipairs((log_of(options .. ' --steps 3'))) do
          assert.equal(plan.peak_bytes, object.peak_bytes, spec)
        end
      end
    end)

    it('allocates neither parameters nor activations', function()
      -- 5.8 GiB of parameters, planned within 2 GiB of address space.
      local out = succeed('--preset gpt2-1558m --batch 1 --ckpt every=1 --plan '
        .. '--json', 'ulimit -v 2000000;').out
      local plan = cjson.decode(out)
      assert.is_true(plan.parameter_bytes > 1.55e9 * 4)
      assert.is_true(plan.parameter_bytes < 1.56e9 * 4)
    end)
  end)

  it('--compare measures strategies side by side', function()
    local out = succeed(TINY .. '--compare none,every=1,sqrt').out
    assert.is_truthy(out:find 'to the byte as predicted')
    assert.is_truthy(out:find 'the same bits under every strategy')
    local result = run(TINY .. '--compare none,blocks=blocks.9..blocks.12')
    assert.is_false(result.ok)
    assert.is_truthy(result.out:find '1 of 2 did not run')
  end)

  it('--fit names the largest batch: it fits, and one more does not', function()
    local out = succeed(SHAPE .. '--fit batch --ckpt budget=600KiB').out
    local batch = tonumber(out:match '^%-%-batch (%d+) fits into 600.0 KiB')
    local budget = SHAPE .. '--ckpt budget=600KiB --plan --json --batch '
    assert.is_true(cjson.decode(succeed(budget .. batch).out).peak_bytes
      <= 600 * 1024)
    assert.is_false(run(budget .. batch + 1).ok)
    local result = run(SHAPE .. '--fit batch=2KiB')
    assert.is_truthy(result.err:find 'not even %-%-batch 1 fits into 2.0 KiB')
  end)

  it('--trace writes what ran in the first steps', function()
    local path = folder .. '/trace.json'
    succeed(TINY .. '--steps 7 --ckpt every=1 --trace ' .. path)
    local programs, replays = 0, 0
    for _, event in ipairs(cjson.decode(io.open(path):read '*a').traceEvents) do
      programs = math.max(programs, event.args.program or 0)
      if event.cat == 'replay' then replays = replays + 1 end
    end
    assert.equal(5, programs)
    assert.is_true(replays > 0)
    local result = run(TINY .. '--steps 1 --trace /no/such/folder/t.json')
    assert.is_truthy(result.err:find('--trace /no/such/folder/t.json: No such', 1, true))
  end)

  it('ends cleanly after the step on Ctrl-C', function()
    local path = folder .. '/interrupted.jsonl'
    local out = succeed(TINY .. '--steps 1000000 --log ' .. path,
      'timeout --preserve-status -s INT 3 env').out
    assert.is_truthy(out:find 'stopped by Ctrl%-C after %d+ steps')
    assert.is_truthy(out:find 'Activation checkpointing: ')
    local last
    for line in io.lines(path) do last = line end
    assert.is_number(cjson.decode(last).val_loss)
  end)

  it('says what a step needs when memory runs out', function()
    local result = run('--preset gpt2-355m --batch 1 --steps 1',
      'ulimit -v 1500000;')
    assert.is_false(result.ok)
    assert.is_truthy(result.err:find 'out of memory')
    assert.is_truthy(result.err:find 'step needs %d+%.%d+ GiB')
    assert.is_truthy(result.err:find('--ckpt budget=min', 1, true))
    assert.is_nil(result.err:find 'stack traceback')
  end)

  describe('says what is wrong and exits with 1:', function()
    local function refuses(arguments, pattern)
      it(arguments, function()
        local result = run(arguments)
        assert.is_true(result.code == 256 or result.code == 1
          or result.code == nil, tostring(result.code))
        assert.equal('train.lua: ', result.err:sub(1, 11))
        assert.is_truthy(result.err:find(pattern), result.err)
        assert.is_nil(result.err:find 'stack traceback')
        assert.equal(1, select(2, result.err:gsub('\n', '')), result.err)
      end)
    end

    refuses('--ckpt evry=2', "%-%-ckpt evry=2: .*evry.*did you mean.*every")
    refuses('--ckpt every=0', '%-%-ckpt every=0: ')
    refuses('--ckpt every=x', '%-%-ckpt every=x: ')
    refuses(TINY .. "--ckpt 'scope=*.nothing'", 'nothing')
    refuses(TINY .. '--ckpt blocks=blocks.1..blocks.9', 'blocks%.9')
    refuses(TINY .. '--ckpt ./no_such_file.lua', 'no_such_file%.lua')
    refuses('--steps 0', '%-%-steps 0: wants a whole number, 1 or more')
    refuses('--data /no/such/file', '%-%-data /no/such/file: No such file')
    refuses('--model mlp --data /no/such', '/no/such: no train%-images')
    refuses('--log /no/such/folder/log --steps 1 ' .. TINY,
      '%-%-log /no/such/folder/log: No such file')
    refuses('--ckpt none --gradient-checkpointing', 'contradicts')
    refuses('--stepz 1', "unknown option '%-%-stepz'")

    it('an empty text', function()
      local result = run('--data ' .. write('empty.txt', ''))
      assert.is_truthy(result.err:find('the file is empty', 1, true))
    end)

    it('a sequence longer than the text', function()
      local result = run('--data ' .. write('short.txt', ('ab '):rep(100)))
      assert.is_truthy(result.err:find('a sequence of 64 needs a text of at '
        .. 'least 650 characters', 1, true), result.err)
    end)

    it('a strategy file with an error: its line', function()
      local path = write('broken.lua', 'return function(graph)\n'
        .. '  return graph.layers[1].nothing.more\nend')
      local result = run(TINY .. '--ckpt ' .. path)
      assert.is_truthy(result.err:find('broken.lua:2:', 1, true), result.err)
      assert.is_nil(result.err:find 'stack traceback')
    end)

    it('a strategy file that returns nonsense', function()
      local path = write('nonsense.lua', 'return function() return 7 end')
      local result = run(TINY .. '--ckpt ' .. path)
      assert.is_truthy(result.err:find('nonsense.lua', 1, true), result.err)
    end)
  end)
end)
