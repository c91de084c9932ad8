"""How a memory becomes a file.

`verbs` saves, loads and opens whatever the format, `verify` and `compare` check and compare files, `convert` goes from
one to another. `registry` knows the formats, `reader` what each of them gives to the verbs, and `urls` and `names` what
stands in the place of a file: a version at an address, a checkpoint of a folder, a state of a store. The QMS container
is in four parts: `qms_layout` (where every byte is), `qms_writer`, `qms_reader`, and `binary_format` (memories in it).
HDF5 stores are in `hdf5_storage` and the modules that begin like it, of which `hdf5_guard` reads files that anybody may
have written. `json_format` is the form for people; `msgpack_format`, `pickle_format`, `base64_format` and `npz_format`
are for other programs, with `tree_file` and `seal` in common; `state_serializer` gives all of them in memory. `lazy`
and `select` read parts of a file, `legacy` reads those of the first implementation, and `foreign` tells what others
are.
"""
