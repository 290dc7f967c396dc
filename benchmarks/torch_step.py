"""The train step of stage `diffusion` in PyTorch: loss, AdamW, clipping, moving average.

It computes the same as `talkjax.training`, written in PyTorch's usual way: fused optimizer, foreach
clipping and averaging, autocast for bfloat16.
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.torch_denoiser import Denoiser, load
from talkjax.networks import Networks
from talkjax.training.stages import LIPS

LIP_MARGIN = 0.03  # crop units, as in talkjax.training.losses


class Draws(NamedTuple):
    """The random numbers of a step: (N,) timesteps, (N, c, h, w) noise, (N, 131, 2) jitter."""

    t: Tensor
    noise: Tensor
    jitter: Tensor


class TorchStep:
    """One network with its optimizer and its moving average.

    Attributes:
      model: The denoiser.
      metrics: Tensors "loss", "x0_l1" and "grad_norm" of the latest step.
    """

    def __init__(
        self,
        config: Any,
        nets: Networks,
        params: dict[str, np.ndarray],
        learning_rates: np.ndarray,
        device: str,
        *,
        channels_last: bool,
        compiled: bool,
    ):
        self._config, self._nets, self._device = config, nets, device
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        # No layer depends on the mode, but in training mode diffusers' shortcuts copy to NCHW.
        model = Denoiser(nets.denoiser.config).eval()
        load(model, params)
        self.model = model.to(device).to(memory_format=self._layout)
        self._parameters = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self._parameters]
        settings = config.optimizer
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self._parameters if p.ndim > 1]},
                {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(settings.b1, settings.b2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._learning_rates, self._count = learning_rates, 0
        self._alphas = torch.tensor(np.asarray(nets.schedule.alphas_cumprod), device=device)
        self._mask = torch.tensor(nets.mask, device=device)
        self._loss = torch.compile(self._loss_fn) if compiled else self._loss_fn
        self.metrics: dict[str, Tensor] = {}

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
        """Places a batch on the device, images as (N, c, h, w) in the layout of this step."""
        out = {name: torch.tensor(x, device=self._device) for name, x in batch.items()}
        for name in ("target_latent", "masked_latent", "reference_latent"):
            out[name] = self.to_layout(out[name].flatten(0, -4))  # one reference each
        for name in ("frame_landmarks", "image_reference_landmarks"):
            out[name] = out[name].flatten(0, 1)
        return out

    def to_layout(self, images: Tensor) -> Tensor:
        """(N, h, w, c) -> (N, c, h, w)."""
        return images.permute(0, 3, 1, 2).contiguous(memory_format=self._layout)

    def draw(self, batch: dict[str, Tensor]) -> Draws:
        """Draws new random numbers."""
        x0 = batch["target_latent"]
        return Draws(
            torch.randint(0, len(self._alphas), x0.shape[:1], device=x0.device),
            torch.randn_like(x0),
            torch.randn_like(batch["frame_landmarks"]),
        )

    def gradients(self, batch: dict[str, Tensor], draws: Draws) -> None:
        """Runs forward and backward; the gradients stay in the parameters."""
        self._optimizer.zero_grad(set_to_none=True)
        loss, l1 = self._loss(batch, draws)
        loss.backward()
        self.metrics = {"loss": loss.detach(), "x0_l1": l1}

    def step(self, batch: dict[str, Tensor], draws: Draws | None = None) -> None:
        """Takes one training step."""
        self.gradients(batch, self.draw(batch) if draws is None else draws)
        clip = self._config.optimizer.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, clip, foreach=True)
        self.metrics["grad_norm"] = norm
        if not torch.isfinite(norm):
            return
        rate = float(self._learning_rates[min(self._count, len(self._learning_rates) - 1)])
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        decay = min(self._config.ema_decay, (1 + self._count) / (10 + self._count))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self._parameters, 1 - decay)
        self._count += 1

    def _loss_fn(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, Tensor]:
        config, nets = self._config, self._nets
        x0, alpha = batch["target_latent"], self._alphas[draws.t]
        signal, sigma = (x.sqrt().view(-1, 1, 1, 1) for x in (alpha, 1 - alpha))
        z = signal * x0 + sigma * draws.noise
        half = config.dtype == "bfloat16"
        with torch.autocast(x0.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            output = self.model(
                z,
                draws.t,
                batch["masked_latent"],
                self._mask,
                batch["frame_landmarks"] + config.loss.landmark_jitter * draws.jitter,
                batch["reference_latent"],
                batch["image_reference_landmarks"],
                batch["keep_landmarks"],
                batch["keep_reference"],
            )
        ratio, gamma = alpha / (1 - alpha), config.loss.min_snr_gamma
        if nets.prediction == "v":
            target, estimate = signal * draws.noise - sigma * x0, signal * z - sigma * output
            weights = (ratio + 1).clamp(max=gamma) / (ratio + 1)
        else:
            target, estimate = draws.noise, (z - sigma * output) / signal
            weights = ratio.clamp(max=gamma) / ratio
        mask, margin = self._mask, config.loss.margin_weight
        area = self._mouth_area(batch["frame_landmarks"][:, LIPS], x0.shape[2:])
        area = area * (mask + margin * (1 - mask))
        error = (output - target).square().mean(1) * area
        loss = (error.sum((1, 2)) / area.sum((1, 2)) * weights).mean()
        with torch.no_grad():
            l1 = ((estimate - x0).abs().mean(1) * mask).sum() / (mask.sum() * x0.shape[0])
        return loss, l1

    def _mouth_area(self, lips: Tensor, shape: tuple[int, int]) -> Tensor:
        """Computes `talkjax.training.losses.mouth_area`: (N, K, 2) -> (N, h, w)."""
        low, high = lips.amin(1), lips.amax(1)
        centre, spread = (low + high) / 2, (high - low) / 2 + LIP_MARGIN
        y0, x0, y1, x1 = self._nets.region
        bumps = []
        for axis, (start, end, count) in enumerate(((x0, x1, shape[1]), (y0, y1, shape[0]))):
            place = torch.arange(count, device=lips.device) + 0.5
            place = start + place[None] / count * (end - start)
            distance = (place - centre[:, axis, None]) / spread[:, axis, None]
            bumps.append((-0.5 * distance.square()).exp())
        across, down = bumps
        weight = self._config.loss.mouth_weight
        return 1 + weight * down[:, :, None] * across[:, None, :]
