import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from configs import sync as sync_config
from talkjax import weights
from talkjax.conventions import MOUTH_REGION
from talkjax.data import sync_samples
from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.metrics import sync
from talkjax.models import sync_expert
from talkjax.training import stages, sync_stage

GOLDEN = Path(__file__).parents[1] / "golden" / "sync_expert.safetensors"
BUNDLED = Path(sync.__file__).parents[1] / "assets" / "sync_demo"


def planted(shift, windows=60, features=6, seed=0):
    """Lips that are the sound, `shift` ticks late."""
    sound = np.random.default_rng(seed).normal(size=(windows + 60, features))
    return sound[30 - shift : 30 - shift + windows], sound[30 : 30 + windows]


# ---- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-15, -3, 0, 1, 2, 14])
def test_a_late_picture_has_a_positive_offset_of_40_ms_a_tick(shift):
    scores = sync.score_sync(*planted(shift))
    assert scores.av_offset_ms == 40 * shift
    assert scores.lse_d == 0 and scores.curve.argmin() == 15 - shift
    others = np.delete(scores.curve, 15 - shift)
    assert len(scores.curve) == 31 and others.min() > 2
    np.testing.assert_allclose(scores.lse_c, np.median(scores.curve))


def test_two_ticks_move_the_offset_by_80_ms():
    rng = np.random.default_rng(1)
    lips, sound = planted(1)
    lips = lips + 0.3 * rng.normal(size=lips.shape)
    later = sync.score_sync(lips, sound[2:]).av_offset_ms  # the sound comes 80 ms earlier
    assert later - sync.score_sync(lips, sound).av_offset_ms == 80


def test_distances_are_those_of_the_loss():
    lips, sound = (x[None].astype(np.float32) for x in planted(0, 20))
    matrix = np.asarray(sync_expert.distances(lips, sound))[0]
    curve = sync.score_sync(lips[0], sound[0], max_lag=4).curve
    for place, lag in enumerate(range(-4, 5)):
        np.testing.assert_allclose(
            curve[place], np.diagonal(matrix, lag).mean(), rtol=1e-4, atol=2e-6
        )


def test_rows_that_are_not_seen_do_not_count():
    lips, sound = planted(2, 80)
    wrong, seen = lips.copy(), np.ones(80, bool)
    wrong[10:14], wrong[40:50] = np.nan, 100.0
    seen[40:50] = False
    scores = sync.score_sync(wrong, sound, seen)
    assert scores.av_offset_ms == 80 and scores.lse_d == 0
    assert np.isnan(sync.score_sync(wrong, sound, np.zeros(80, bool)).lse_d)
    frames = np.ones(12, bool)
    frames[5] = False
    assert sync.find_visible_windows(frames).tolist() == [True] + [False] * 5 + [True] * 2
    assert len(sync.find_visible_windows(frames[:3])) == 0


def test_what_is_too_short_has_no_score():
    for windows in (0, 1, 19):
        scores = sync.score_sync(*planted(0, windows))
        assert all(np.isnan(x) for x in scores[:3])
    assert np.isfinite(sync.score_sync(*planted(0, 20)).lse_c)
    assert np.isfinite(sync.score_sync(*planted(0, 8), max_lag=3).lse_c)


def test_of_equal_lags_the_smallest_is_taken():
    scores = sync.score_sync(np.ones((50, 3)), np.ones((50, 3)))
    assert scores.av_offset_ms == 0 and scores.lse_c == 0


# ---- experts ------------------------------------------------------------------------------------


def tiny_config():
    c = sync_config.get_config()
    c.sync.width, c.sync.embedding, c.sync.image = 0.125, 16, (51, 51)
    return c


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    c = tiny_config()
    batch = {
        "lips": np.zeros((1, 6, 80, 112, 3), np.uint8),
        "mel": np.zeros((1, 24, 80), np.float32),
        "shape": np.zeros((1, 2, 80), np.float32),
    }
    rng = np.random.default_rng(0)

    def values(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key == "scale", np.float32)

    shapes = jax.eval_shape(stages.make_stage(c).init, jax.random.key(0), batch)
    params = jax.tree_util.tree_map_with_path(values, shapes)  # compiling `init` takes longer
    directory = tmp_path_factory.mktemp("experts") / "tiny"
    weights.save_params(directory, params, c.to_dict())
    return directory


@pytest.fixture(scope="module")
def expert(exported):
    return sync.SyncScorer.load(exported)


def wave(seconds=3.0, seed=0):
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 0.3, round(seconds * 10)), 1600)
    return (loud * rng.normal(size=len(loud))).clip(-1, 1).astype(np.float32)


