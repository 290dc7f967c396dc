"""Training data: clip records in ArrayRecord shards, cached latents, and the batches made of them.

`describe` reports what shards and latents hold; `loader` makes batches.
"""

from talkjax.data.description import describe

__all__ = ["describe"]
