"""Sampling: `Sampler` for files, `generate_regions` for arrays."""

from talkjax.sampling.regions import Reference, encode_reference, generate_regions
from talkjax.sampling.sampler import Options, Sampler
from talkjax.sampling.summary import Summary

__all__ = [
    "Options", "Reference", "Sampler", "Summary", "encode_reference", "generate_regions",
]  # fmt: skip
