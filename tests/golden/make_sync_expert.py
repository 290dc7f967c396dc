# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0", "python_speech_features==0.6", "scipy", "safetensors", "numpy"
# ]
# ///
"""Writes the reference data of the sync expert's parity tests: a small SyncNet.

    uv run tests/golden/make_sync_expert.py

It runs in its own environment, on a CPU, in seconds. The network is that of SyncNetModel.py
(github.com/joonson/syncnet_python) with a sixteenth of its widths, for pictures of 60 x 84 px.
Weights are random. MFCCs are computed by python_speech_features from a synthetic sound.
"""

from pathlib import Path

import numpy as np
import python_speech_features
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
PART = 16
SIZE = (60, 84)
LAST_KERNEL = (1, 2)  # size of the feature map before the last convolution
EMBEDDING = 24


def hidden(*layers: nn.Module) -> list[nn.Module]:
    """Adds a norm and a ReLU after each layer."""
    out = []
    for layer in layers:
        size = layer.out_channels
        norm = nn.BatchNorm3d if isinstance(layer, nn.Conv3d) else nn.BatchNorm2d
        out += [layer, norm(size), nn.ReLU()]
    return out


def dense() -> nn.Sequential:
    size = 512 // PART
    return nn.Sequential(
        nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, EMBEDDING)
    )


class SyncNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e = (n // PART for n in (64, 192, 384, 256, 512))
        self.netcnnaud = nn.Sequential(
            *hidden(nn.Conv2d(1, a, 3, padding=1)),
            nn.MaxPool2d(1, 1),
            *hidden(nn.Conv2d(a, b, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *hidden(
                nn.Conv2d(b, c, 3, padding=1),
                nn.Conv2d(c, d, 3, padding=1),
                nn.Conv2d(d, d, 3, padding=1),
            ),
            nn.MaxPool2d(3, 2),
            *hidden(nn.Conv2d(d, e, (5, 4))),
        )
        f = 96 // PART
        beside = (0, 1, 1)
        self.netcnnlip = nn.Sequential(
            *hidden(nn.Conv3d(3, f, (5, 7, 7), stride=(1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *hidden(nn.Conv3d(f, d, (1, 5, 5), stride=(1, 2, 2), padding=beside)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=beside),
            *hidden(*(nn.Conv3d(d, d, (1, 3, 3), padding=beside) for _ in range(3))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *hidden(nn.Conv3d(d, e, (1, *LAST_KERNEL))),
        )
        self.netfcaud, self.netfclip = dense(), dense()

    def sound(self, x: torch.Tensor) -> torch.Tensor:
        return self.netfcaud(self.netcnnaud(x).flatten(1))

    def lips(self, x: torch.Tensor) -> torch.Tensor:
        return self.netfclip(self.netcnnlip(x).flatten(1))


def randomise(model: nn.Module) -> None:
    """Perturbs norms, biases and stored statistics."""
    with torch.no_grad():
        for name, p in model.state_dict().items():
            if name.endswith("running_var"):
                p.copy_(0.3 + torch.rand_like(p))
            elif p.dtype == torch.float32 and p.ndim == 1:
                p.add_(0.2 * torch.randn_like(p))
    model.eval().requires_grad_(False)


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = SyncNet()
    randomise(model)
    save_file(model.state_dict(), HERE / "sync_expert.safetensors")

    small = torch.nn.functional.interpolate(torch.rand(3, 6, 8, 11) * 255, SIZE, mode="bicubic")
    pictures = small.clamp(0, 255).round()[None]  # (1, 3, 6, H, W)
    windows = torch.randn(4, 1, 13, 20) * 5
    time = np.arange(9000) / 16000
    wave = (3000 * np.sin(2 * np.pi * (200 + 900 * time) * time)).astype(np.int16)
    wave[2000:3500] = 0
    wave[5000:] += rng.integers(-300, 300, 4000).astype(np.int16)
    np.savez_compressed(
        HERE / "sync_expert.npz",
        pictures=pictures[0].permute(1, 2, 3, 0).numpy().astype(np.uint8),
        lips=torch.cat([model.lips(pictures[:, :, i : i + 5]) for i in range(2)]).numpy(),
        windows=windows[:, 0].numpy(),
        sound=model.sound(windows).numpy(),
        wave=wave,
        mfcc=python_speech_features.mfcc(wave, 16000),
    )


if __name__ == "__main__":
    main()
