"""What compression brings: for states of every family, beside the codecs of others, and for vectors of 1 GiB."""
