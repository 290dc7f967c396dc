"""HDTF (Zhang et al., CVPR 2021): speeches from YouTube, published as lists of urls, times, crops.

Expected below the source folder, at any depth, for every clip of the lists either

    RD_Radio10_000.mp4       the clip, cut and cropped (GROUP_NAME_INDEX.mp4, as the authors'
                             download script writes; Radio10_0.mp4, as their README says, will do)
    Radio10.mp4              or the whole video (or RD_Radio10.mp4), which is then cut and cropped

and the lists `GROUP_annotion_time.txt` etc. themselves, in the folder or in its `HDTF_dataset`.
Sound comes from a file of the same name ending in .wav or .m4a if there is one (that script fetches
pictures alone), else from the video.

HDTF has no official splits. Ours are by speaker, so that no name is on two sides; see `split_of`.
"""

import pathlib
import re

from talkjax.errors import UserError

from ..cut import PixelBox
from . import catalog
from .catalog import Absent, Catalog, Clip

HOMEPAGE = "https://github.com/MRzzm/HDTF"
GROUPS = ("RD", "WDA", "WRA")
HOW_TO_GET = f"""Clone {HOMEPAGE} for the lists (its folder HDTF_dataset) and fetch the videos that
they name, with sound; put both below the manual directory: HDTF_dataset/*.txt and
GROUP_NAME_INDEX.mp4 (cut and cropped clips) or NAME.mp4 (whole videos)."""
CITATION = """@inproceedings{zhang2021flow,
  title={Flow-Guided One-Shot Talking Face Generation With a High-Resolution Audio-Visual Dataset},
  author={Zhang, Zhimeng and Li, Lincheng and Ding, Yu and Fan, Changjie},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={3661--3670},
  year={2021}
}"""
TEST_SHARE, VALIDATION_SHARE = 0.1, 0.05  # of the speakers

# List -> (what its lines must look like, in words). The names are those of the repository.
_TIME = r"(?:\d+:)?\d+:\d\d"
_LISTS = {
    "video_url": (r"(\S+) (https?://\S+)", "NAME URL"),
    "annotion_time": (rf"(\S+)\.mp4((?: {_TIME}-{_TIME})+)", "NAME.mp4 mm:ss-mm:ss ..."),
    "crop_wh": (r"(\S+_\d+)\.mp4 (\d+ \d+ \d+ \d+)", "NAME_INDEX.mp4 X WIDTH Y HEIGHT"),
    "resolution": (r"(\S+)\.mp4 (\d+)", "NAME.mp4 HEIGHT"),
}
_CUT = re.compile(r"(?:(RD|WDA|WRA)_)?(.+?)_(\d+)")
_SOUND = (".wav", ".m4a")


def read_catalog(source: pathlib.Path, out: pathlib.Path) -> Catalog:
    """The clips of the lists, and what of them is there.

    Raises:
      UserError: a list is missing or malformed, or none of its videos is there.
    """
    paths = {
        (group, kind): _find_list(source, f"{group}_{kind}.txt")
        for group in GROUPS
        for kind in _LISTS
    }
    lists = {key: _read_list(path, key[1]) for key, path in paths.items()}
    files, absent = _by_name(source, out)
    clips, listed = [], set()
    for group in GROUPS:
        intervals, crops, heights, urls = (
            lists[group, kind] for kind in ("annotion_time", "crop_wh", "resolution", "video_url")
        )
        for name, times in intervals.items():
            for index, text in enumerate(times.split()):
                clip_id = f"{group}_{name}_{index:03d}.mp4"
                cut = [(group, name, index), (None, name, index)]
                whole = [(group, name, None), (None, name, None)]
                listed.update(cut + whole)
                if f"{name}_{index}" not in crops:
                    detail = f"{group}_crop_wh.txt has no line for {name}_{index}.mp4"
                    absent.append(Absent(clip_id, "no_crop", detail))
                    continue
                key = next((key for key in cut + whole if key in files), None)
                if key is None:
                    detail = f"neither the clip nor {name}.mp4 ({urls.get(name, 'no url')}) is here"
                    absent.append(Absent(clip_id, "missing", detail))
                    continue
                found_id, path = files[key]
                piece = {}
                if key in whole:
                    x, width, y, height = map(int, crops[f"{name}_{index}"].split())
                    box = PixelBox(x, y, width, height, int(heights.get(name, 0)))
                    piece = {"interval": _interval(text), "box": box}
                else:
                    clip_id = found_id
                audio = _sound_beside(path)
                clips.append(Clip(clip_id, path, audio, split=split_of(group, name), **piece))
    for key in files.keys() - listed:
        absent.append(Absent(files[key][0], "not_listed", "no list names it"))
    if not clips:
        raise UserError(f"no video of HDTF's lists in {source}; {' '.join(HOW_TO_GET.split())}")
    return Catalog(
        "hdtf",
        sorted(clips, key=lambda clip: clip.clip_id),
        sorted(absent, key=lambda item: item.clip_id),
        catalog.hash_lists(list(paths.values())),
    )


