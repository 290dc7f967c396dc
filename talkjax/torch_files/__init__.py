"""PyTorch's checkpoint files (.pth, .pt, .model) read without unpickling anything.

Both formats are read: the zip archive of PyTorch 1.6 and later, and the one before it, a chain of
pickles with the raw storages behind. Their pickles are programs for a stack machine. Here a machine
of our own runs them that knows containers, numbers, strings and a handful of globals, which it
turns into descriptions of tensors; it calls nothing and imports nothing, and whatever it does not
know ends in a `UserError` that names it.

The format is as in torch/serialization.py and torch/_utils.py of PyTorch 2.13.
"""

from talkjax.torch_files.formats import load

__all__ = ["load"]
