"""Compiling programs for a named TPU slice on a machine that has no TPU (extra `tpu`)."""
