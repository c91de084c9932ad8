"""How bytes survive: the only package that touches the operating system.

`files` is the operating system as a few calls that a test can make fail; `atomic` writes a file so that it is wholly
there or not at all, and stays. `transaction` does the same for changes to a file in place: `changes` and `overlay` hold
them until the commit, `redo_log` makes them durable, `locks` keeps others out, and `file_object` is what h5py calls.
"""
