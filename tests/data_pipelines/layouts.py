"""Small folders laid out as the data sets are published, of videos that somebody else makes."""

import os
from pathlib import Path

from talkjax.conventions import SAMPLE_RATE
from talkjax.media import audio
from tests.data_pipelines.synthetic import make_video
from tests.media_files import Sound, make_media, tone

# By `hdtf.split_of`: Manchin is test, Kasich validation; who speaks in Radio1 is not known.
HDTF_LISTS = {
    "RD": {
        "video_url": "Radio1 https://example.org/watch?v=a\nRadio2 https://example.org/watch?v=b&t=6s\n",
        "annotion_time": "Radio1.mp4 00:00-00:02\nRadio2.mp4 00:01-00:02 00:00-00:01 \n",
        "crop_wh": "Radio1_0.mp4 0 64 0 64\nRadio2_0.mp4 0 64 0 64\n",
        "resolution": "Radio1.mp4 0\nRadio2.mp4 64\n",
    },
    "WDA": {
        "video_url": "JoeManchin0 https://example.org/watch?v=c\n",
        "annotion_time": "JoeManchin0.mp4 00:05-00:07\nAdamSchiff.mp4 00:01-00:03\n",
        # Twice the size of the video that is here, so everything is scaled down.
        "crop_wh": "JoeManchin0_0.mp4 0 64 0 64\nAdamSchiff_0.mp4 64 128 0 128\n",
        "resolution": "AdamSchiff.mp4 128\n",
    },
    "WRA": {
        "video_url": "JohnKasich https://example.org/watch?v=d\n\n",
        "annotion_time": "JohnKasich.mp4 00:00-00:02\nRandPaul1.mp4 1:00:00-1:00:05\n",
        "crop_wh": "JohnKasich_0.mp4 0 64 0 64\nRandPaul1_0.mp4 0 64 0 64\n",
        "resolution": "JohnKasich.mp4 64\nRandPaul1.mp4 64\n",
    },
}
HDTF_TRAIN = ["RD_Radio1_000.mp4", "RD_Radio2_000.mp4", "WDA_AdamSchiff_000.mp4"]

VOX_META = """VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set
id00012 ,n000012 ,m ,dev
id00017 ,n000017 ,m ,test
id00099 ,n000099 ,f ,dev
"""
VOX_TRAIN = [f"dev/mp4/id00012/2DLq_Kkc1r8/0000{i}.mp4" for i in (1, 2)]


def write_hdtf_lists(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for group, lists in HDTF_LISTS.items():
        for kind, text in lists.items():
            (folder / f"{group}_{kind}.txt").write_text(text)
    return folder


def make_hdtf(folder: Path) -> Path:
    """Cut clips of either naming, a whole video; one video missing, one file too many, one broken.

    In the whole video there is a face only in what the lists cut out of it.
    """
    write_hdtf_lists(folder / "HDTF_dataset")
    make_video(folder / "clips" / "RD_Radio1_000.mp4", frames=60)
    make_video(folder / "clips" / "Radio2_0.mp4", frames=60, seconds=0)
    make_media(folder / "clips" / "Radio2_0.wav", sound=Sound(tone(2.4)))
    make_video(folder / "JoeManchin0_0.mp4", frames=60)
    make_video(folder / "AdamSchiff.mp4", frames=90, black=range(90))
    (folder / "WRA_JohnKasich_000.mp4").write_bytes(b"junk")
    make_video(folder / "copy" / "RD_Radio1_000.mp4", frames=3)
    make_video(folder / "holiday.mp4", frames=3)
    return folder


def make_voxceleb2(folder: Path) -> Path:
    """Sound from .m4a, sound from the .mp4, a broken .m4a, and what no list allows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vox2_meta.csv").write_text(VOX_META)
    silent, own = (folder / name for name in VOX_TRAIN)
    make_video(silent, frames=60, seconds=0)
    sound = folder / "dev/aac/id00012/2DLq_Kkc1r8/00001.m4a"
    sound.parent.mkdir(parents=True)
    make_media(sound, sound=Sound(tone(2.4)))
    make_video(own, frames=60)
    make_video(own.with_name("00003.mp4"), frames=60)
    sound.with_name("00003.m4a").write_bytes(b"junk")
    make_video(folder / "test/mp4/id00017/5MkXgwdrmJw/00001.mp4", frames=60)
    make_video(folder / "test/mp4/id00012/2DLq_Kkc1r8/00009.mp4", frames=3)
    make_video(folder / "dev/mp4/id55555/2DLq_Kkc1r8/00001.mp4", frames=3)
    return folder


def link_real(folder: Path, videos: list[Path], dataset: str) -> Path:
    """Three real videos as one of the data sets."""
    first, second, third = videos
    if dataset == "hdtf":
        write_hdtf_lists(folder)
        for name, video in (("RD_Radio1_000", first), ("Radio2_0", second), ("AdamSchiff", third)):
            os.symlink(video, folder / f"{name}.mp4")
        for kind, text in {
            "crop_wh": "AdamSchiff_0.mp4 40 240 24 240\n", "resolution": "AdamSchiff.mp4 288\n",
        }.items():  # fmt: skip
            (folder / f"WDA_{kind}.txt").write_text(text)
    elif dataset == "voxceleb2":
        names = [*VOX_TRAIN, "test/mp4/id00017/5MkXgwdrmJw/00001.mp4"]
        for name, video in zip(names, videos, strict=True):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(video, path)
        (folder / "vox2_meta.csv").write_text(VOX_META)
        sound = folder / "dev/aac/id00012/2DLq_Kkc1r8/00001.m4a"
        sound.parent.mkdir(parents=True)
        make_media(sound, sound=Sound(audio.load_audio(first)[None], rate=SAMPLE_RATE))
    else:
        folder.mkdir()
        for video in videos:
            os.symlink(video, folder / video.name)
    return folder