def split_of(group: str, name: str) -> str:
    """The split of a video by its speaker: 10% of the surnames are test, 5% validation.

    The surname, the last capitalised word, since some people appear under two first names. Group RD
    names its videos Radio1, Radio2, ...: nothing tells who speaks, so all of them are for training.

    Args:
      group: "RD", "WDA" or "WRA".
      name: of the video, e.g. "BarackObama" or "JoeManchin1".
    """
    if group == "RD":
        return "train"
    words = re.findall(r"[A-Z][^A-Z]*", name.rstrip("0123456789"))
    share = catalog.share_of("hdtf", words[-1] if words else name)
    if share < TEST_SHARE:
        return "test"
    return "validation" if share < TEST_SHARE + VALIDATION_SHARE else "train"


def _find_list(source: pathlib.Path, name: str) -> pathlib.Path:
    for path in (source / name, source / "HDTF_dataset" / name):
        if path.is_file():
            return path
    raise UserError(
        f"HDTF's list {name} is neither in {source} nor in its HDTF_dataset; "
        f"get it from {HOMEPAGE} (folder HDTF_dataset)"
    )


def _read_list(path: pathlib.Path, kind: str) -> dict[str, str]:
    pattern, form = _LISTS[kind]
    entries = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if not line.split():
            continue
        found = re.fullmatch(pattern, " ".join(line.split()))
        if not found or (kind == "annotion_time" and not _in_order(found[2])):
            raise UserError(
                f"{path}:{number}: {line.strip()[:60]!r} is not of the form `{form}`; "
                f"get the list again from {HOMEPAGE}"
            )
        entries[found[1]] = found[2].strip()
    return entries


def _in_order(times: str) -> bool:
    return all(start < end for start, end in map(_interval, times.split()))


def _interval(text: str) -> tuple[float, float]:
    """Seconds: `01:02-1:00:03` -> (62.0, 3603.0)."""
    start, end = (
        sum(int(part) * 60**place for place, part in enumerate(reversed(time.split(":"))))
        for time in text.split("-")
    )
    return float(start), float(end)


def _by_name(source: pathlib.Path, out: pathlib.Path) -> tuple[dict, list[Absent]]:
    """(group or None, video's name, index or None) -> (id, path) of the videos, and second ones."""
    files, absent = {}, []
    for clip_id, path in catalog.find_videos(source, out):
        stem = pathlib.Path(path).stem
        if found := _CUT.fullmatch(stem):
            key = (found[1], found[2], int(found[3]))
        elif stem.startswith(tuple(f"{group}_" for group in GROUPS)):
            key = (*stem.split("_", 1), None)
        else:
            key = (None, stem, None)
        if key in files:
            absent.append(Absent(clip_id, "duplicate", f"{files[key][0]} is taken instead"))
        else:
            files[key] = (clip_id, path)
    return files, absent


def _sound_beside(path: str) -> str | None:
    beside = (pathlib.Path(path).with_suffix(suffix) for suffix in _SOUND)
    return next((str(sound) for sound in beside if sound.is_file()), None)
