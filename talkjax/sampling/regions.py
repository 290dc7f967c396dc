"""From masked regions and landmarks to finished regions: the JAX part of sampling.

All functions are pure functions of arrays. `encode_reference` encodes a clip's reference once.
`generate_regions` generates one batch of frames and is meant to be jitted: it encodes the masked
regions, computes the motion contexts, runs the step loop (one `lax.scan`) and decodes the result.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from talkjax.conventions import MEL_WINDOW, NUM_LANDMARKS, NUM_MELS, NUM_POSE, to_float
from talkjax.diffusion import guidance, samplers
from talkjax.models.landmark_completion import References
from talkjax.models.unet import Conditions
from talkjax.networks import Networks

Params = dict[str, Any]


@flax.struct.dataclass
class Reference:
    """A clip's encoded references, which all frames and steps share.

    Attributes:
      landmarks: (1, 131, 2) of the first reference, crop coordinates.
      context: What every block needs of the references (`UNet.reference_context`).
    """

    landmarks: jax.Array
    context: Any


def encode_reference(
    params: Params, networks: Networks, images: jax.Array, landmarks: jax.Array
) -> Reference:
    """Encodes the reference images that the denoiser attends to.

    Args:
      params: Parameters with the subtrees "autoencoder" and "denoiser".
      networks: Networks of these parameters.
      images: (R, H, W, 3) uint8 unmasked regions.
      landmarks: (R, 131, 2) landmarks of the images, crop coordinates.
    """
    latents = networks.encode(params["autoencoder"], to_float(images)[None])
    context = networks.denoiser.apply(
        {"params": params["denoiser"]}, latents, landmarks[None], method="reference_context"
    )
    return Reference(landmarks[:1], context)


def generate_regions(
    params: Params,
    networks: Networks,
    shown: jax.Array,
    landmarks: jax.Array,
    reference: Reference,
    key: jax.Array,
    *,
    steps: int = 10,
    landmark_guidance: float = 1.0,
    reference_guidance: float = 1.0,
    eta: float = 0.0,
) -> jax.Array:
    """Generates the masked part of B frames.

    All frames share one noise that is drawn from the key. Give the same key with all batches of a
    clip, so that it does not flicker.

    Args:
      params: Parameters with the subtrees "autoencoder" and "denoiser".
      networks: Networks of these parameters.
      shown: (B, H, W, 3) float32 regions in [-1, 1] as the denoiser is shown them: 0 in the mask
        (`mask_region`), or what `Networks.fill_in` puts there.
      landmarks: (B, 131, 2) each frame's pose and target content, crop coordinates.
      reference: Output of `encode_reference`.
      key: Random key of the clip.
      steps: Number of network evaluations per guidance pass, at least 1.
      landmark_guidance: Scale of classifier-free guidance by the landmarks; 1 is no guidance
        (`talkjax.diffusion.guidance`).
      reference_guidance: Scale of classifier-free guidance by the reference, as above.
      eta: 0 is deterministic DDIM, 1 is as random as DDPM.

    Returns:
      (B, H, W, 3) uint8 regions with a new mouth.

    Raises:
      ValueError: Guidance of a denoiser that was trained on residuals.
    """
    batch = shown.shape[0]
    passes = guidance.passes(landmark_guidance, reference_guidance)
    if networks.residual_scale and passes != [(True, True, 1.0)]:
        raise ValueError("a denoiser of residuals cannot be guided: without reference, no warp")
    noise_key, step_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (1, *networks.latent_shape))
    needed = {keep for keep, _, _ in passes}
    # Where the reference is dropped, nothing of it is shown.
    masked_latents = {
        keep: networks.encode(params["autoencoder"], shown if keep else networks.hide(shown))
        for keep in sorted({keep for _, keep, _ in passes})
    }
    own = jnp.broadcast_to(reference.landmarks, landmarks.shape)
    flags = {keep: jnp.full((batch,), keep) for keep in (False, True)}
    size = networks.latent_shape[:2]
    denoiser = functools.partial(networks.denoiser.apply, {"params": params["denoiser"]})
    motions = {
        keep: denoiser(landmarks, own, flags[keep], size, method="motion_context")
        for keep in sorted(needed)
    }

    def predict(z: jax.Array, t: jax.Array, keep_landmarks: bool, keep_reference: bool):
        conditions = Conditions(
            masked=masked_latents[keep_reference],
            mask=jnp.asarray(networks.mask),
            motion=motions[keep_landmarks],
            reference=reference.context,
            keep_landmarks=flags[keep_landmarks],
            keep_reference=flags[keep_reference],
        )
        return denoiser(z, jnp.full((batch,), t, jnp.int32), conditions, method="denoise")

    state = samplers.ddim(
        networks.schedule,
        guidance.guide(predict, landmark_guidance, reference_guidance),
        jnp.broadcast_to(noise, (batch, *networks.latent_shape)),
        steps=steps,
        key=step_key,
        eta=eta,
        prediction=networks.prediction,
        noise_shape=noise.shape,
    )
    latents = networks.to_latents(state, masked_latents[max(masked_latents)])
    images = networks.decode(params["autoencoder"], latents, shown)
    return jnp.round((images + 1.0) * 127.5).astype(jnp.uint8)


def complete_content(
    params: Params, networks: Networks, mel: jax.Array, pose: jax.Array, references: References
) -> jax.Array:
    """Predicts the content landmarks of one window.

    Args:
      params: Parameters with the subtree "landmark", and "speech" if there is a speech encoder.
      networks: Networks of these parameters.
      mel: (past + T + future, 16, 80) log-mel windows of the ticks.
      pose: (T, 74, 2) pose landmarks, crop coordinates.
      references: Faces of reference frames, without a batch axis.

    Returns:
      (T, 57, 2) float32 crop coordinates.
    """
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[None], (mel, pose, references))
    return networks.complete(params, *inputs)[0]


def context_ticks(networks: Networks) -> tuple[int, int]:
    """Returns how many ticks of sound the landmark network hears before and after a window."""
    config = networks.landmark.config
    return config.past, config.future


def expected_params(networks: Networks) -> Params:
    """Returns the names and shapes of all parameters of sampling, without computing anything."""
    key = jax.random.key(0)
    latent = jnp.zeros((1, *networks.latent_shape))
    points, yes = jnp.zeros((1, NUM_LANDMARKS, 2)), jnp.ones((1,), bool)

    def init() -> Params:
        image = jnp.zeros((1, *networks.image_size, 3))
        mask = jnp.asarray(networks.mask)
        noisy = latent, jnp.zeros((1,)), latent, mask
        heard = 2 + sum(context_ticks(networks))
        speech, pose = jnp.zeros((1, heard, MEL_WINDOW, NUM_MELS)), jnp.zeros((1, 2, NUM_POSE, 2))
        faces = References.example()
        return {
            "autoencoder": networks.autoencoder.init(key, image)["params"],
            "denoiser": networks.denoiser.init(
                key, *noisy, points, latent[None], points[None], yes, yes
            )["params"],
            **networks.init_landmark(key, speech, pose, faces),
        }

    return jax.eval_shape(init)
