import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.training import image_batches, joint_stage, losses, stages
from tests.parameters import random_for
from tests.training.small_stages import batch, tiny_config, warped


def landmark_gradient(config):
    """Norm of the diffusion loss's gradient in the landmark network."""
    config.joint.landmark_weight = 0.0
    stage = stages.make_stage(config)
    params = random_for(stage.init, batch())

    @jax.jit
    def gradient(part, params, data):
        return jax.grad(
            lambda part: stage.loss_fn({**params, "landmark": part}, data, jax.random.key(0))[0]
        )(part)

    found = gradient(params["landmark"], params, batch())
    return sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(found))


def test_diffusion_loss_reaches_the_landmark_network_only_end_to_end():
    assert landmark_gradient(tiny_config("joint")) > 0
    assert landmark_gradient(tiny_config("joint", **{"joint.end_to_end": False})) == 0


def test_stage_joint_trains_what_it_is_told_to():
    only = {"train_denoiser": ("landmark",), "train_landmark": ("denoiser",)}
    for field, trained in only.items():
        config = tiny_config("joint", **{f"joint.{field}": False})
        assert stages.make_stage(config).trainable == trained
    config.joint.train_denoiser = False
    with pytest.raises(ValueError, match="must not both be False"):
        stages.make_stage(config)


@pytest.mark.parametrize("path", ["teacher", "one_step", "warp"])
def test_a_path_reaches_the_landmarks(path):
    config, data = warped()
    config.stage = "joint"
    config.joint.update({"path": path, "change_weight": 0.5})
    config.loss.lip_weight = 2.0 if path == "one_step" else 0.0
    stage = stages.make_stage(config)
    params, nets = random_for(stage.init, data), stages.networks.make_networks(config)
    loss = functools.partial(joint_stage.PATHS[path], config, nets)

    @jax.jit
    def gradient(params, data, landmarks):
        found = jax.value_and_grad(lambda x: loss(params, data, x, jax.random.key(0)), has_aux=True)
        return found(landmarks)

    (value, metrics), slope = gradient(params, data, data["frame_landmarks"] + 0.02)
    assert value > 0 and jnp.abs(slope).sum() > 0 and np.isfinite(slope).all()
    if path == "teacher":
        assert gradient(params, data, data["frame_landmarks"])[0][0] < 1e-6 * value
    if path == "one_step":
        pictures = metrics["picture_l1"] + 0.5 * metrics["picture_change_l1"]
        np.testing.assert_allclose(value, pictures + 2 * metrics["lips"], rtol=1e-4)


def test_a_path_reaches_the_landmark_network():
    config, data = warped()
    config.stage = "joint"
    config.joint.update({"path": "warp", "landmark_weight": 0.0, "train_denoiser": False})
    stage = stages.make_stage(config)
    assert stage.trainable == ("landmark",)
    params = random_for(stage.init, data)

    @jax.jit
    def gradient(params, data):
        return jax.grad(
            lambda part: stage.loss_fn({**params, "landmark": part}, data, jax.random.key(0))[0]
        )(params["landmark"])

    found = jax.tree.leaves(gradient(params, data))
    assert sum(float(jnp.abs(x).sum()) for x in found) > 0
    assert all(np.isfinite(x).all() for x in found)


def test_the_warp_of_the_target_itself_is_without_error():
    config, data = warped(**{"joint.change_weight": 1.0})
    config.stage = "joint"
    nets = stages.networks.make_networks(config)
    data["target"] = np.repeat(data["target"][:, :1], 2, axis=1)
    data["frame_landmarks"] = np.repeat(data["frame_landmarks"][:, :1], 2, axis=1)
    data["reference"] = data["target"]
    data["image_reference_landmarks"] = data["frame_landmarks"]
    run = jax.jit(lambda d, x: joint_stage.PATHS["warp"](config, nets, {}, d, x, None))
    loss, _ = run(data, data["frame_landmarks"])
    assert loss < 1e-4
    assert run(data, data["frame_landmarks"] + 0.03)[0] > 0.05


def test_unknown_path():
    config = tiny_config("joint", **{"joint.path": "magic"})
    with pytest.raises(ValueError, match="one of diffusion, teacher, one_step, warp"):
        stages.make_stage(config)


@pytest.mark.parametrize("stage_name", ["autoencoder", "landmark", "diffusion", "joint"])
def test_every_stage_has_finite_loss_metrics_and_pictures(stage_name):
    stage = stages.make_stage(tiny_config(stage_name))
    data = batch()
    if stage_name == "autoencoder":
        rng = np.random.default_rng(0)
        target = rng.integers(0, 255, (2, 48, 64, 3), np.uint8)
        data = {"target": target, "frame_landmarks": data["frame_landmarks"][:, 0]}
    params = random_for(stage.init, data)
    assert {prefix.split("/")[0] for prefix in stage.trainable} <= params.keys()
    loss, metrics = jax.jit(stage.loss_fn)(params, data, jax.random.key(0))
    assert np.isfinite(loss) and all(np.isfinite(x) for x in metrics.values())
    for images in jax.jit(stage.preview)(params, data, jax.random.key(0)).values():
        assert images.ndim == 4 and images.shape[0] == 2 and np.isfinite(images).all()


