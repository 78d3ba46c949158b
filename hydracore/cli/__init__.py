"""The command line: arguments in, text out; the work is in the core and the flows.

main.py    the command: serve, check-config, openapi
data.py    users, keys, mail
roles.py moving.py   users: roles; import, export
sessions.py sessions
admin.py   admin: tokens, audit
preview.py mail preview
secret.py  secret
webhooks.py webhooks
explain.py explain
selftest.py selftest
plugins.py plugins: list, new, check
extended.py the commands that plugins bring
output.py  how commands speak and fail
"""

from hydracore.cli.main import main

__all__ = ["main"]
