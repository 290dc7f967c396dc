# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "diffusers==0.42.1", "safetensors", "numpy"]
# ///
"""Writes the reference data of the parity tests with PyTorch and diffusers.

    uv run tests/golden/make_golden.py

It runs in its own environment, on a CPU, in seconds. Weights are random and rounded to float16, the
precision in which such files are published; outputs are computed from the rounded weights in
float32. The script also checks itself: diffusers must read the older attention names as the same
network, and the TAESD defined here must equal that of diffusers where diffusers has one.
"""

import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def randomise(module: nn.Module) -> dict[str, torch.Tensor]:
    """Perturbs every norm and bias and rounds all weights to float16."""
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim == 1:
                p.add_(0.2 * torch.randn_like(p))
            p.copy_(p.half().float())
    module.eval().requires_grad_(False)
    return {name: p.half().contiguous() for name, p in module.state_dict().items()}


def nhwc(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy().transpose(0, 2, 3, 1))


# ---- AutoencoderKL ------------------------------------------------------------------------------


def autoencoder_kl() -> None:
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=4,
    )
    weights = randomise(model)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    posterior = model.encode(images).latent_dist
    save_file(weights, HERE / "autoencoder_kl.safetensors")
    np.savez_compressed(
        HERE / "autoencoder_kl.npz",
        images=nhwc(images),
        mean=nhwc(posterior.mean),
        logvar=nhwc(posterior.logvar),
        decoded=nhwc(model.decode(posterior.mean).sample),
        kl=posterior.kl().numpy(),
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_config(folder)
        renamed = {}
        for name, value in weights.items():
            for new, old in OLD_NAMES.items():
                name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
            renamed[name] = value.float()
        assert renamed.keys() != weights.keys()
        save_file(renamed, Path(folder) / "diffusion_pytorch_model.safetensors")
        again = diffusers.AutoencoderKL.from_pretrained(folder).encode(images).latent_dist
        assert torch.equal(again.mean, posterior.mean)


# ---- TAESD --------------------------------------------------------------------------------------


def conv(n_in: int, n_out: int, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **kwargs)


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    def __init__(self, n: int, pool: bool = False):
        super().__init__()
        self.conv = nn.Sequential(conv(n, n), nn.ReLU(), conv(n, n), nn.ReLU(), conv(n, n))
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(n, 4 * n, 1, bias=False),
                nn.GroupNorm(4, 4 * n),
                nn.ReLU(),
                nn.Conv2d(4 * n, n, 1, bias=False),
            )

    def forward(self, x):
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def taesd_encoder(n: int, latent: int, pool: bool) -> nn.Sequential:
    layers = [conv(3, n), Block(n)]
    for last in (False, False, True):
        layers.append(conv(n, n, stride=2, bias=False))
        layers += [Block(n, pool and last) for _ in range(3)]
    return nn.Sequential(*layers, conv(n, latent))


def taesd_decoder(n: int, latent: int, pool: bool) -> nn.Sequential:
    layers = [Clamp(), conv(latent, n), nn.ReLU()]
    for first in (True, False, False):
        layers += [Block(n, pool and first) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), conv(n, n, bias=False)]
    return nn.Sequential(*layers, Block(n), conv(n, 3))


def taesd(name: str, latent: int, pool: bool, width: int = 8) -> None:
    encoder, decoder = taesd_encoder(width, latent, pool), taesd_decoder(width, latent, pool)
    for part, module in (("encoder", encoder), ("decoder", decoder)):
        save_file(randomise(module), HERE / f"{name}_{part}.safetensors")
    images = torch.rand(2, 3, 16, 24)  # in [0, 1], which TAESD expects
    latents = encoder(images)
    decoded = decoder(4 * latents)  # large enough for the clamp to matter
    np.savez_compressed(
        HERE / f"{name}.npz",
        images=nhwc(images),
        latents=nhwc(latents),
        decoded=nhwc(decoded),
    )
    if pool:
        return
    channels = (width,) * 4
    theirs = diffusers.AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        latent_channels=latent,
    ).eval()
    theirs.encoder.layers.load_state_dict(encoder.state_dict())
    shifted = {}  # diffusers clamps outside of its list of layers
    for key, value in decoder.state_dict().items():
        position, rest = key.split(".", 1)
        shifted[f"{int(position) - 1}.{rest}"] = value
    theirs.decoder.layers.load_state_dict(shifted)
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(images * 2 - 1).latents, latents)
        torch.testing.assert_close(theirs.decode(4 * latents).sample, decoded * 2 - 1)


# ---- schedules and DDIM -------------------------------------------------------------------------

BETAS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def scheduler(**options) -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(clip_sample=False, **options)


def ddim() -> None:
    x0, z, output, noise = (torch.randn(2, 3, 4, 2) for _ in range(4))
    t = torch.tensor([40, 730])
    golden = {"x0": x0, "z": z, "output": output, "noise": noise, "t": t}
    for name, betas in BETAS.items():
        reference = scheduler(**betas)
        golden[f"{name}/alphas_cumprod"] = reference.alphas_cumprod
        golden[f"{name}/noised"] = reference.add_noise(x0, noise, t)
        golden[f"{name}/velocity"] = reference.get_velocity(x0, noise, t)
        golden[f"{name}/snr"] = compute_snr(reference, t)
        for short, long in PREDICTIONS.items():
            for eta in (0, 1):
                reference = scheduler(prediction_type=long, **betas)
                reference.set_timesteps(20)
                for step in (750, 0):
                    options = {"eta": float(eta), "variance_noise": noise}
                    result = reference.step(output, step, z, **options)
                    golden[f"{name}/{short}/eta{eta}/t{step}"] = result.prev_sample
            golden[f"{name}/{short}/x0"] = result.pred_original_sample  # at t = 0
            reference = scheduler(prediction_type=long, timestep_spacing="trailing", **betas)
            reference.set_timesteps(10)
            state = z
            for step in reference.timesteps:
                # This takes the place of a network that depends on both arguments.
                state = reference.step(0.3 * state + step / 1000, step, state).prev_sample
            golden[f"{name}/{short}/trajectory"] = state
    for spacing, offset, steps in (
        ("leading", 0, 10), ("leading", 1, 50), ("leading", 1, 30), ("trailing", 0, 10),
        ("trailing", 0, 30), ("trailing", 0, 1000),
    ):  # fmt: skip
        reference = scheduler(timestep_spacing=spacing, steps_offset=offset)
        reference.set_timesteps(steps)
        golden[f"timesteps/{spacing}/{offset}/{steps}"] = reference.timesteps
    clipped = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=0.7)
    clipped.set_timesteps(20)
    golden["clipped"] = clipped.step(output, 500, z, use_clipped_model_output=True).prev_sample
    arrays = {name: value.numpy() for name, value in golden.items()}
    np.savez_compressed(HERE / "ddim.npz", **arrays)


def main() -> None:
    torch.manual_seed(0)
    autoencoder_kl()
    taesd("taesd", latent=4, pool=False)
    taesd("taesd_pool", latent=6, pool=True)
    ddim()
    for path in sorted({*HERE.glob("*.npz"), *HERE.glob("*.safetensors")}):
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
