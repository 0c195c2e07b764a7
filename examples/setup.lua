-- Lets an example find the module in the checkout, from any folder.
local folder = arg[0]:match '^(.*/)[^/]*$' or './'
package.path = folder .. '../lua/?.lua;' .. folder .. '../lua/?/init.lua;'
  .. folder .. '../?.lua;' .. package.path
