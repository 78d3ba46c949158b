"""The stories. Each flow is a verb: plain values in, a model out, an error raised.

services.py      what flows work with
session.py       start, refresh, end; who makes a request
signins.py       where someone is signed in
login.py         address and password
registration.py  a new account
verification.py  proof of the address by a mailed code
recovery.py      a forgotten password
credentials.py   a known password, proven again and replaced
address.py       another address, and the one of before again
closing.py       an account that its owner closes
export.py        what is held about an account
undo.py          the tokens that undo
account.py       what operators do to accounts
administration.py audit.py admin_tokens.py paging.py   what administrators do, on record, by which tokens, in pages
signing_keys.py  another signing key
sweep.py         what the passing of time does
messages.py      what a mail says, decided when it is sent

Flows know neither Tornado nor MongoDB.
"""
