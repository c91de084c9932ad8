"""How a memory becomes a file.

`verbs` saves, loads and opens whatever the format, `verify` and `compare` check and compare files. The QMS container is
in four parts: `qms_layout` (where every byte is), `qms_writer`, `qms_reader`, and `binary_format` (memories in it);
`lazy` reads parts of one. `json_format` is the form for people, and `foreign` tells what other files are.
"""
