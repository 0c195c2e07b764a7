--- The command line of train.lua: what each option takes, what contradicts
-- what, and defaults. Nothing here needs the core.

local argparse = require 'argparse'
local edit_distance = require 'reprise.edit_distance'
local presets = require 'reprise.presets'
local units = require 'reprise.report.units'

local cli = {}

local function whole(least)
  return function(text)
    local n = tonumber(text)
    if n and n == math.floor(n) and n >= least and n < 2 ^ 31 then return n end
    return nil, ('wants a whole number, %d or more'):format(least)
  end
end

local function real(fits, wants)
  return function(text)
    local x = tonumber(text)
    if x and fits(x) then return x end
    return nil, 'wants ' .. wants
  end
end

local function one_of(names)
  return function(text)
    local nearest, least = nil, math.floor(#text / 2) + 1
    for _, name in ipairs(names) do
      if name == text then return text end
      local d = edit_distance(text, name)
      if d < least then nearest, least = name, d end
    end
    return nil, ('is not one of %s%s'):format(table.concat(names, ', '),
      nearest and ('; did you mean %s?'):format(nearest) or '')
  end
end

-- f16 is what people bring along; it needs a loss scaled to its range.
local half = {f16 = true, fp16 = true, float16 = true, half = true}

local function dtype(text)
  if half[text] then
    return nil, 'is not one of f32, bf16, f64; bf16 takes as few bytes and '
      .. 'has the range of f32'
  end
  return one_of {'f32', 'bf16', 'f64'}(text)
end

local function device(text)
  if text:match '^cuda:%d+$' then return text end
  if text:match '^gpu' then return nil, 'is not one of cpu, cuda; did you mean cuda?' end
  return one_of {'cpu', 'cuda'}(text)
end

local function any(text)
  return text ~= '' and text or nil, 'is empty'
end

-- WHAT, or WHAT=SIZE.
local function size_to_fit(text)
  local what = text:match '^[^=]*'
  local ok, problem = one_of {'batch', 'seq', 'layers'}(what)
  if not ok then return nil, problem end
  local limit = text:match '=(.*)$'
  if limit and not units.parse_bytes(limit) then
    return nil, ('%s is no size: 16GiB, 300MiB, ...'):format(limit)
  end
  return {what = what, limit = limit}
end

local positive = real(function(x) return x > 0 and x < math.huge end,
  'a number above 0')

-- name, argument, what it takes, help; `models`: those that it goes with.
local groups = {
  {'Model', {
    {'model', '<name>', one_of {'gpt', 'mlp', 'resnet'},
     'gpt, GPT-2\'s architecture (default), mlp or resnet, on Fashion-MNIST'},
    {'preset', '<name>', one_of(presets.gpt_names), 'sizes of the gpt: '
       .. table.concat(presets.gpt_names, ', ') .. ' (default: demo)',
     models = 'gpt'},
    {'layers', '<n>', whole(1), 'blocks of the gpt or resnet, hidden layers of '
       .. 'the mlp'},
    {'heads', '<n>', whole(1), 'attention heads; they divide the width',
     models = 'gpt'},
    {'width', '<n>', whole(1), 'features of a layer, or channels of the first'},
    {'dropout', '<p>', real(function(p) return p >= 0 and p < 1 end,
       'a probability, 0 or more and below 1'), 'share of values dropped',
     models = 'gpt or mlp'},
    {'dtype', '<name>', dtype, 'f32 (default), f64, or bf16: products and '
       .. 'what is kept in bf16, weights and losses in f32'},
    {'device', '<name>', device, 'cpu (default), cuda or cuda:1: where it all runs'},
    {'no-cuda-graph', nil, nil, 'with --device cuda: launch each kernel on its own'},
  }},
  {'Data', {
    {'data', '<path>', any, 'a text for gpt (default: the built-in stories), '
       .. 'a folder of IDX files for images (default: Debian\'s '
       .. 'dataset-fashion-mnist)'},
    {'batch', '<n>', whole(1), 'sequences or images a step'},
    {'seq', '<n>', whole(1), 'tokens a sequence', models = 'gpt'},
  }},
  {'Training', {
    {'steps', '<n>', whole(1), 'optimizer steps'},
    {'lr', '<x>', positive, 'peak learning rate (warmup, then cosine)'},
    {'accumulate', '<k>', whole(1), 'batches whose gradients make one step'},
    {'clip', '<x>', positive, 'limit of the gradients\' global norm'},
    {'eval-every', '<n>', whole(1), 'steps between two held-out losses'},
    {'detect-anomaly', nil, nil, 'stop at the first NaN or infinity and say '
       .. 'where it was made'},
    {'seed', '<n>', whole(0), 'of weights, dropout and batches (default: 1)'},
  }},
  {'Checkpointing', {
    {'ckpt', '<spec>', any, 'what to keep for backward; specs are below'},
    {'profile', '<file>', any, 'seconds of this model\'s ops, for planning: '
       .. 'written by a training run where there is no such file, read by the next'},
    {'verify-replay', nil, nil, 'compare every recomputed value with its first run'},
  }},
  {'To look at, without training', {
    {'plan', nil, nil, 'print the memory plan and stop: nothing is allocated'},
    {'json', nil, nil, 'with --plan: as one JSON object'},
    {'picture', '<file>', any, 'with --plan: memory over the program, as SVG'},
    {'curve', '<file>', any, 'least time against budget: a table, and an SVG'},
    {'fit', '<what>', size_to_fit, 'largest batch, seq or layers that fits '
       .. '--ckpt budget=SIZE, or batch=SIZE under any --ckpt'},
    {'compare', '<specs>', any, 'strategies side by side, predicted and '
       .. 'measured in a process each: none,every=2,budget=40%'},
  }},
  {'Output', {
    {'log', '<file>', any, 'one JSON object a step, one a line'},
    {'trace', '<file>', any, 'the first 5 steps in the Chrome trace format: '
       .. 'what ran when, at how many live bytes'},
  }},
}

local examples = [[
Examples:
   luajit train.lua --ckpt every=2
   luajit train.lua --preset gpt-10m --data shakespeare.txt --ckpt sqrt
   luajit train.lua --preset gpt2-1558m --batch 1 --ckpt every=1 --plan
   luajit train.lua --preset gpt-10m --ckpt budget=40% --plan --picture plan.svg
   luajit train.lua --model mlp --ckpt uniform=2 --log run.jsonl]]

-- `strategies` is reprise.ckpt's list of {name, usage, help}.
local function epilog(strategies)
  local lines = {'Specs of --ckpt:'}
  for _, row in ipairs(strategies) do
    lines[#lines + 1] = ('   %-22s %s'):format(row[2], row[3])
  end
  lines[#lines + 1] = ('   %-22s %s'):format('./file.lua',
    'a strategy of your own (docs/add-a-strategy.md)')
  return table.concat(lines, '\n') .. '\n\n' .. examples
end

local function make_parser(program, strategies)
  local parser = argparse(program, 'Trains a model with planned activation '
    .. 'checkpointing: the peak of memory is known, to the byte, before the '
    .. 'first step. What is not given comes with the preset.',
    epilog(strategies))
  parser:help_max_width(80):help_description_margin(28):usage_max_width(80)
  local all = {}
  for _, group in ipairs(groups) do
    local elements = {}
    for _, o in ipairs(group[2]) do
      local element
      if o[2] then
        element = parser:option('--' .. o[1], o[4]):argname(o[2])
        element:overwrite(false)
        all[o[1]] = o
      else
        element = parser:flag('--' .. o[1], o[4])
      end
      elements[#elements + 1] = element
    end
    if group[1] == 'Checkpointing' then
      elements[#elements + 1] = parser:option('--gradient-checkpointing',
        'the same as --ckpt every=1; with false, --ckpt none')
        :argname 'true|false':args '?':overwrite(false)
    end
    parser:group(group[1], unpack(elements))
  end
  parser:argument 'extra':args '*':hidden(true)
  return parser, all
end

-- argparse takes the number of `--steps -1` for an option.
local function join_negative_numbers(arguments)
  local out = {}
  for _, argument in ipairs(arguments) do
    if argument:match '^%-%.?%d' and (out[#out] or ''):match '^%-%-[%w-]+$' then
      out[#out] = out[#out] .. '=' .. argument
    else
      out[#out + 1] = argument
    end
  end
  return out
end

local function convert(raw, all)
  local options = {}
  for _, group in ipairs(groups) do
    for _, o in ipairs(group[2]) do
      local key = o[1]:gsub('-', '_')
      local value = raw[key]
      if value ~= nil and all[o[1]] then
        local problem
        value, problem = o[3](value)
        if value == nil then
          return nil, ('--%s %s: %s'):format(o[1], raw[key], problem)
        end
      end
      options[key] = value
    end
  end
  return options
end

-- --gradient-checkpointing [true|false] is another way to say --ckpt.
local function resolve_alias(options, given)
  if given == nil then return true end
  local text = type(given) == 'table' and given[1] or given
  if type(text) ~= 'string' then text = 'true' end
  local spec = ({['true'] = 'every=1', ['false'] = 'none'})[text]
  if not spec then
    return nil, ('--gradient-checkpointing %s: is not one of true, false')
      :format(text)
  end
  if options.ckpt and options.ckpt ~= spec then
    return nil, ('--gradient-checkpointing %s means --ckpt %s, which '
      .. 'contradicts --ckpt %s: give one of the two'):format(text, spec,
      options.ckpt)
  end
  options.ckpt = spec
  return true
end

-- Options that look at the job and stop.
local stopping = {'compare', 'curve', 'fit', 'plan'}

local function contradiction(options)
  local model = options.model or 'gpt'
  for _, group in ipairs(groups) do
    for _, o in ipairs(group[2]) do
      if o.models and options[o[1]] and not o.models:find(model, 1, true) then
        return ('--%s goes with --model %s, not with --model %s'):format(o[1],
          o.models, model)
      end
    end
  end
  if options.json and not options.plan then
    return '--json goes with --plan; --log FILE writes the steps as JSON'
  end
  if options.picture and not options.plan then
    return '--picture goes with --plan'
  end
  if options.no_cuda_graph and not (options.device or 'cpu'):find 'cuda' then
    return '--no-cuda-graph goes with --device cuda'
  end
  if options.profile and options.fit then
    return '--profile is of one size, and --fit tries others: leave one out'
  end
  if options.profile and (options.accumulate or 1) > 1 then
    return '--profile is of one program a step, and --accumulate makes several: '
      .. 'leave one out'
  end
  for _, name in ipairs(stopping) do
    for _, output in ipairs {'log', 'trace'} do
      if options[name] and options[output] then
        return ('--%s stops before the first step, so --%s has nothing to write')
          :format(name, output)
      end
    end
    for _, other in ipairs(stopping) do
      if options[name] and options[other] and name < other then
        return ('--%s and --%s: one at a time'):format(name, other)
      end
    end
  end
end

-- What --fit measures against: its own size, or the budget's.
local function fit_problem(options)
  local fit = options.fit
  if not fit then return nil end
  if fit.what == 'seq' and options.model == 'mlp' then
    return '--fit seq goes with --model gpt, not with --model mlp'
  end
  if fit.limit then return nil end
  local budget = (options.ckpt or ''):match '^budget=(.*)$'
  if not budget or not units.parse_bytes(budget) then
    return ('--fit %s needs a size to fit into: --ckpt budget=16GiB, or --fit '
      .. '%s=16GiB with any --ckpt'):format(fit.what, fit.what)
  end
  fit.limit, fit.any = budget, true
end

local function add_defaults(options)
  options.model = options.model or 'gpt'
  local preset
  if options.model == 'gpt' then
    options.preset = options.preset or 'demo'
    preset = presets.gpt[options.preset]
  else
    preset = presets[options.model]
  end
  for key, value in pairs(preset) do
    if options[key] == nil then options[key] = value end
  end
  options.seed = options.seed or 1
  options.dtype = options.dtype or 'f32'
  options.device = options.device or 'cpu'
  options.accumulate = options.accumulate or 1
  options.ckpt = options.ckpt or 'none'
  options.eval_every = options.eval_every
    or math.max(1, math.floor(options.steps / 8))
end

---@class reprise.TrainOptions
---@field model 'gpt'|'mlp'|'resnet'
---@field preset? string
---@field ckpt string
---@field layers integer
---@field heads? integer
---@field width integer
---@field seq? integer
---@field vocabulary? integer
---@field batch integer
---@field dropout? number
---@field steps integer
---@field lr number
---@field accumulate integer
---@field eval_every integer
---@field clip? number
---@field seed integer
---@field dtype string
---@field device string
---@field data? string
---@field log? string
---@field plan? boolean
---@field json? boolean
---@field picture? string
---@field curve? string
---@field compare? string
---@field fit? {what: string, limit: string, any: boolean?}
---@field trace? string
---@field detect_anomaly? boolean
---@field verify_replay? boolean
---@field profile? string
---@field no_cuda_graph? boolean

--- Options from arguments, every default filled in. `--help` prints and exits.
---@param arguments string[]
---@param program? string its name in the usage line
---@param strategies? table[] {name, usage, help} of each, for --help
---@return reprise.TrainOptions? options nil: the arguments are wrong
---@return string? problem in one line
function cli.parse(arguments, program, strategies)
  local parser, all = make_parser(program or 'train.lua', strategies or {})
  local ok, raw = parser:pparse(join_negative_numbers(arguments))
  if not ok then return nil, (tostring(raw):gsub('\n', '; ')) end
  if raw.extra[1] then
    return nil, ('%s: is no option; a text is given as --data %s'):format(
      raw.extra[1], raw.extra[1])
  end
  local options, problem = convert(raw, all)
  if not options then return nil, problem end
  ok, problem = resolve_alias(options, raw.gradient_checkpointing)
  if not ok then return nil, problem end
  problem = contradiction(options) or fit_problem(options)
  if problem then return nil, problem end
  add_defaults(options)
  if options.model == 'gpt' and options.width % options.heads ~= 0 then
    return nil, ('--heads %d does not divide --width %d'):format(
      options.heads, options.width)
  end
  if options.model == 'resnet' and options.layers % 4 ~= 0 then
    return nil, ('--layers %d: a resnet has four stages of as many blocks each')
      :format(options.layers)
  end
  return options
end

return cli
