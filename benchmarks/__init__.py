"""Moorage measured beside its floor, its ceiling and its peers, in one run: `make bench`."""
