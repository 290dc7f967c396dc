"""Files of aligners, and labels of phones."""

import pytest

from data_pipelines.synthetic.speech import alignments, arpabet
from data_pipelines.synthetic.speech.alignments import Segment, read_alignments
from talkjax.errors import UserError

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.9
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.9
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = ""
        intervals [2]:
            xmin = 0.2
            xmax = 0.9
            text = "a ""b"" 2"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 0.9
        points: size = 1
        points [1]:
            number = 0.5
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.9
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = "sil"
        intervals [2]:
            xmin = 0.2
            xmax = 0.9
            text = "AH0"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.9
<exists>
1
"IntervalTier"
"anna - phones"
0
0.9
2
0
0.2
""
0.2
0.9
"ɑː"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrid(tmp_path, encoding):
    (tmp_path / "one.TextGrid").write_text(LONG, encoding=encoding)
    (tmp_path / "two.TextGrid").write_text(SHORT, encoding=encoding)
    one = read_alignments(tmp_path / "one.TextGrid")["one"]
    assert one.phones == [Segment("sil", 0.0, 0.2), Segment("AH0", 0.2, 0.9)]
    assert [w.label for w in one.words] == ["", 'a "b" 2']
    two = read_alignments(tmp_path / "two.TextGrid")["two"]
    assert two.phones == [Segment("", 0.0, 0.2), Segment("ɑː", 0.2, 0.9)] and two.words is None


def test_ctm(tmp_path):
    path = tmp_path / "phones.ctm"
    path.write_text(";; a comment\nb 1 0.30 0.1 AA1_B 0.9\na 1 0.0 0.2 SIL\nb 1 0.1 0.2 P_S\n")
    found = read_alignments(path)
    assert found["a"].phones == [Segment("SIL", 0.0, 0.2)]
    assert [(p.label, round(p.end, 3)) for p in found["b"].phones] == [("P_S", 0.3), ("AA1_B", 0.4)]


def test_json_lines_come_back(tmp_path):
    phones = [Segment("SIL", 0.0, 0.1), Segment("B", 0.1, 0.2), Segment("IY", 0.2, 0.4)]
    words = [Segment("<sil>", 0.0, 0.1), Segment("bee", 0.1, 0.4)]
    made = alignments.Alignment(phones, words, -12.5)
    path = tmp_path / "all.jsonl"
    path.write_text(alignments.to_json_line("x/bee.wav", made) + "\n")
    assert read_alignments(path) == {"x/bee.wav": made}


@pytest.mark.parametrize(
    "name,text,message",
    [
        ("a.TextGrid", LONG[:300], "ends early"),
        ("a.TextGrid", "ooBinaryFile", "not a TextGrid"),
        ("a.TextGrid", SHORT.replace("phones", "tones"), "no tier named phones"),
        ("a.ctm", "a 1 0.1 0.2\n", "4 of 5 columns"),
        ("a.ctm", "a 1 x 0.2 P\n", "could not convert"),
        ("a.ctm", "a 1 0.3 -0.2 P\n", "from 0.3"),
        ("a.jsonl", '{"path": "a"}\n', "words"),
        ("a.jsonl", "nonsense\n", "damaged"),
        ("a.txt", "", "no alignment"),
    ],
)
def test_damaged_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_alignments(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_alignments(tmp_path / "missing.ctm")


@pytest.mark.parametrize(
    "label,seconds,symbol",
    [
        ("AH0", 0.2, "ə"), ("AH", 0.06, "ə"), ("AH", 0.12, "ˌʌ"), ("AH1", 0.05, "ˈʌ"),
        ("IY2_E", 0.1, "ˌi"), ("T_B", 0.1, "t"), ("HH", 0.1, "h"), ("JH", 0.1, "dʒ"),
        ("ɑː", 0.1, "ɑː"), ("t", 0.1, "t"), ("ˈaj", 0.1, "ˈaj"),
    ],
)  # fmt: skip
def test_labels_become_ipa(label, seconds, symbol):
    assert arpabet.to_ipa(label, seconds) == symbol


def test_pauses_and_back_to_arpabet():
    assert all(arpabet.is_pause(x) for x in ("", "sil", "<sil>", "SIL", "sp", "[NOISE]", "<eps>"))
    assert not arpabet.is_pause("S") and not arpabet.is_pause("P")
    spoken = ["k", "ˈoʊ", "k", "ə", "ɹ", "oʊ", "tʃ", "ɜː"]
    assert arpabet.from_ipa(spoken) == ["K", "OW", "K", "AH", "R", "OW", "CH", "ER"]
