"""Accounts in files: how they are written here and elsewhere.

lines.py    our own JSON lines: an account from one, and one from an account
formats.py  files into records: JSON lines, CSV, one JSON document
documents.py  the list in such a document, entry by entry
sources.py  others' records into ours: Supabase, Auth0, Firebase, Keycloak, Django, FastAPI-Users
"""
