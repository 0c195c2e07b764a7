std = 'luajit'
max_line_length = 100
exclude_files = {'build*', 'T'}
files['spec/**/*_spec.lua'] = {std = 'luajit+busted'}
