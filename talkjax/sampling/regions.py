"""From masked regions and landmarks to finished regions: the part of sampling that is JAX.

Pure functions of arrays. A clip's reference is encoded once (`encode_reference`);
`generate_regions` makes one batch of frames and is what gets jitted: encoding, the motion
contexts, the step loop (one `lax.scan`) and decoding.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from talkjax.conventions import MEL_WINDOW, NUM_LANDMARKS, NUM_MELS, NUM_POSE
from talkjax.diffusion import guidance, samplers
from talkjax.models.unet import Conditions
from talkjax.networks import Networks

Params = dict[str, Any]


@flax.struct.dataclass
class Reference:
    """A clip's reference, ready for every frame and step.

    Attributes:
      context: keys and values of every block (`UNet.reference_context`).
      landmarks: (1, 131, 2) crop coordinates.
    """

    context: Any
    landmarks: jax.Array


def encode_reference(
    params: Params, networks: Networks, image: jax.Array, landmarks: jax.Array
) -> Reference:
    """Prepares the reference.

    Args:
      params: with the subtrees "autoencoder" and "denoiser".
      networks: of the same config.
      image: (H, W, 3) uint8, the region, unmasked.
      landmarks: (131, 2) the image's own, crop coordinates.
    """
    latent = networks.encode(params["autoencoder"], image[None])
    landmarks = landmarks[None]
    context = networks.denoiser.apply(
        {"params": params["denoiser"]}, latent, landmarks, method="reference_context"
    )
    return Reference(context, landmarks)


def generate_regions(
    params: Params,
    networks: Networks,
    masked: jax.Array,
    landmarks: jax.Array,
    reference: Reference,
    key: jax.Array,
    *,
    steps: int = 10,
    landmark_guidance: float = 1.0,
    reference_guidance: float = 1.0,
    eta: float = 0.0,
) -> jax.Array:
    """Fills in the masked part of B frames.

    All frames share one noise, drawn from the key, so that a clip whose batches get the same key
    does not flicker.

    Args:
      params: with the subtrees "autoencoder" and "denoiser".
      networks: of the same config.
      masked: (B, H, W, 3) float32 regions in [-1, 1], 0 in the mask (`mask_region`).
      landmarks: (B, 131, 2) the frames' own pose and the wanted content, crop coordinates.
      reference: from `encode_reference`.
      key: the clip's.
      steps: network evaluations per guidance pass.
      landmark_guidance, reference_guidance: scales, 1 for none (`talkjax.diffusion.guidance`).
      eta: 0 is deterministic DDIM, 1 as random as DDPM.

    Returns:
      (B, H, W, 3) uint8.
    """
    batch = masked.shape[0]
    noise_key, step_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (1, *networks.latent_shape))
    masked_latent = networks.encode(params["autoencoder"], masked)
    wanted = {keep for keep, _, _ in guidance.passes(landmark_guidance, reference_guidance)}
    own = jnp.broadcast_to(reference.landmarks, landmarks.shape)
    flags = {keep: jnp.full((batch,), keep) for keep in (False, True)}
    size = networks.latent_shape[:2]
    denoiser = functools.partial(networks.denoiser.apply, {"params": params["denoiser"]})
    motions = {
        keep: denoiser(landmarks, own, flags[keep], size, method="motion_context")
        for keep in sorted(wanted)
    }

    def predict(z: jax.Array, t: jax.Array, keep_landmarks: bool, keep_reference: bool):
        conditions = Conditions(
            masked=masked_latent,
            mask=jnp.asarray(networks.mask),
            motion=motions[keep_landmarks],
            reference=reference.context,
            keep_landmarks=flags[keep_landmarks],
            keep_reference=flags[keep_reference],
        )
        return denoiser(z, jnp.full((batch,), t, jnp.int32), conditions, method="denoise")

    latents = samplers.ddim(
        networks.schedule,
        guidance.guide(predict, landmark_guidance, reference_guidance),
        jnp.broadcast_to(noise, (batch, *networks.latent_shape)),
        steps=steps,
        key=step_key,
        eta=eta,
        prediction=networks.prediction,
        noise_shape=noise.shape,
    )
    images = networks.decode(params["autoencoder"], latents)
    return jnp.round((images + 1.0) * 127.5).astype(jnp.uint8)


def complete_content(
    params: Params, networks: Networks, mel: jax.Array, pose: jax.Array, references: jax.Array
) -> jax.Array:
    """Content landmarks of one window.

    Args:
      params: with the subtree "landmark".
      networks: of the same config.
      mel: (T, 16, 80) log-mel windows of the ticks.
      pose: (T, 74, 2) crop coordinates.
      references: (R, 131, 2) whole faces.

    Returns:
      (T, 57, 2) float32 crop coordinates.
    """
    variables = {"params": params["landmark"]}
    inputs = mel[None], pose[None], references[None]
    return networks.landmark.apply(variables, *inputs)[0]


def expected_params(networks: Networks) -> Params:
    """Names and shapes of everything that sampling needs, without computing anything."""
    key = jax.random.key(0)
    latent = jnp.zeros((1, *networks.latent_shape))
    points, yes = jnp.zeros((1, NUM_LANDMARKS, 2)), jnp.ones((1,), bool)

    def init() -> Params:
        image = jnp.zeros((1, *networks.image_size, 3))
        mask = jnp.asarray(networks.mask)
        noisy = latent, jnp.zeros((1,)), latent, mask
        speech, pose = jnp.zeros((1, 2, MEL_WINDOW, NUM_MELS)), jnp.zeros((1, 2, NUM_POSE, 2))
        return {
            "autoencoder": networks.autoencoder.init(key, image)["params"],
            "denoiser": networks.denoiser.init(key, *noisy, points, latent, points, yes, yes)[
                "params"
            ],
            "landmark": networks.landmark.init(key, speech, pose, points[None])["params"],
        }

    return jax.eval_shape(init)
