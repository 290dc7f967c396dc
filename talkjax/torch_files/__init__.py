"""PyTorch's checkpoint files (.pth, .pt, .model), read by PyTorch in a process of its own.

Such files are pickles, which can run code. `script.py` reads them with
`torch.load(weights_only=True)`, which refuses everything but tensors and plain containers, and
hands the tensors over as safetensors. Nothing is unpickled in this process, and talkjax does not
depend on PyTorch.
"""

from talkjax.torch_files.reader import load

__all__ = ["load"]
