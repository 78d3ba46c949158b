"""The command line: arguments in, text out; the work is in the core and the flows.

main.py    the command: serve, check-config, openapi
data.py    users, sessions, keys, mail
admin.py   admin: tokens, audit
moving.py  users import, users export
explain.py explain
selftest.py selftest
plugins.py plugins: list, new, check
extended.py the commands that plugins bring
output.py  how commands speak and fail
"""

from hydracore.cli.main import main

__all__ = ["main"]
