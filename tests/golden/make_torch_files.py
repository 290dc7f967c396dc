# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy", "safetensors"]
# ///
"""Writes PyTorch files in both formats, what is in them, and a small Inception-v3.

    uv run tests/golden/make_torch_files.py

It runs in its own environment, on a CPU, in seconds. Inception-v3 is the network of pytorch-fid
(src/pytorch_fid/inception.py: average pooling without the padding, a maximum in the last block)
with a sixteenth of its widths and random weights, rounded to float16.
"""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
DIVISOR = 16


def save(value, name: str) -> None:
    for suffix, zipped in (("zip", True), ("legacy", False)):
        path = HERE / f"{name}_{suffix}.pth"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)


# ---- types, views, nesting ----------------------------------------------------------------------


def tensors() -> None:
    base = torch.arange(24, dtype=torch.float32) / 7
    half = torch.tensor([[1.5, -2.0, 65504.0]], dtype=torch.float16)
    kinds = {
        "float64": torch.tensor([1 / 3, -1e300], dtype=torch.float64),
        "float16": half,
        "bfloat16": torch.tensor([1.5, -3e38, 0.0078125], dtype=torch.bfloat16),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "int16": torch.tensor([-32768, 32767], dtype=torch.int16),
        "int32": torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        "int64": torch.tensor([-(2**63), 2**63 - 1], dtype=torch.int64),
        "bool": torch.tensor([True, False, True]),
    }
    views = {
        "whole": base.view(2, 3, 4),
        "transposed": base.view(4, 6).t(),
        "part": base[5:17].view(3, 4)[:, 1:3],
        "every_other": base[1::2],
        "half_row": half[0],
        "scalar": base[3],
        "empty": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.tensor([[1.0, 2.0]])),
    }
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    save({"state_dict": {**kinds, **views}, "epoch": 3, "rate": 0.1, "note": "täglich"}, "tensors")
    save({"net": state, "list": [base[:2], (base[2:4], None)], 7: base[4:5]}, "nested")
    stored = {k: v.detach().float() if k == "bfloat16" else v.detach() for k, v in kinds.items()}
    stored |= {k: v.detach() for k, v in views.items()}
    np.savez_compressed(HERE / "tensors.npz", **{k: v.numpy() for k, v in stored.items()})
    nested = {f"net.{k}": v.numpy() for k, v in state.items()}
    nested |= {"list.0": base[:2].numpy(), "list.1.0": base[2:4].numpy(), "7": base[4:5].numpy()}
    np.savez_compressed(HERE / "nested.npz", **nested)
    torch.save(nn.Sequential(nn.Linear(1, 1)), HERE / "module_zip.pth")


# ---- Inception-v3 -------------------------------------------------------------------------------


