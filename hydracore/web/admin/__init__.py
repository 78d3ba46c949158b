"""The Admin API, for a listener of its own: nothing of it is public, and each method says the scope that it takes.

base.py      AdminEndpoint: the token instead of a session, the query, pages
users.py     accounts and their sessions
server.py    mail, signing keys, tokens, the audit
webhooks.py  events for webhooks, and sending them again
"""
