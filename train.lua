--- Trains a model with planned activation checkpointing.
--   luajit train.lua --ckpt every=2      (luajit train.lua --help)

-- Everything is found from where this file is, whatever the present folder.
local root = arg[0]:match '^(.*/)[^/]*$' or './'
package.path = root .. 'lua/?.lua;' .. root .. 'lua/?/init.lua;' .. root
  .. '?.lua;' .. package.path

local cli = require 'reprise.cli'
local ckpt = require 'reprise.ckpt'

local PROGRAM = arg[0]:match '[^/]*$'

local function fail(message)
  io.stdout:flush()
  io.stderr:write(PROGRAM, ': ', message, '\n')
  os.exit(1)
end

local options, problem = cli.parse(arg, PROGRAM, ckpt.list)
if not options then fail(problem) end

-- The position in front of a message is news only where it is the user's own
-- file (a strategy), not this program's.
local function without_position(reason)
  local file, rest = reason:match '^([^\n:]+%.lua):%d+: (.*)$'
  if file and (file == arg[0] or file:sub(1, #root) == root
      and file:find('reprise/', 1, true)) then
    return rest
  end
  return reason
end

local run = require 'reprise.train.run'
local model = require('examples.models.' .. options.model)
local ok, reason = pcall(run, options, model)
if not ok then fail(without_position(tostring(reason))) end
