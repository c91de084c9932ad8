"""Memories past one machine: Zarr arrays in Icechunk transactions, in object storage or in a local folder."""
