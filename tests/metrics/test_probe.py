"""Whether a condition that is switched off is truly off, and a warp that is known is found."""

import jax
import numpy as np
import pytest

from talkjax import networks
from talkjax.metrics import probe
from tests.sampling import fakes
from tests.training.small_stages import batch

TALK = "denoiser.talkformer"


def probed(seed=3, **changes):
    config = fakes.tiny_config(**changes)
    nets = networks.make_networks(config)
    params = fakes.random_params(config, seed)
    return nets, params


def batches(nets):
    made = batch(5, b=4, f=1)
    rng = np.random.default_rng(7)
    for name in ("target_latent", "masked_latent"):
        made[name] = rng.normal(size=(4, 1, *nets.latent_shape)).astype(np.float32)
    made["reference_latent"] = rng.normal(size=(4, 1, *nets.latent_shape)).astype(np.float32)
    return [{name: made[name] for name in probe.BATCH_KEYS}]


def errors(**changes):
    nets, params = probed(**changes)
    return probe.probe_denoiser(nets, params, batches(nets))["x0_l1"]


def test_a_full_network_depends_on_everything():
    found = errors()
    assert list(found) == sorted(probe.CONDITIONS)
    for condition in probe.CONDITIONS[1:]:
        assert abs(found[condition] - found["all"]) > 1e-5, condition


def test_without_reference_alignment_the_reference_is_not_seen():
    found = errors(**{f"{TALK}.reference_align": False})
    for condition in ("no reference", "another person's reference"):
        assert found[condition] == found["all"]
    assert abs(found["no landmarks"] - found["all"]) > 1e-5


def test_without_motion_alignment_landmarks_steer_the_warp_alone():
    off = {f"{TALK}.motion_align": False}
    conditions = "no landmarks", "another frame's landmarks"
    kernel = errors(**off)
    for condition in conditions:
        assert abs(kernel[condition] - kernel["all"]) > 1e-6, condition
    # With dot products there are no correspondences: nothing of the landmarks is left.
    plain = errors(**off, **{f"{TALK}.positional": "dot"})
    for condition in conditions:
        assert plain[condition] == pytest.approx(plain["all"], abs=1e-7), condition


def test_a_warp_that_is_right_is_found_right():
    """Reference and target differ by a shift; sharp kernels alone look for points there."""
    nets, params = probed(crop_size=128)
    made = batches(nets)[0]
    rng = np.random.default_rng(0)
    target = rng.uniform(0.35, 0.65, (4, 131, 2)).astype(np.float32)
    made["frame_landmarks"] = target[:, None]
    made["image_reference_landmarks"] = target[:, None] + np.float32(0.12)

    def sharpen(path, leaf):
        if "reference" in str(path) and path[-1].key == "log_temperature":
            return np.full_like(leaf, 8.0)
        silent = "reference" in str(path) and ("'query'" in str(path) or "'key'" in str(path))
        return np.zeros_like(leaf) if silent else leaf

    right = jax.tree_util.tree_map_with_path(sharpen, params["denoiser"])
    warp = probe.probe_denoiser(nets, {"denoiser": right}, [made])["warp"]["own"]
    for name, block in warp.items():
        assert block["identity"] == pytest.approx(0.12 * np.sqrt(2), rel=1e-3), name
        assert block["kernel"] == pytest.approx(0, abs=1e-5), name
        assert block["error"] < 0.025, name  # a cell is 0.0625 wide
    blunt = probe.probe_denoiser(nets, params, [made])["warp"]["own"]
    for name in warp:
        assert blunt[name]["error"] > 2 * warp[name]["error"]


def test_nothing_to_probe_with():
    nets, params = probed()
    with pytest.raises(ValueError, match="no batch"):
        probe.probe_denoiser(nets, params, [])
