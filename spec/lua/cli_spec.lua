local cli = require 'reprise.cli'

local function parse(line)
  local arguments = {}
  for word in line:gmatch '%S+' do arguments[#arguments + 1] = word end
  return cli.parse(arguments)
end

describe('the command line', function()
  it('fills in the demo', function()
    local options = assert(parse '')
    assert.equal('gpt', options.model)
    assert.equal('demo', options.preset)
    assert.equal('none', options.ckpt)
    assert.equal(1, options.accumulate)
    assert.equal('f32', options.dtype)
  end)

  it('has the shapes of GPT-2', function()
    -- Radford et al., 2019, table 2; heads are 64 wide.
    for name, shape in pairs {['gpt2-124m'] = {12, 12, 768},
        ['gpt2-355m'] = {24, 16, 1024}, ['gpt2-774m'] = {36, 20, 1280},
        ['gpt2-1558m'] = {48, 25, 1600}} do
      local options = assert(parse('--preset ' .. name))
      assert.same(shape, {options.layers, options.heads, options.width})
      assert.equal(64, options.width / options.heads)
      assert.equal(50257, options.vocabulary)
      assert.equal(1024, options.seq)
    end
  end)

  it('lets options override the preset', function()
    local options = assert(parse '--preset gpt-10m --layers 2 --seq=32 --lr 1e-4')
    assert.equal(2, options.layers)
    assert.equal(6, options.heads)
    assert.equal(32, options.seq)
    assert.equal(1e-4, options.lr)
  end)

  it('knows --gradient-checkpointing as another name of --ckpt', function()
    assert.equal('every=1', parse('--gradient-checkpointing').ckpt)
    assert.equal('every=1', parse('--gradient-checkpointing true').ckpt)
    assert.equal('none', parse('--gradient-checkpointing false').ckpt)
    assert.equal('every=1',
      parse('--gradient-checkpointing --ckpt every=1').ckpt)
  end)

  local errors = {
    ['--ckpt every=2 --gradient-checkpointing'] =
      '--gradient-checkpointing true means --ckpt every=1, which contradicts '
      .. '--ckpt every=2: give one of the two',
    ['--ckpt every=1 --gradient-checkpointing false'] =
      '--gradient-checkpointing false means --ckpt none, which contradicts '
      .. '--ckpt every=1: give one of the two',
    ['--gradient-checkpointing maybe'] =
      '--gradient-checkpointing maybe: is not one of true, false',
    ['--steps 0'] = '--steps 0: wants a whole number, 1 or more',
    ['--steps -5'] = '--steps -5: wants a whole number, 1 or more',
    ['--batch 1.5'] = '--batch 1.5: wants a whole number, 1 or more',
    ['--seq 1e99'] = '--seq 1e99: wants a whole number, 1 or more',
    ['--layers nan'] = '--layers nan: wants a whole number, 1 or more',
    ['--lr 0'] = '--lr 0: wants a number above 0',
    ['--clip inf'] = '--clip inf: wants a number above 0',
    ['--dropout 1'] =
      '--dropout 1: wants a probability, 0 or more and below 1',
    ['--preset gpt-11m'] = '--preset gpt-11m: is not one of demo, gpt-10m, '
      .. 'gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m; did you mean gpt-10m?',
    ['--dtype fp16'] = '--dtype fp16: is not one of f32, bf16, f64; bf16 '
      .. 'takes as few bytes and has the range of f32',
    ['--device gpu'] = '--device gpu: is not one of cpu, cuda; did you mean cuda?',
    ['--dtype bfloat16'] =
      '--dtype bfloat16: is not one of f32, bf16, f64; did you mean bf16?',
    ['--ckpt='] = '--ckpt : is empty',
    ['--json'] =
      '--json goes with --plan; --log FILE writes the steps as JSON',
    ['--plan --log x'] =
      '--plan stops before the first step, so --log has nothing to write',
    ['--picture x'] = '--picture goes with --plan',
    ['--plan --compare none,sqrt'] = '--compare and --plan: one at a time',
    ['--fit width'] =
      '--fit width: is not one of batch, seq, layers',
    ['--fit batch=much'] =
      '--fit batch=much: much is no size: 16GiB, 300MiB, ...',
    ['--fit batch --ckpt sqrt'] = '--fit batch needs a size to fit into: '
      .. '--ckpt budget=16GiB, or --fit batch=16GiB with any --ckpt',
    ['--fit batch=1GiB --profile x'] =
      '--profile is of one size, and --fit tries others: leave one out',
    ['--accumulate 2 --profile x'] = '--profile is of one program a step, and '
      .. '--accumulate makes several: leave one out',
    ['--fit seq=1GiB --model mlp'] =
      '--fit seq goes with --model gpt, not with --model mlp',
    ['--plan --curve x'] = '--curve and --plan: one at a time',
    ['--curve x --log y'] =
      '--curve stops before the first step, so --log has nothing to write',
    ['--model mlp --preset demo'] =
      '--preset goes with --model gpt, not with --model mlp',
    ['--model mlp --seq 8'] =
      '--seq goes with --model gpt, not with --model mlp',
    ['--model resnet --dropout 0.1'] =
      '--dropout goes with --model gpt or mlp, not with --model resnet',
    ['--model resnet --layers 6'] =
      '--layers 6: a resnet has four stages of as many blocks each',
    ['--heads 3'] = '--heads 3 does not divide --width 128',
    ['book.txt'] = 'book.txt: is no option; a text is given as --data book.txt',
    ['--stepz 3'] = "unknown option '--stepz'; Did you mean '--steps'?",
    ['--steps'] = "option '--steps' requires an argument",
    ['--ckpt none --ckpt sqrt'] =
      "option '--ckpt' must be used at most 1 time",
  }
  for line, expected in pairs(errors) do
    it('refuses ' .. line, function()
      local options, problem = parse(line)
      assert.is_nil(options)
      assert.equal(expected, problem)
    end)
  end
end)
