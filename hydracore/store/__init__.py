"""The store: the domain's verbs over MongoDB.

store.py      Store: opens the database, ensures its indexes, says whether it is ready
drivers.py    what differs between PyMongo, Motor and mongomock-motor
documents.py  one collection: models in and out, driver errors translated
indexes.py    which indexes there must be
turns.py      how many operations are under way at once
users.py sessions.py codes.py outbox.py keys.py   one collection each
admin.py      admin tokens, and what was done with them
embedded.py   the private mongod

Invariants live in the database: a unique index or one atomic operation, never a look and then an
act. Expiry is part of every query; the TTL indexes only tidy up.
"""

from hydracore.store.documents import DriverError, reason
from hydracore.store.store import Store

__all__ = ["DriverError", "Store", "reason"]
