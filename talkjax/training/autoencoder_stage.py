"""Stage `autoencoder`: images of the region to latents and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE, to_float
from talkjax.models.autoencoder import kl_divergence, sample_latent
from talkjax.networks import Networks
from talkjax.training import augmentation, losses
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage


def autoencoder_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """L1 on pixels and edges; where latents are distributions, a KL term and a sampled latent."""
    augmentation.check(config)
    kl_weight, mouth_weight = config["autoencoder"]["kl_weight"], config["loss"]["mouth_weight"]
    model, options = nets.autoencoder, config["autoencoder"]

    def init(key: jax.Array, batch: Batch) -> Params:
        return {"autoencoder": model.init(key, to_float(batch["target"]))["params"]}

    def guide(batch: Batch) -> jax.Array:
        return nets.fill_in(
            to_float(batch["target"]),
            batch["frame_landmarks"],
            to_float(batch["reference"]),
            batch["image_reference_landmarks"],
        )

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        changed = augmentation.augment(config["augmentation"], batch, stream(key, "augmentation"))
        return eval_fn(params, changed, key)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        images = to_float(batch["target"])
        variables = {"params": params["autoencoder"]}
        encoded = model.apply(variables, images, method="encode")
        kl = jnp.zeros(())
        if isinstance(encoded, tuple):
            mean, logvar = encoded
            kl = losses.mean(kl_divergence(mean, logvar), batch) / mean[0].size
            encoded = sample_latent(stream(key, "posterior"), mean, logvar)
        inputs = [encoded]
        if options["guided"]:
            shown = jax.random.uniform(stream(key, "guide"), (len(images), 1, 1, 1))
            # Without guides in some of the samples, latents would learn nothing beside the guide.
            inputs.append(jnp.where(shown < options["drop_guide"], 0.0, guide(batch)))
            amount = jax.random.uniform(stream(key, "amount"), shown.shape)
            amount *= options["latent_noise"] * jax.lax.stop_gradient(
                encoded.std((0, 1, 2), keepdims=True)
            )
            inputs[0] += amount * jax.random.normal(stream(key, "noise"), encoded.shape)
        decoded = model.apply(variables, *inputs, method="decode")
        area = losses.mouth_area(
            batch["frame_landmarks"][:, LIPS_SLICE], nets.region, images.shape[1:3], mouth_weight
        )
        mse = losses.mean(jnp.square(jnp.clip(decoded, -1, 1) - images), batch)
        metrics = {"psnr": 10 * jnp.log10(4.0 / (mse + 1e-12)), "kl": kl}
        edges = config["loss"]["edge_weight"]
        loss = losses.mean(losses.reconstruction_loss(images, decoded, area, edges), batch)
        return loss + kl_weight * kl, metrics

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        del key
        images, variables = to_float(batch["target"]), {"params": params["autoencoder"]}
        pictures = {"truth": images, "round trip": model.apply(variables, images)}
        if options["guided"]:
            encoded = model.apply(variables, images, method="encode")
            mean = encoded[0] if isinstance(encoded, tuple) else encoded
            shown = guide(batch)
            guided = model.apply(variables, mean, shown, method="decode")
            pictures |= {"guided": guided, "guide": shown}
        return pictures

    return Stage(init, loss_fn, preview, ("autoencoder",), eval_fn)
