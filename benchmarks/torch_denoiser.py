"""The denoiser of `talkjax.models.unet` in PyTorch, for comparing speeds.

ResNet blocks, down- and upsampling and the timestep embedding come from diffusers; TalkFormer uses
`scaled_dot_product_attention`. The names of submodules allow `load` to copy a Flax parameter tree,
and `named_like_flax` to convert weights or gradients back.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from talkjax.errors import UserError
from talkjax.models.talkformer import TalkFormerConfig
from talkjax.models.unet import UNetConfig

# Parts of diffusers' names that differ in Flax; None: that are absent there.
_RENAMED = {"time_emb_proj": "time", "conv": None}
_RENAMED |= {"time_embedding.linear_1": "time_in", "time_embedding.linear_2": "time_out"}


# ---- weights ------------------------------------------------------------------------------------


def flax_name(name: str, ndim: int) -> str:
    """Returns the path in Flax's parameter tree of a `Denoiser` parameter with `ndim` axes."""
    *path, leaf = name.split(".")
    if path[:1] == ["time_embedding"]:
        path = [_RENAMED[".".join(path)]]
    path = [renamed for part in path if (renamed := _RENAMED.get(part, part))]
    if leaf == "weight":
        leaf = "scale" if ndim == 1 else "kernel"
    return "/".join([*path, leaf])


