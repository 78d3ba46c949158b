"""Password hashes that were made elsewhere, and what it takes to verify them. None is made here.

schemes.py  the schemes: what each computes, what that costs, and how dear it may be
crypts.py   two of them that no library brings: sha512-crypt and phpass
notation.py what others write, read: modular crypt, PHC strings, Django's; and Firebase's and Keycloak's records
"""

from hydracore.foreign.notation import ForeignHash, firebase, keycloak, read_hash
from hydracore.foreign.schemes import Foreign, Work, argon2_work, spend

__all__ = ["Foreign", "ForeignHash", "Work", "argon2_work", "firebase", "keycloak", "read_hash", "spend"]