def test_pixels_in_the_batch_give_what_cached_latents_give():
    """Encoding inside of the step is the same as encoding before, mask and normalisation too."""
    config = tiny_config("diffusion", **{"autoencoder.latent_std": (2.0,)})
    rng = np.random.default_rng(0)
    pixels = {k: v for k, v in batch().items() if not k.endswith("latent")}
    pixels["target"] = rng.integers(0, 255, (2, 2, 48, 64, 3), np.uint8)
    pixels["reference"] = rng.integers(0, 255, (2, 1, 48, 64, 3), np.uint8)
    params = random_for(stages.make_stage(config).init, pixels)
    nets = stages.networks.make_networks(config)
    encode = jax.jit(lambda params, images: nets.encode(params["autoencoder"], images))
    target = pixels["target"].astype(np.float32) / 127.5 - 1
    hidden = target.copy()
    hidden[..., 12:44, 8:56, :] = 0.0  # the mask's rectangle in this region
    images = {"target": target, "masked": hidden}
    images["reference"] = pixels["reference"].astype(np.float32) / 127.5 - 1
    whole = jax.jit(lambda p, d: image_batches.encode_images(nets, p, d, d["frame_landmarks"]))
    made = whole(params, pixels)
    for name, image in images.items():
        np.testing.assert_allclose(made[f"{name}_latent"], encode(params, image), atol=1e-4)


def test_the_mouth_counts_more_where_it_is():
    lips = np.array([[[0.4, 0.6], [0.5, 0.7]], [[0.6, 0.8], [0.8, 0.9]]], np.float32)
    area = np.asarray(losses.mouth_area(lips, (0.5, 0.25, 1.0, 1.0), (50, 75), 4.0))
    assert area.shape == (2, 50, 75) and area.min() >= 1 and 4.9 < area.max() <= 5
    for one, (x, y) in zip(area, ((0.45, 0.65), (0.7, 0.85)), strict=True):
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert (
            abs(0.5 + (row + 0.5) / 100 - y) < 0.01 and abs(0.25 + (column + 0.5) / 100 - x) < 0.01
        )
    np.testing.assert_array_equal(losses.mouth_area(lips, (0.5, 0.25, 1, 1), (50, 75), 0.0), 1)


def test_losses_weigh_errors_by_place():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 8, 6, 3)).astype(np.float32)
    area = np.ones((2, 8, 6), np.float32)
    plain = np.abs(images).mean() + 0.5 * sum(
        np.abs(np.diff(images, axis=a)).mean() for a in (1, 2)
    )
    for scale in (1, 3):
        loss = losses.reconstruction_loss(images, np.zeros_like(images), scale * area, 0.5)
        assert loss.shape == (2,)
        np.testing.assert_allclose(loss.mean(), plain, rtol=1e-5)
    # The same error costs more where there is more weight, in either loss.
    wrong, heavy = images.copy(), area.copy()
    wrong[:, 2:4, 2:4] += 0.5
    heavy[:, 2:4, 2:4] = 5
    for loss in (
        lambda a: losses.reconstruction_loss(images, wrong, a, 0.5),
        lambda a: losses.diffusion_loss(images, wrong, a),
    ):
        assert (loss(heavy) > 2 * loss(area)).all()


def test_means_count_samples_by_their_weight():
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_allclose(losses.mean(values, {}), 3.5)
    batch = {"weight": np.array([1, 0], np.float32)}  # two samples of two frames each
    np.testing.assert_allclose(losses.mean(values, batch), 1.5)
    batch = {"weight": np.array([1, 1, 0, 0], np.float32)}
    np.testing.assert_allclose(losses.mean(values, batch), 1.5)


def test_predicted_landmarks_are_read_at_each_frames_own_time():
    ticks = np.broadcast_to(np.arange(5.0, dtype=np.float32)[None, :, None, None], (2, 5, 57, 2))
    whole = joint_stage.landmarks_at_frames(jnp.asarray(ticks), batch())
    assert whole.shape == (2, 2, 131, 2)
    np.testing.assert_allclose(whole[:, :, 74, 0], batch()["frame_tick"], atol=1e-6)
    np.testing.assert_array_equal(whole[:, :, :74], batch()["frame_landmarks"][:, :, :74])


def test_landmark_loss_is_zero_at_the_truth_and_sees_jitter():
    truth = jnp.asarray(batch()["content"])
    assert all(not x.any() for x in losses.landmark_loss(truth, truth))
    shaken = truth + 0.01 * (-1.0) ** jnp.arange(5.0).reshape(1, 5, 1, 1)
    position, velocity, _ = losses.landmark_loss(shaken, truth)
    np.testing.assert_allclose(position, [0.01, 0.01], rtol=1e-4)
    np.testing.assert_allclose(velocity, [0.02, 0.02], rtol=1e-4)


def test_spread_is_the_range_of_motion_whenever_it_happens():
    moving = jnp.zeros((1, 8, 57, 2)).at[0, :, 0, 1].set(jnp.arange(8.0) % 2)
    *_, same = losses.landmark_loss(moving[:, ::-1], moving)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    *_, still = losses.landmark_loss(jnp.zeros_like(moving), moving)
    np.testing.assert_allclose(still, 0.5 / (57 * 2), rtol=0.01)
    gradient = jax.grad(lambda x: losses.landmark_loss(x, moving)[2].sum())(jnp.zeros_like(moving))
    assert np.isfinite(gradient).all()  # that of a root is infinite at 0


def test_unknown_stage():
    with pytest.raises(ValueError, match="landmark"):
        stages.make_stage(tiny_config("gan"))
