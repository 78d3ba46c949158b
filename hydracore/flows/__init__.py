"""The stories. Each flow is a verb: plain values in, a model out, an error raised.

services.py      what flows work with
session.py       start, refresh, end; who makes a request
login.py         address and password
registration.py  a new account
verification.py  proof of the address by a mailed code
recovery.py      a forgotten password
account.py       what operators do to accounts
messages.py      what a mail says, decided when it is sent

Flows know neither Tornado nor MongoDB.
"""
