"""The command line: edgewright check | run | up | ..."""
