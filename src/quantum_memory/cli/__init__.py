"""The command line, ``qmem``: one module for each verb."""
