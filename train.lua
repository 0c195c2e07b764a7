--- Trains a model with planned activation checkpointing.
--   luajit train.lua --ckpt every=2      (luajit train.lua --help)

-- Everything is found from where this file is, whatever the present folder.
local root = arg[0]:match '^(.*/)[^/]*$' or './'
package.path = root .. 'lua/?.lua;' .. root .. 'lua/?/init.lua;' .. root
  .. '?.lua;' .. package.path

local PROGRAM = arg[0]:match '[^/]*$'

local function main()
  local strategies = require('reprise.ckpt').list
  local options, problem =
    require('reprise.cli').parse(arg, PROGRAM, strategies)
  if not options then error(problem, 0) end
  local model = require('examples.models.' .. options.model)
  require 'reprise.train.run'(options, model)
end

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

local ok, reason = pcall(main)
if not ok then
  io.stdout:flush()
  io.stderr:write(PROGRAM, ': ', without_position(tostring(reason)), '\n')
  os.exit(1)
end
