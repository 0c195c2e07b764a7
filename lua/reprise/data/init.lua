--- Feeding a model.

return {loader = require 'reprise.data.loader'}