class Conv(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernel, stride: int = 1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Named convolutions, put together by `forward` of the subclasses."""

    def __init__(self, **convs: Conv):
        super().__init__()
        for name, module in convs.items():
            self.add_module(name, module)

    def through(self, x, *names: str):
        for name in names:
            x = getattr(self, name)(x)
        return x


def average(x):
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def w(channels: int) -> int:
    return channels // DIVISOR


class A(Block):
    def __init__(self, n: int, pool: int):
        super().__init__(
            branch1x1=Conv(n, w(64), 1),
            branch5x5_1=Conv(n, w(48), 1),
            branch5x5_2=Conv(w(48), w(64), 5, padding=2),
            branch3x3dbl_1=Conv(n, w(64), 1),
            branch3x3dbl_2=Conv(w(64), w(96), 3, padding=1),
            branch3x3dbl_3=Conv(w(96), w(96), 3, padding=1),
            branch_pool=Conv(n, w(pool), 1),
        )

    def forward(self, x):
        parts = [
            self.branch1x1(x),
            self.through(x, "branch5x5_1", "branch5x5_2"),
            self.through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            self.branch_pool(average(x)),
        ]
        return torch.cat(parts, 1)


class B(Block):
    def __init__(self, n: int):
        super().__init__(
            branch3x3=Conv(n, w(384), 3, stride=2),
            branch3x3dbl_1=Conv(n, w(64), 1),
            branch3x3dbl_2=Conv(w(64), w(96), 3, padding=1),
            branch3x3dbl_3=Conv(w(96), w(96), 3, stride=2),
        )

    def forward(self, x):
        doubled = self.through(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self.branch3x3(x), doubled, F.max_pool2d(x, 3, stride=2)], 1)


class C(Block):
    def __init__(self, n: int, inner: int):
        c, row, column = w(inner), ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        super().__init__(
            branch1x1=Conv(n, w(192), 1),
            branch7x7_1=Conv(n, c, 1),
            branch7x7_2=Conv(c, c, *row),
            branch7x7_3=Conv(c, w(192), *column),
            branch7x7dbl_1=Conv(n, c, 1),
            branch7x7dbl_2=Conv(c, c, *column),
            branch7x7dbl_3=Conv(c, c, *row),
            branch7x7dbl_4=Conv(c, c, *column),
            branch7x7dbl_5=Conv(c, w(192), *row),
            branch_pool=Conv(n, w(192), 1),
        )

    def forward(self, x):
        parts = [
            self.branch1x1(x),
            self.through(x, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            self.through(x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            self.branch_pool(average(x)),
        ]
        return torch.cat(parts, 1)


class D(Block):
    def __init__(self, n: int):
        super().__init__(
            branch3x3_1=Conv(n, w(192), 1),
            branch3x3_2=Conv(w(192), w(320), 3, stride=2),
            branch7x7x3_1=Conv(n, w(192), 1),
            branch7x7x3_2=Conv(w(192), w(192), (1, 7), padding=(0, 3)),
            branch7x7x3_3=Conv(w(192), w(192), (7, 1), padding=(3, 0)),
            branch7x7x3_4=Conv(w(192), w(192), 3, stride=2),
        )

    def forward(self, x):
        parts = [
            self.through(x, "branch3x3_1", "branch3x3_2"),
            self.through(x, *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4))),
            F.max_pool2d(x, 3, stride=2),
        ]
        return torch.cat(parts, 1)


class E(Block):
    def __init__(self, n: int, maximum: bool):
        row, column = {"padding": (0, 1)}, {"padding": (1, 0)}
        super().__init__(
            branch1x1=Conv(n, w(320), 1),
            branch3x3_1=Conv(n, w(384), 1),
            branch3x3_2a=Conv(w(384), w(384), (1, 3), **row),
            branch3x3_2b=Conv(w(384), w(384), (3, 1), **column),
            branch3x3dbl_1=Conv(n, w(448), 1),
            branch3x3dbl_2=Conv(w(448), w(384), 3, padding=1),
            branch3x3dbl_3a=Conv(w(384), w(384), (1, 3), **row),
            branch3x3dbl_3b=Conv(w(384), w(384), (3, 1), **column),
            branch_pool=Conv(n, w(192), 1),
        )
        self.maximum = maximum

    def forward(self, x):
        single = self.branch3x3_1(x)
        double = self.through(x, "branch3x3dbl_1", "branch3x3dbl_2")
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else average(x)
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, w(32), 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(w(32), w(32), 3)
        self.Conv2d_2b_3x3 = Conv(w(32), w(64), 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(w(64), w(80), 1)
        self.Conv2d_4a_3x3 = Conv(w(80), w(192), 3)
        self.Mixed_5b, self.Mixed_5c = A(w(192), 32), A(w(256), 64)
        self.Mixed_5d, self.Mixed_6a = A(w(288), 64), B(w(288))
        self.Mixed_6b, self.Mixed_6c = C(w(768), 128), C(w(768), 160)
        self.Mixed_6d, self.Mixed_6e = C(w(768), 160), C(w(768), 192)
        self.Mixed_7a = D(w(768))
        self.Mixed_7b, self.Mixed_7c = E(w(1280), False), E(w(2048), True)
        self.fc = nn.Linear(w(2048), 10)

    def forward(self, images):  # [0, 1]
        x = F.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean((2, 3))


def inception() -> None:
    model = Inception()
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (2, 6, 5, 3), np.uint8)
    images = {
        "small": coarse.repeat(8, 1).repeat(8, 2),  # 48 x 40: enlarged
        "large": coarse.repeat(64, 1).repeat(64, 2),  # 384 x 320: reduced
    }
    as_input = {k: torch.tensor(v).permute(0, 3, 1, 2).float() / 255 for k, v in images.items()}
    with torch.no_grad():
        for p in model.parameters():  # widths that keep the signal's size through all layers
            p.normal_(0, (2 / p[0].numel()) ** 0.5) if p.ndim > 1 else None
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(as_input["small"])  # sets the running statistics
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                if name.endswith(("bn.weight", "bn.bias")):
                    value.add_(0.2 * torch.randn_like(value))
                value.copy_(value.half().float())
        model.eval()
        # Like the published file, which is older than batch counts.
        state = {k: v for k, v in model.state_dict().items() if not k.endswith("tracked")}
        halves = {k: v.half() for k, v in state.items()}
        safetensors.torch.save_file(halves, HERE / "inception.safetensors")
        features = {f"{k}_features": model(v).numpy() for k, v in as_input.items()}
    np.savez_compressed(HERE / "inception.npz", coarse=coarse, **features)


def main() -> None:
    torch.manual_seed(0)
    tensors()
    inception()
    for path in sorted(HERE.glob("*.pth")):
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
