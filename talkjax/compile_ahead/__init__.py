"""Compiling a config's step for a named TPU slice on a machine that has none (extra `tpu`)."""
