"""How bytes survive: the only package that touches the operating system.

`files` is the operating system as a dozen calls that a test can make fail; `atomic` writes a file so that it is wholly
there or not at all, and stays.
"""
