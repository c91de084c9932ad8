"""Encryption at rest: keys, sealed chunks and sealed files. It knows errors and files, and nothing of what it seals."""