def test_the_metric_sees_and_hears_what_training_does(expert, exported):
    params, config = weights.load_params(exported)
    params = {k: v for k, v in params["sync"].items() if k not in ("log_scale", "heads")}
    model = sync_expert.from_config(config)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (45, 128, 128, 3), np.uint8)
    lips, sound = expert.embed_video(crops), expert.embed_audio(wave())
    assert lips.shape == (41, 16) and sound.shape == (75 - 4, 16)
    np.testing.assert_allclose(np.linalg.norm(lips, axis=1), 1, rtol=1e-5)

    mel = audio.log_mel(wave())
    apply = jax.jit(model.apply)
    for start in (0, 31, 40):
        pictures = MOUTH_REGION.cut(crops[start : start + 5])[None]
        span = sync_samples.sync_span(mel, start, 1, 0)[None]
        images = sync_expert.network_images(jnp.asarray(pictures), (51, 51))
        inputs = sync_stage.audio_inputs(jnp.asarray(span))
        one, other = apply({"params": params}, images, inputs)
        np.testing.assert_allclose(lips[start], one[0, 0], atol=2e-4)
        np.testing.assert_allclose(sound[start], other[0, 0], atol=2e-4)


def test_a_tick_of_sound_is_a_row(expert):
    first, second = expert.embed_audio(wave()), expert.embed_audio(wave()[640:])
    # The level of the speech is measured from other blocks.
    np.testing.assert_allclose(second[3:60], first[4:61], atol=0.02)
    assert np.abs(np.diff(first, axis=0)).max() > 0.02


def test_crops_of_another_size_are_brought_to_the_experts(expert):
    rng = np.random.default_rng(0)
    crops = np.repeat(rng.integers(0, 256, (6, 32, 32, 3), np.uint8), 8, 1).repeat(8, 2)  # 256 px
    small = crops[:, ::2, ::2]  # 128 px
    np.testing.assert_allclose(expert.embed_video(crops), expert.embed_video(small), atol=0.02)
    assert expert.embed_video(crops[:, ::8, ::8]).shape == (2, 16)


def test_short_and_wrong_inputs(expert):
    assert expert.embed_video(np.zeros((4, 128, 128, 3), np.uint8)).shape == (0, 16)
    assert expert.embed_audio(np.zeros(100, np.float32)).shape == (0, 16)
    with pytest.raises(ValueError, match="uint8"):
        expert.embed_video(np.zeros((9, 128, 128, 3), np.float32))
    with pytest.raises(ValueError, match="finite"):
        expert.embed_audio(np.full(16000, np.nan, np.float32))


def test_a_file_of_the_published_layout(tmp_path):
    """Small widths, but 224 px: BGR in 0 to 255, MFCCs, rows of 40 ms."""
    tensors = safetensors.numpy.load_file(GOLDEN)
    kernel = tensors["netcnnlip.18.weight"]
    rng = np.random.default_rng(0)
    tensors["netcnnlip.18.weight"] = rng.normal(0, 0.05, (*kernel.shape[:3], 6, 6)).astype("f4")
    path = tmp_path / "syncnet.safetensors"
    safetensors.numpy.save_file(tensors, path)
    expert = sync.SyncScorer.load(path)
    assert expert.name == f"SyncNet v2 (file {expert.sha256[:8]})" and expert.crop_size == 224
    crops = rng.integers(0, 256, (6, 224, 224, 3), np.uint8)
    model, params = sync.sync_weights.load_syncnet(path)
    images = crops[None, ..., ::-1].astype(np.float32)
    wanted = jax.jit(lambda x: model.apply({"params": params}, x, None)[0])(images)[0]
    np.testing.assert_allclose(expert.embed_video(crops), wanted, rtol=1e-3, atol=1e-3)
    first, second = expert.embed_audio(wave()), expert.embed_audio(wave()[640:])
    assert first.shape == ((299 - 20) // 4 + 1, 24)
    np.testing.assert_allclose(second[1:], first[2:], atol=1e-3)
    with pytest.raises(UserError, match="SHA-256"):
        sync.SyncScorer.load(f"{path}@{'0' * 64}")


def test_other_files_and_folders_are_refused(tmp_path, exported):
    with pytest.raises(UserError, match="not found"):
        sync.SyncScorer.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"wrong shape netcnnlip\.18\.weight"):
        sync.SyncScorer.load(GOLDEN)
    with pytest.raises(UserError, match=r"neither checkpoints/ nor model\.safetensors"):
        sync.SyncScorer.load(tmp_path)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(UserError, match="not a safetensors file"):
        sync.SyncScorer.load(tmp_path / "text")

    params, config = weights.load_params(exported)
    for change, message in (
        ({"stage": "landmark"}, "not a sync expert"),
        ({"sync": {}}, "not that of stage sync"),
        ({"sync": {**config["sync"], "width": "wide"}}, "not that of stage sync"),
        ({"sync": {**config["sync"], "embedding": 8}}, "wrong shape"),
        ({"region": [0, 1]}, "not that of stage sync"),
    ):
        weights.save_params(tmp_path / "changed", params, config | change)
        with pytest.raises(UserError, match=message):
            sync.SyncScorer.load(tmp_path / "changed")


def test_the_bundled_expert():
    expert = sync.SyncScorer.load(BUNDLED)
    assert expert.name == "talkjax sync_demo" and expert.crop_size == 128
    assert sum(p.stat().st_size for p in BUNDLED.iterdir()) < 6 << 20
    assert expert.embed_audio(wave()).shape == (71, json.loads(_config())["sync"]["embedding"])


def _config():
    return (BUNDLED / "config.json").read_text()
