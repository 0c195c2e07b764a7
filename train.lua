--- Trains a model with planned activation checkpointing.
--   luajit train.lua --ckpt every=2      (luajit train.lua --help)

-- Everything is found from where this file is, whatever the present folder.
local root = arg[0]:match '^(.*/)[^/]*$' or './'
package.path = root .. 'lua/?.lua;' .. root .. 'lua/?/init.lua;' .. root
  .. '?.lua;' .. package.path

local cli = require 'reprise.cli'

local PROGRAM = arg[0]:match '[^/]*$'

local function fail(message)
  io.stdout:flush()
  io.stderr:write(PROGRAM, ': ', message, '\n')
  os.exit(1)
end

local options, problem = cli.parse(arg, PROGRAM)
if not options then fail(problem) end

local run = require 'reprise.train.run'
local model = require('examples.models.' .. options.model)
local ok, reason = pcall(run, options, model)
-- The position in front of a message is this program's own: no news.
if not ok then fail((tostring(reason):gsub('^[^\n]-%.lua:%d+: ', ''))) end
