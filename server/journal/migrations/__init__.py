"""The journal's tables, step by step; Alembic reads these files by their place.

Migrations add and never take away what the version before them reads and writes, so that servers of two versions may
run on one journal while they are replaced. A new one is listed in `server.journal.migrate.REVISIONS`.
"""
