"""Backups: copies of files and folders over a store of chunks, which are known to restore."""
