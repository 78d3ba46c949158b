"""The command line: arguments in, text out; the work is in the core and the flows.

main.py    the command, and those that need no data: serve, check-config, plugins
data.py    users, sessions, keys, mail
output.py  how commands speak and fail
"""

from hydracore.cli.main import main

__all__ = ["main"]
