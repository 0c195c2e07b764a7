--- What the main job shows without training: the plan, its picture, the
-- curve, the largest size that fits, strategies side by side.

local ckpt = require 'reprise.ckpt'
local clock = require 'reprise.report.clock'
local compare = require('reprise.compare').of
local curve = require 'reprise.report.curve'
local failure = require 'reprise.failure'
local find_fit = require 'reprise.fit'
local picture_of = require 'reprise.report.picture'
local plan_report = require 'reprise.report.plan'
local units = require 'reprise.report.units'

local look = {}

--- The plan of a step under a spec; an error says it as the command line does.
---@param opt reprise.Optimizer
---@param loss reprise.Tensor
---@param spec string
---@return reprise.Plan
function look.plan(opt, loss, spec)
  local ok, plan = pcall(opt.plan, opt, loss, {ckpt = spec})
  if ok then return plan end
  -- The message's own position and "[ckpt] spec: " say nothing new here.
  local reason = tostring(plan)
  local profile = reason:match '%[profile%] (.*)$'
  if profile then error('--profile ' .. profile, 0) end
  local _, start = reason:find('[ckpt] ' .. spec .. ': ', 1, true)
  error(('--ckpt %s: %s'):format(spec,
    start and reason:sub(start + 1) or reason), 0)
end

local function save(picture, option, path)
  local ok, problem = pcall(picture.save, picture, path)
  if not ok then
    error(('--%s %s: %s'):format(option, path,
      (problem:gsub('^.*: ', ''))), 0)
  end
end

--- --plan: the report, and the picture where it is asked for.
---@param whole reprise.Plan
---@param plan reprise.PlanSummary of `whole`
---@param none reprise.PlanSummary
---@param options reprise.TrainOptions
---@param title string
function look.report(whole, plan, none, options, title)
  local front = whole:front()
  plan.min_budget_bytes, plan.chain = front[1].peak_bytes, front.chain
  plan.left_out = front.left_out
  print(options.json and plan_report.json(plan, none)
    or plan_report.text(plan, none, title))
  if options.picture then
    save(picture_of(whole, title), 'picture', options.picture)
  end
end

--- --curve: the table and the picture.
---@param opt reprise.Optimizer
---@param loss reprise.Tensor
---@param options reprise.TrainOptions
---@param title string
function look.curve(opt, loss, options, title)
  -- What a strategy says of segments that save nothing is no news here.
  local sink = failure.sink
  failure.sink = function() end
  local ok, made = pcall(curve.of, function(spec)
    return opt:plan(loss, {ckpt = spec})
  end)
  failure.sink = sink
  if not ok then error(made, 0) end
  print(curve.text(made, title))
  save(curve.picture(made, title), 'curve', options.curve)
end

-- A number a size down from an error's text.
local function plain(reason)
  return (reason:gsub('^[^\n]-%.lua:%d+: ', '', 1))
end

--- --fit: the largest size whose plan fits.
---@param build fun(changes: table): table, reprise.Optimizer
---@param options reprise.TrainOptions
function look.fit(build, options)
  local what, fit = options.fit.what, options.fit
  local started = clock()
  local best = find_fit(function(n)
    local task, opt = build {[what] = n}
    return task:loss(), opt
  end, fit.limit, {ckpt = not fit.any and options.ckpt or nil})
  local limit = units.bytes(best.limit_bytes)
  if best.n == 0 then
    error(('--fit %s: not even --%s 1 fits into %s: it needs %s'):format(what,
      what, limit, units.bytes(best.peak_bytes)), 0)
  end
  print(('--%s %d fits into %s: it needs %s'):format(what, best.n, limit,
    units.bytes(best.peak_bytes)))
  local next_one = ('--%s %d'):format(what, best.n + 1)
  if best.next_bytes then
    print(('%s would need %s'):format(next_one, units.bytes(best.next_bytes)))
  elseif best.reason then
    print(('%s: %s'):format(next_one, plain(best.reason)))
  end
  print(('%d sizes planned in %s'):format(best.tried,
    units.seconds(clock() - started)))
end

--- --compare: each strategy trains a few steps in a process of its own.
---@param build fun(): table, reprise.Optimizer the task and its optimizer
---@param options reprise.TrainOptions
function look.compare(build, options)
  local specs = ckpt.split(options.compare)
  for _, spec in ipairs(specs) do
    local strategy, reason = ckpt.parse(spec)
    if not strategy then
      error(('--compare %s: %s'):format(spec, reason), 0)
    end
  end
  local made = compare(function()
    failure.sink = function() end
    local task, opt = build()
    return function()
      task:next_batch()
      return task:loss()
    end, opt
  end, specs, {seed = options.seed})
  print(tostring(made))
  if not (made.same_bits and made:as_promised()) then
    error('--compare: not all as it should be, see the table', 0)
  end
end

return look
