"""The store: tables, the database, the one writer with its group commit, and the audit chain."""
