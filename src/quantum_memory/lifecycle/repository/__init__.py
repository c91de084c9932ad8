"""What checkpoints and backups have in common: manifests in a folder, over one store of chunks.

`manifest_file` is how a manifest lies in a file, `folder` what can be done to a folder of them, `chunks` how bytes
become chunks and how these are read back.
"""
