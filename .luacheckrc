std = 'luajit'
max_line_length = 100
exclude_files = {'build*/**', 'runs/**', 'T/**'}
files['spec/lua'] = {std = 'luajit+busted'}
