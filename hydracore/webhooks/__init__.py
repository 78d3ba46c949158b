"""Telling others what happened, by HTTP.

- ``notices.py``: which events are told of, under which names, and what is said of each
- ``relay.py``: from what happened into the outbox
- ``courier.py``: from the outbox to one webhook, again where it failed
- ``posting.py``: one try
"""
