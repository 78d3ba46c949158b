"""HTTP: the only rooms that know Tornado.

base.py      Endpoint: what every call shares, and the one place where errors become JSON
client.py    whose request it is: the client's network, trusted proxies, same origin
cookies.py   the two cookies
described.py openapi.py components.py docs.py   what calls say of themselves, the document of it, and its page
routes.py    the table of calls
dispatch.py  the nested application that they live in
login.py session.py registration.py verification.py recovery.py   one module a story
service.py   health and the published keys
host.py      for handlers of an embedding application
"""
