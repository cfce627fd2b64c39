complete --keep-order --exclusive --command rackhand --arguments "(COMPLETE=fish rackhand -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