def _swapped(kernel: Any) -> Any:
    """Transposes (..., in, out) of Flax to (out, in, ...) of PyTorch."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}
    return np.transpose(kernel, order[kernel.ndim])


def _swapped_back(kernel: Any) -> Any:
    order = {2: (1, 0), 4: (2, 3, 1, 0)}
    return np.transpose(kernel, order[kernel.ndim])


def load(model: nn.Module, params: dict[str, np.ndarray]) -> None:
    """Copies Flax parameters, {"a/b/kernel": array}, into a `Denoiser`.

    Raises:
      UserError: The two do not have the same parameters.
    """
    left = dict(params)
    for name, parameter in model.named_parameters():
        path = flax_name(name, parameter.ndim)
        if path not in left:
            raise UserError(f"the network in PyTorch has {path}, which the one in Flax lacks")
        value = np.asarray(left.pop(path))
        value = _swapped(value) if path.endswith("/kernel") else value
        if tuple(value.shape) != tuple(parameter.shape):
            raise UserError(f"{path} is {value.shape} in Flax, {tuple(parameter.shape)} in PyTorch")
        with torch.no_grad():
            parameter.copy_(torch.tensor(value))
    if left:
        raise UserError(f"the network in PyTorch lacks {sorted(left)}")


def named_like_flax(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, np.ndarray]:
    """Converts (name, tensor) pairs of a `Denoiser` to {Flax path: array in Flax's layout}."""
    out = {}
    for name, tensor in tensors:
        path, value = flax_name(name, tensor.ndim), tensor.detach().float().cpu().numpy()
        out[path] = _swapped_back(value) if path.endswith("/kernel") else value
    return out


# ---- TalkFormer ---------------------------------------------------------------------------------


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns squared distances of points, (B, N, 2), (B, M, 2) -> (B, N, M)."""
    return (a[:, :, None] - b[:, None]).square().sum(-1)


def fourier_features(points: Tensor, bands: int) -> Tensor:
    """Computes `talkjax.models.positions.fourier_features`."""
    frequencies = 2 * torch.pi * 2.0 ** torch.arange(bands, device=points.device)
    phase = (points[..., None] * frequencies).flatten(-2)
    return torch.cat([phase.sin(), phase.cos()], -1)


class Attention(nn.Module):
    """`KernelAttention`, with the distance as an additive mask."""

    def __init__(self, config: TalkFormerConfig):
        super().__init__()
        self.heads = config.heads
        self.log_temperature = None
        if config.positional == "kernel":
            self.log_temperature = nn.Parameter(torch.zeros(config.heads))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, distance: Tensor) -> Tensor:
        """Attends: (B, N, C), (B, M, C), (B, H, M, V), (B, N, M) -> (B, H, N, V)."""

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mask = None
        if self.log_temperature is not None:
            temperature = self.log_temperature.exp().view(1, -1, 1, 1)
            mask = (-temperature * distance[:, None]).to(query.dtype)
        return F.scaled_dot_product_attention(split(query), split(key), value, attn_mask=mask)

    def split_heads(self, value: Tensor) -> Tensor:
        """Splits heads: (B, M, C) -> (B, H, M, C / H)."""
        return value.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MotionAlign(nn.Module):
    """Features attend to landmark tokens."""

    def __init__(self, config: TalkFormerConfig, features: int):
        super().__init__()
        self.bands, self.unit = config.fourier_bands, config.motion_unit
        width, spot = config.landmark_features, 4 * config.fourier_bands
        self.index = nn.Parameter(torch.zeros(config.landmarks, width))
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.embed = nn.Linear(spot, width)
        self.query = nn.Linear(features + spot, features)
        self.key = nn.Linear(width, features)
        self.value = nn.Linear(width, features)
        self.attention = Attention(config)
        self.out = nn.Linear(features + 2 * config.heads, features)
        self.null = nn.Parameter(torch.zeros(features))

    def forward(
        self, x: Tensor, landmarks: Tensor, points: Tensor, distance: Tensor, keep: Tensor | None
    ) -> Tensor:
        """(B, N, C) features, (B, K, 2), (N, 2), (B, N, K), (B,) -> the residual (B, N, C)."""
        tokens = self.index + self.embed(fourier_features(landmarks, self.bands))
        spots = fourier_features(points, self.bands).expand(x.shape[0], -1, -1)
        query = self.query(torch.cat([self.norm(x), spots.to(x.dtype)], -1))
        value = self.attention.split_heads(self.value(tokens))
        # Values carry the landmarks' coordinates, so one pass gives both means.
        places = landmarks[:, None].expand(-1, value.shape[1], -1, -1).to(value.dtype)
        out = self.attention(query, self.key(tokens), torch.cat([value, places], -1), distance)
        out, places = out.transpose(1, 2).split([value.shape[-1], 2], -1)
        offset = (places - points[:, None]) / self.unit
        out = self.out(torch.cat([out.flatten(2), offset.flatten(2).to(out.dtype)], -1))
        return out if keep is None else torch.where(keep[:, None, None], out, self.null.to(out))


class ReferenceAlign(nn.Module):
    """Aligned features attend to aligned reference features."""

    def __init__(self, config: TalkFormerConfig, features: int):
        super().__init__()
        self.reference_motion = MotionAlign(config, features)
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.reference_norm = nn.LayerNorm(features, eps=1e-6)
        self.query = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)
        self.attention = Attention(config)
        self.out = nn.Linear(features, features)
        self.null = nn.Parameter(torch.zeros(features))

    def context(
        self, reference: Tensor, landmarks: Tensor, points: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns keys and values of reference features (B, N, C); `own` is (B, N, K) distances."""
        moved = self.reference_motion(reference, landmarks, points, own, None)
        return self.key(self.reference_norm(reference + moved)), self.value(reference)

    def forward(
        self, x: Tensor, context: tuple[Tensor, Tensor], distance: Tensor, keep: Tensor
    ) -> Tensor:
        """(B, N, C) features and (B, N, N) distances -> the residual (B, N, C)."""
        key, value = context
        value = self.attention.split_heads(value)
        out = self.attention(self.query(self.norm(x)), key, value, distance)
        out = self.out(out.transpose(1, 2).flatten(2))
        return torch.where(keep[:, None, None], out, self.null.to(out))


class TalkFormer(nn.Module):
    """One block: motion alignment, reference alignment, feed-forward."""

    def __init__(self, config: TalkFormerConfig, features: int):
        super().__init__()
        self.motion = MotionAlign(config, features)
        self.reference = ReferenceAlign(config, features)
        self.ff_norm = nn.LayerNorm(features, eps=1e-6)
        self.ff_in = nn.Linear(features, config.ff_factor * features)
        self.ff_out = nn.Linear(config.ff_factor * features, features)


# ---- the U-Net ----------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """`talkjax.models.unet.UNet` without its ablations; images are (B, c, h, w)."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        if not (config.talkformer.motion_align and config.talkformer.reference_align):
            raise UserError("PyTorch's network needs motion_align=True and reference_align=True")
        self.config = config
        widths, time = config.channels, 4 * config.channels[0]

        def resnet(name: str, before: int, after: int, temb: int | None = time) -> None:
            norm = "scale_shift" if temb else "default"
            block = ResnetBlock2D(
                in_channels=before, out_channels=after, temb_channels=temb, groups=config.groups,
                eps=1e-6, time_embedding_norm=norm,
            )  # fmt: skip
            self.add_module(name, block)

        self.sinusoids = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time)
        self.conv_in = nn.Conv2d(2 * config.latent_channels + 1, widths[0], 3, padding=1)
        encoder = self.reference_encoder = nn.Module()
        encoder.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        for level, width in enumerate(widths):
            finer = widths[max(level - 1, 0)]
            if level:
                encoder.add_module(f"down_{level}", _downsample(finer, width))
                self.add_module(f"downsample_{level - 1}", _downsample(finer, width))
                up = Upsample2D(width, use_conv=True, out_channels=finer)
                self.add_module(f"upsample_{level - 1}", up)
            encoder.add_module(f"block_{level}_0", _plain_resnet(width, config.groups))
            for block in range(config.blocks):
                resnet(f"down_blocks_{level}_{block}", width, width)
                resnet(f"up_blocks_{level}_{block}", 2 * width, width)
            if config.attends(level):
                self.add_module(f"talk_down_{level}", TalkFormer(config.talkformer, width))
                self.add_module(f"talk_up_{level}", TalkFormer(config.talkformer, width))
        self.talk_middle = TalkFormer(config.talkformer, widths[-1])
        for block in range(2):
            resnet(f"middle_{block}", widths[-1], widths[-1])
        self.norm_out = nn.GroupNorm(config.groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], config.latent_channels, 3, padding=1)

    def _grid(self, height: int, width: int, device: Any) -> Tensor:
        y0, x0, y1, x1 = self.config.talkformer.region
        y = y0 + (torch.arange(height, device=device) + 0.5) * ((y1 - y0) / height)
        x = x0 + (torch.arange(width, device=device) + 0.5) * ((x1 - x0) / width)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)

    def _geometry(
        self, size: tuple[int, int], landmarks: Tensor, reference: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Computes `talkjax.models.talkformer.geometry`."""
        grid = self._grid(*size, landmarks.device)
        points = grid.expand(landmarks.shape[0], -1, -1)
        distance = squared_distance(points, landmarks)
        weights = (distance / (-2 * self.config.talkformer.sigma**2)).softmax(-1)
        matched = points + weights @ (reference - landmarks)
        matched = torch.where(keep[:, None, None], matched, points)
        return grid, distance, squared_distance(matched, points)

    def reference_features(self, latent: Tensor) -> list[Tensor]:
        """Returns one feature map per level for (B, c, h, w)."""
        encoder, features = self.reference_encoder, []
        x = encoder.conv_in(latent)
        for level in range(len(self.config.channels)):
            if level:
                x = encoder.get_submodule(f"down_{level}")(x)
            x = encoder.get_submodule(f"block_{level}_0")(x, None)
            features.append(x)
        return features

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        masked: Tensor,
        mask: Tensor,
        landmarks: Tensor,
        reference_latent: Tensor,
        reference_landmarks: Tensor,
        keep_landmarks: Tensor,
        keep_reference: Tensor,
    ) -> Tensor:
        """Computes `UNet.__call__` with F frames per reference.

        Latents and landmarks of references and the two flags have batch size B, the others B * F.
        """
        frames = noisy.shape[0] // reference_latent.shape[0]

        def per_frame(x: Tensor) -> Tensor:
            return x.repeat_interleave(frames, 0)

        keep_landmarks, keep_reference = per_frame(keep_landmarks), per_frame(keep_reference)
        features = self.reference_features(reference_latent)
        faces = per_frame(reference_landmarks)
        geometries = [
            self._geometry(f.shape[2:], landmarks, faces, keep_landmarks) for f in features
        ]

        def talk(name: str, x: Tensor, level: int) -> Tensor:
            if not hasattr(self, f"talk_{name}"):
                return x
            block, shape = self.get_submodule(f"talk_{name}"), x.shape
            points, distance, to_reference = geometries[level]
            own = squared_distance(points[None], reference_landmarks)
            tokens = features[level].flatten(2).transpose(1, 2)
            context = block.reference.context(tokens, reference_landmarks, points, own)
            x = x.flatten(2).transpose(1, 2)
            x = x + block.motion(x, landmarks, points, distance, keep_landmarks)
            context = tuple(map(per_frame, context))
            x = x + block.reference(x, context, to_reference, keep_reference)
            x = x + block.ff_out(F.gelu(block.ff_in(block.ff_norm(x)), approximate="tanh"))
            return x.transpose(1, 2).reshape(shape)

        def resnet(name: str, x: Tensor) -> Tensor:
            return self.get_submodule(name)(x, time)

        levels, blocks = len(self.config.channels), range(self.config.blocks)
        time = self.time_embedding(self.sinusoids(timestep).to(noisy.dtype))
        hidden = mask.expand(noisy.shape[0], 1, -1, -1)
        x = self.conv_in(torch.cat([noisy, masked, hidden], 1))
        skips = []
        for level in range(levels):
            if level:
                x = self.get_submodule(f"downsample_{level - 1}")(x)
            for block in blocks:
                x = resnet(f"down_blocks_{level}_{block}", x)
                skips.append(x)
            x = talk(f"down_{level}", x, level)
            if self.config.skip_after_attention:
                skips[-1] = x
        x = talk("middle", resnet("middle_0", x), levels - 1)
        x = resnet("middle_1", x)
        for level in reversed(range(levels)):
            for block in blocks:
                x = resnet(f"up_blocks_{level}_{block}", torch.cat([x, skips.pop()], 1))
            x = talk(f"up_{level}", x, level)
            if level:
                x = self.get_submodule(f"upsample_{level - 1}")(x)
        x = F.silu(self.norm_out(x))
        with torch.autocast(x.device.type, enabled=False):  # float32, as in Flax
            return self.conv_out(x.float())


def _downsample(before: int, after: int) -> nn.Module:
    # padding=0 pads below and to the right, as Flax does at stride 2.
    return Downsample2D(before, use_conv=True, out_channels=after, padding=0, name="op")


def _plain_resnet(width: int, groups: int) -> nn.Module:
    return ResnetBlock2D(
        in_channels=width, out_channels=width, temb_channels=None, groups=groups, eps=1e-6
    )
