"""The evaluation protocol: its rows, its metrics, and which row has which metric.

Let V_i and A_i be video and audio of test clip i, p its partner (the clip half of the list away),
M(V, A) the model's video of V speaking A, and open(.) the mouth's opening over time, found by
FaceMesh in a decoded file. *Paired* rows are compared with V_i at the same times, frame by frame
and tick by tick; *unpaired* rows share only the clock of their audio with the clip they are
compared with. The sync expert hears the audio of the last column.

    row            file                                       compared with                audio
    model          M(V_i, A_i)                                V_i, paired                  A_i
    cross_driven   M(V_i, A_p)                                open(V_p), unpaired          A_p
    silence        M(V_i, zeros as long as A_i)               the range of open(V_i)       none
    ground_truth   V_i, decoded and encoded again             V_i, paired                  A_i
    autoencoder    V_i, its mouth through the autoencoder     V_i, paired                  A_i
    copy_mouth     V_i, the reference frame's mouth in all    V_i, paired                  A_i
    copy_template  V_i, decoded and encoded again             open(V_p), unpaired          A_p
    wrong_audio    M(V_i, A_p)                                V_i, paired                  A_i

Given videos of another system (`--generated`) take the place of M(V_i, A_i). Rows that only a model
could make are left out, and `wrong_audio` compares the same videos with open(V_p) and A_p.

In `model` the template is the answer, so copying it would be perfect and mean nothing. Hence two
baselines: `copy_template` keeps the template's own mouth where `cross_driven` asks for another
clip's; `copy_mouth` pastes the mouth of the one frame that the model gets as its reference image,
by the frames' own crop transforms and with the same feathering as generated mouths. That frame does
not count in PSNR, SSIM and LPIPS in any row.

Landmarks are compared in crop coordinates, each file by its own crop transform, so that head
motion does not count. Images are compared in crops cut by the original's transforms (by each
file's own where the frames differ in size): the mouth (`talkjax.conventions.MASK`; for LPIPS and
FID, `MOUTH_REGION`), and the whole crop in metrics whose names end in `_crop`.

Closures are those of the speech that is heard (in `cross_driven`, the partner's). The share in
`ground_truth` shows how many FaceMesh detects, the shares in the `copy_` rows what chance gives.
"""

import dataclasses

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.metrics import closures, signals

PROTOCOL = "1"  # raise it whenever the meaning of a number changes
STRIDE = 5  # LPIPS and FID take every fifth frame
EMBEDDED = 8  # number of faces per video that are embedded for CSIM

ROWS = {
    "model": "the model, each clip driven by its own audio, against that clip",
    "cross_driven": "the model, driven by the partner's audio; the mouth against the partner's",
    "silence": "the model, each clip driven by digital silence as long as its own audio",
    "ground_truth": "the originals, written by the same encoder: what encoding and measuring cost",
    "autoencoder": "the originals' mouths through the autoencoder: the best diffusion can reach",
    "copy_mouth": "no lip motion: the reference frame's mouth pasted into every frame",
    "copy_template": "no lip sync: each clip as it is, its mouth against the partner's",
    "wrong_audio": "the videos of `cross_driven`, against the clip they were made from",
}
GIVEN_ROWS = ROWS | {
    "model": "the given videos, against the clips of equal name",
    "wrong_audio": "the given videos, against the partners of these clips: what chance gives",
}
NEEDS_MODEL = ("cross_driven", "silence", "autoencoder")
NEEDS_PARTNER = ("cross_driven", "copy_template", "wrong_audio")


@dataclasses.dataclass(frozen=True)
class Metric:
    """How to read a number.

    Attributes:
      better: Which value is best: "higher", "lower", "one", "zero" or "truth".
      description: Definition in a few words.
      digits: Number of printed decimals.
    """

    better: str
    description: str
    digits: int = 3


METRICS = {
    "opening_correlation": Metric(
        "higher", "Pearson correlation of the mouth opening with the truth's, per clip"
    ),
    "articulation": Metric("one", "range (95th - 5th percentile) of the opening over the truth's"),
    "closures": Metric(
        "higher",
        "share of p, b, m at which the lips close: smallest opening within "
        f"{1000 * closures.WINDOW:.0f} ms at most {closures.THRESHOLD:.0%} of the truth's range",
    ),
    "lmd": Metric(
        "lower", "mean lip landmark distance, head motion removed, inter-ocular units", 4
    ),
    "jitter": Metric("one", "mean |second difference| of the lips over the truth's"),
    "flicker": Metric(
        "one", "mean |second difference| of the brightness of a 16th of the mask over the truth's"
    ),
    "opening_lag_ms": Metric(
        "zero",
        "delay of the opening after the truth's: the lag of the best correlation within "
        f"{signals.MAX_LAG * 1000 // TICKS_PER_SECOND} ms",
        0,
    ),
    "lse_c": Metric("higher", "sync expert's confidence: median less smallest distance over lags"),
    "lse_d": Metric("lower", "sync expert's distance between lips and speech at the best lag"),
    "av_offset_ms": Metric(
        "truth",
        "delay of the video after the audio at which the sync expert's distance is least",
        0,
    ),
    "silence_leak": Metric(
        "zero", "range of the opening on silent audio over the clip's true range while speaking"
    ),
    "psnr": Metric("higher", "dB, mouth (inside the mask), mean over frames", 2),
    "psnr_crop": Metric("higher", "dB, whole crop", 2),
    "ssim": Metric("higher", "mouth (inside the mask), mean over frames", 4),
    "ssim_crop": Metric("higher", "whole crop", 4),
    "lpips": Metric("lower", f"mouth region, every {STRIDE}th frame", 4),
    "lpips_crop": Metric("lower", f"whole crop, every {STRIDE}th frame", 4),
    "fid": Metric(
        "lower", f"Fréchet distance to the originals, mouth region, every {STRIDE}th frame", 2
    ),
    "fid_crop": Metric("lower", "the same, whole crop", 2),
    "csim": Metric(
        "higher",
        f"cosine of face embeddings of {EMBEDDED} frames with those of the template's original",
    ),
    "face_found": Metric("one", "share of frames in which FaceMesh finds the face"),
}
SETS = ("fid", "fid_crop")  # distances of all frames of a row, not means over clips

_MOTION = ("opening_correlation", "articulation", "closures", "jitter", "opening_lag_ms")
_SYNC = ("lse_c", "lse_d", "av_offset_ms")
_PICTURE = ("psnr", "psnr_crop", "ssim", "ssim_crop", "lpips", "lpips_crop", "flicker")
_PAIRED = (*_MOTION, "lmd", *_SYNC, *_PICTURE, *SETS, "csim", "face_found")
_EXPECTED = {
    "cross_driven": (*_MOTION, *_SYNC, *SETS, "csim", "face_found"),
    "silence": ("silence_leak", *SETS, "csim", "face_found"),
    "copy_template": (*_MOTION, *_SYNC, "face_found"),
    # Its files are those of `cross_driven`, which has the metrics that do not depend on the audio.
    "wrong_audio": (*_MOTION, "lmd", *_SYNC, *_PICTURE, "face_found"),
}


def expected(row: str) -> tuple[str, ...]:
    """Returns the metrics of a row, in the order of `METRICS`."""
    own = _EXPECTED.get(row, _PAIRED)
    return tuple(name for name in METRICS if name in own)
