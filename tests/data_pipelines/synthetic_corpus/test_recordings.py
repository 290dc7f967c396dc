"""Recordings of people: the table, what is trusted, and where they are cut."""

import numpy as np
import pytest

from data_pipelines import recorded_speech
from data_pipelines.synthetic.speech import espeak, forced_alignment, recordings
from data_pipelines.synthetic.speech.alignments import Alignment, Segment
from data_pipelines.synthetic.speech.recordings import Recording
from data_pipelines.synthetic.speech.voices import Voice
from talkjax.errors import UserError
from tests.media_files import tone, write_wav

ROW = Recording("papa.wav", "papa.wav", "anna", "Papa, papa!")


def segments(*rows):
    return [Segment(*row) for row in rows]


def papa(at=0.5, phone=0.1):
    labels = ("P", "AA1", "P", "AH0")
    return segments(*((x, at + i * phone, at + (i + 1) * phone) for i, x in enumerate(labels)))


def said(*words):
    return segments(*((word, 0.0, 1.0) for word in words))


def test_table(tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text(
        "path\tspeaker\tsex\ttext\talignment\na/b.wav\tanna\tF\tHello\tx.ctm\n/c.wav\tbob\tM\tHi\t\n"
    )
    one, two = recordings.read_table(table)
    assert one == Recording(str(tmp_path / "a/b.wav"), "a/b.wav", "anna", "Hello", "en",
                            str(tmp_path / "x.ctm"))  # fmt: skip
    assert (two.path, two.alignment) == ("/c.wav", "")
    for text, message in (
        ("path\ttext\na\tb\n", "no column speaker"),
        ("path\tspeaker\ttext\n", "more lines must follow"),
        ("path\tspeaker\ttext\na\tb\n", "line 2"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            recordings.read_table(table)
    with pytest.raises(UserError, match="cannot be read"):
        recordings.read_table(tmp_path / "missing")


@pytest.mark.parametrize(
    "alignment,fault",
    [
        (Alignment(papa()), ""),
        (Alignment(papa(), said("papa(2)", "<sil>", "papa"), -15.0), ""),
        (Alignment(papa(), said("papa"), -15.0), "other words"),
        (Alignment(papa(), None, -40.0), "low score"),
        (Alignment(papa(phone=0.9)), "impossible times"),
        (Alignment(papa(phone=0.02)), "impossible times"),
        (Alignment(papa(at=1.8)), "impossible times"),
        (Alignment(papa() + papa()), "impossible times"),
        (Alignment([p._replace(label="@") for p in papa()]), "unknown phones"),
        (Alignment(segments(("SIL", 0, 1))), "not aligned"),
        (None, "not aligned"),
    ],
)
def test_uncertain_alignments(alignment, fault):
    assert recordings.find_fault(alignment, ROW, 2.0) == fault


def test_it_is_cut_in_the_middle_of_pauses():
    phones = papa(0.5) + papa(1.0) + papa(2.0) + papa(2.6) + papa(3.6)
    parts, dropped = recordings.cut(ROW, Alignment(phones), 4.5, wanted=0.85)
    # The pauses are 0.1, 0.6, 0.2 and 0.6 seconds long.
    assert [(p.start, p.end) for p in parts] == [(0.1, 1.7), (1.7, 4.4)] and not dropped
    assert [len(p.phonemes) for p in parts] == [8, 12]
    assert parts[1].phonemes[0] == ("p", 2.0, 2.1)
    parts, dropped = recordings.cut(ROW, Alignment(papa(0.1)), 0.6, wanted=4.0)
    assert not parts and dropped == [pytest.approx(0.6)]


def test_an_excerpt_is_heard_with_its_phonemes(tmp_path):
    path = write_wav(tmp_path / "papa.wav", tone(2.0, 16000), 16000)
    row = Recording(str(path), "papa.wav", "anna", "papa")
    (part,), _ = recordings.cut(row, Alignment(papa(0.5)), 2.0, wanted=1.0)
    speech = recordings.hear(part)
    assert (part.start, part.end) == (0.1, 1.3) and len(speech.samples) == 1.2 * 16000
    assert [p.symbol for p in speech.phonemes] == ["p", "ˈɑ", "p", "ə"]
    np.testing.assert_allclose([p.start for p in speech.phonemes], [0.4, 0.5, 0.6, 0.7])


def test_words_are_those_of_the_dictionary():
    words = forced_alignment.normalize_words("The boys’ dog -- it's “O'Neil”, 2 o'clock!")
    assert words == ["the", "boys'", "dog", "it's", "o'neil", "2", "o'clock"]


def write_table(folder, *rows, header="path\tspeaker\ttext\tlanguage\talignment"):
    path = folder / "table.tsv"
    path.write_text("\n".join([header, *("\t".join(row) for row in rows), ""]))
    return path


def test_what_cannot_be_used_is_counted(tmp_path):
    write_wav(tmp_path / "papa.wav", tone(2.0, 16000), 16000)
    write_wav(tmp_path / "other.wav", tone(2.0, 16000), 16000)
    lines = [f"papa 1 {p.start:.2f} {p.end - p.start:.2f} {p.label}" for p in papa()]
    (tmp_path / "x.ctm").write_text("\n".join([*lines, "z 1 0 1 SIL"]))
    rows = [(f"{n}.wav", "anna", "papa", "it", "x.ctm") for n in ("other", "papa")]
    table = write_table(tmp_path, *rows)
    found = recorded_speech.find_excerpts(table, None, tmp_path / "made", 4.0, workers=1)
    ((row, number, part),) = found.excerpts
    assert (row, number, part.language) == (1, 0, "it") and found.dropped == {"not aligned": 1}
    with pytest.raises(UserError, match=r"no recording can be used \(1 not aligned\)"):
        table = write_table(tmp_path, rows[0])
        recorded_speech.find_excerpts(table, None, tmp_path / "made", 4.0, workers=1)
    with pytest.raises(UserError, match="only English is aligned here"):
        table = write_table(tmp_path, (*rows[0][:4], ""))
        recorded_speech.find_excerpts(table, None, tmp_path / "made", 4.0, workers=1)
    with pytest.raises(UserError, match=r"gone\.wav"):
        table = write_table(tmp_path, ("gone.wav", *rows[0][1:]))
        recorded_speech.find_excerpts(table, None, tmp_path / "made", 4.0, workers=1)


def test_forced_alignment_finds_the_times_of_synthetic_speech():
    pytest.importorskip("pocketsphinx")
    text = "Papa bought a pumpkin for the xylografficator, but Bob moved the apples."
    speech = espeak.speak(text, Voice("en-us", "m3", 150))
    import soxr

    samples = soxr.resample(speech.samples, speech.rate, forced_alignment.RATE)
    aligner = forced_alignment.Aligner()
    found = aligner.align(samples, text)
    row = Recording("x", "x", "x", text)
    assert recordings.find_fault(found, row, len(samples) / 16000) in ("", "low score")
    # Of each kind of closure there are as many, at the same times.
    for label, symbol in (("P", "p"), ("B", "b"), ("M", "m")):
        starts = [p.start for p in found.phones if p.label == label]
        exact = [p.start for p in speech.phonemes if p.symbol == symbol]
        assert np.median(np.abs(np.subtract(starts, exact))) < 0.03
    assert aligner.align(samples, "...") is None
    wrong = aligner.align(
        samples, "Nobody has seen the seven thousand stars of heaven this winter."
    )
    assert wrong is None or wrong.score < found.score - 5
