-- Made in a checkout: luarocks make rocks/reprise-scm-1.rockspec --tree T
--
-- lua-cjson and argparse are not listed: LuaRocks does not see the ones that
-- Debian installs (lua-cjson, lua-argparse) and would download others.
package = 'reprise'
version = 'scm-1'
source = {url = 'file://.'}
description = {
  summary = 'Tensors, automatic differentiation, planned activation checkpointing',
  detailed = [[
    A tensor is a recipe; holding its value is a decision. Reprise is a tensor
    and automatic-differentiation library for LuaJIT with a C core that knows
    a training step's memory to the byte before it runs, and trades it for
    recomputation as asked.
  ]],
  license = 'MIT',
}
supported_platforms = {'linux'}
dependencies = {'lua >= 5.1, < 5.2'}
build = {
  type = 'cmake',
  variables = {
    CMAKE_BUILD_TYPE = 'Release',
    CMAKE_INSTALL_PREFIX = '$(PREFIX)',
    LUADIR = '$(LUADIR)',
    LIBDIR = '$(LIBDIR)',
    REPRISE_TESTS = 'OFF',
  },
}
