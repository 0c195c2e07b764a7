--- The main job: builds what the options ask for, reports the plan, trains.

local rp = require 'reprise'
local binding = require 'reprise.ffi'
local ckpt = require 'reprise.ckpt'
local clock = require 'reprise.report.clock'
local failure = require 'reprise.failure'
local log = require 'reprise.train.log'
local look = require 'reprise.train.look'
local loop = require 'reprise.train.loop'
local memory_report = require 'reprise.report.memory'
local progress = require 'reprise.report.progress'
local record = require 'reprise.io.record'
local summary = require 'reprise.report.summary'
local units = require 'reprise.report.units'
local usage = require 'reprise.usage'
local usage_report = require 'reprise.report.usage'

local C = binding.C
local optim = rp.optim

-- The sample ends with whichever comes first.
local SAMPLE_CHARACTERS, SAMPLE_SECONDS = 500, 10
-- Shares of the steps and of the peak learning rate.
local WARMUP, LEAST_LR = 0.05, 0.1
-- A trace of these many steps is small enough to look at.
local TRACED_STEPS = 5
local tasks = {gpt = 'reprise.train.text_task', mlp = 'reprise.train.image_task',
               resnet = 'reprise.train.image_task'}

-- Weight decay on matrices only: biases, norms and scales have none.
local function make_optimizer(model, options)
  local matrices, rest = {}, {}
  for _, parameter in model:named_parameters() do
    local group = #parameter.shape >= 2 and matrices or rest
    group[#group + 1] = parameter
  end
  return optim.AdamW({
    {params = matrices, weight_decay = 0.1}, {params = rest, weight_decay = 0},
  }, {lr = options.lr, betas = {0.9, 0.95}, clip_grad_norm = options.clip})
end

local function parameter_count(model)
  local count = 0
  for _, parameter in model:named_parameters() do
    local size = 1
    for _, n in ipairs(parameter.shape) do size = size * n end
    count = count + size
  end
  return count
end

local function title(task, options)
  return ('%s · %s parameters · %s · AdamW · %s'):format(task:title(),
    units.count(parameter_count(task.model)), options.dtype, options.ckpt)
end

-- The plans of a step under the chosen strategy and under none.
local function plans(task, opt, options)
  local loss = task:loss()
  local plan = look.plan(opt, loss, options.ckpt)
  local none = opt:plan(loss, {ckpt = 'none'})
  return summary.of(plan), summary.numbers(none), plan
end

-- --trace: the first steps, written when they are done or training ends.
local function tracer(options)
  if not options.trace then return function() end end
  local file, problem = io.open(options.trace, 'w')
  if not file then
    error(('--trace %s: %s'):format(options.trace, (problem:gsub('^.*: ', ''))), 0)
  end
  file:close()
  local trace = rp.trace()
  return function(step)
    if trace and (not step or step >= TRACED_STEPS) then
      trace:save(options.trace)
      trace = nil
    end
  end
end

-- --profile: read where the file is there, else measured by this run.
local function profiler(options)
  if not options.profile then return nil end
  local looks = options.plan or options.curve or options.compare
  if looks and not record.exists(options.profile) then
    error(('--profile %s: there is no such file; a training run writes it')
      :format(options.profile), 0)
  end
  if options.trace and not record.exists(options.profile) then
    error(('--profile %s: there is no such file, so this run would measure it, '
      .. 'and --trace measures too: one at a time'):format(options.profile), 0)
  end
  local ok, profile = pcall(rp.profile, options.profile)
  if ok then return profile end
  -- It begins with the file's name.
  error('--profile ' .. tostring(profile):gsub('^.-%[profile%] ', ''), 0)
end

-- What there is to say of it once training is over.
local function profile_line(profile)
  if not profile or not profile.watch then return end
  profile:stop()
  if profile.steps == 0 then
    print(('no profile: %s wants two steps or more'):format(profile.path))
  else
    print(('profile of %d step%s written to %s: the next run plans with it'):format(
      profile.steps, profile.steps == 1 and '' or 's', profile.path))
  end
end

local function hooks_of(opt, options, plan, line, journal, traced)
  local rate = optim.warmup_cosine {lr = options.lr, steps = options.steps,
    warmup = math.ceil(options.steps * WARMUP), min_lr = options.lr * LEAST_LR}
  return {
    set_lr = function(step) opt:set_lr(rate(step)) end,
    interrupted = C.rp_interrupt_take,
    promised_bytes = plan.peak_bytes,
    show = function(step)
      line:show(step)
      journal:write(step)
      traced(step.step)
    end,
  }
end

local function train(task, opt, options, plan)
  local journal = log.open(options.log)
  local line = progress.new(options.steps)
  local sink = failure.sink
  -- A notice begins on a line of its own.
  failure.sink = function(text)
    line:finish()
    sink(text)
  end
  C.rp_interrupt_install()
  local traced = tracer(options)
  local ok, result = pcall(loop.run, task, opt, options,
    hooks_of(opt, options, plan, line, journal, traced))
  traced()
  line:finish()
  journal:close()
  failure.sink = sink
  if ok then return result end
  local reason = tostring(result)
  -- As options of this program.
  local least
  reason, least = reason:gsub("{ckpt = 'budget=min'}", '--ckpt budget=min; '
    .. 'a smaller --batch needs less')
  if least == 0 and reason:find 'out of memory' then
    reason = ('%s; a step needs %s: less with a smaller --batch, with --ckpt '
      .. 'every=1, ...; --plan shows it'):format(reason,
      units.bytes(plan.peak_bytes))
  end
  error(reason, 0)
end

-- What was promised beside the driver's own figure; '' on the CPU.
local function usage_lines(device, promised)
  local of = usage.of(device)
  if not of then return '' end
  return ('on %s: %s planned, %s\n%s\n'):format(device, units.bytes(promised),
    usage_report.driver_line(of), usage_report.fixed_line(of))
end

local function closing(result, device)
  local how = result.interrupted and 'stopped by Ctrl-C after' or 'trained'
  return ('%s %d steps in %s: loss %.4f, held out %.4f\npeak %s, %s\n%s'
    .. 'a step\'s programs took %s, predicted %s'):format(
    how, result.steps, units.clock(result.seconds), result.loss,
    result.val_loss, units.bytes(result.peak_bytes),
    result.peak_bytes == result.promised_bytes and 'to the byte as promised'
      or 'promised ' .. units.bytes(result.promised_bytes),
    usage_lines(device, result.promised_bytes),
    units.seconds(result.step_seconds), units.seconds(result.predicted_seconds))
end

local function print_sample(task)
  local started, text = clock(), nil
  task.model:eval()
  rp.no_grad(function()
    text = task:sample(SAMPLE_CHARACTERS, function()
      return C.rp_interrupt_take() or clock() - started > SAMPLE_SECONDS
    end)
  end)
  print(('\nwhat the model writes:\n\n%s\n'):format(text))
end

-- With --accumulate the gradients of the first batches stay until the step.
local function accumulation_line(options, plan)
  if options.accumulate == 1 then return end
  print(('--accumulate %d: gradients stay between batches, at least %s more\n')
    :format(options.accumulate, units.bytes(plan.parameter_bytes)))
end

--- Runs the job. Errors are messages for a person.
---@param options reprise.TrainOptions
---@param Model function the model's constructor
return function(options, Model)
  rp.set_default_device(options.device)
  if options.no_cuda_graph then rp.cuda.graphs(false, options.device) end
  rp.manual_seed(options.seed)
  -- bf16 is mixed precision: weights and inputs are f32.
  local mixed = options.dtype == 'bf16'
  rp.set_default_dtype(mixed and 'f32' or options.dtype)
  rp.autocast(mixed and 'bf16')
  rp.detect_anomaly(options.detect_anomaly or false)
  rp.verify_replay(options.verify_replay or false)
  local strategy, reason = ckpt.parse(options.ckpt)
  if not strategy then
    error(('--ckpt %s: %s'):format(options.ckpt, reason), 0)
  end
  rp.ckpt(strategy)
  local function build(changes)
    local chosen = setmetatable(changes or {}, {__index = options})
    local task = require(tasks[options.model]).new(chosen, Model)
    return task, make_optimizer(task.model, chosen)
  end
  if options.fit then return look.fit(build, options) end
  local profile = profiler(options)
  if options.compare then return look.compare(build, options) end
  local task, opt = build()
  if options.curve then
    return look.curve(opt, task:loss(), options, task:title())
  end
  local plan, none, whole = plans(task, opt, options)
  if options.plan then
    look.report(whole, plan, none, options, title(task, options))
    if not options.json then accumulation_line(options, plan) end
    return
  end
  print(title(task, options))
  print(task:data_line())
  print()
  print(memory_report.text(plan, none))
  if plan.usage then print(usage_report.fixed_line(plan.usage)) end
  print()
  accumulation_line(options, plan)
  local result = train(task, opt, options, plan)
  if task.sample then print_sample(task) end
  print(closing(result, options.device))
  profile_line(profile)
  print(memory_report.verdict(plan, none))
end
