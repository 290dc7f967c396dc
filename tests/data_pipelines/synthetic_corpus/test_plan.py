import json

import pytest

from data_pipelines.synthetic import plan as planning
from data_pipelines.synthetic.plan import CorpusSettings, plan_corpus


@pytest.fixture(scope="module")
def clips():
    return plan_corpus(80, 4, 3, 30)


def by_split(clips, value):
    return [{value(c) for c in clips if c.split == split} for split in planning.SPLITS]


def test_the_same_seed_gives_the_same_plan_and_another_one_another(clips):
    assert plan_corpus(80, 4, 3, 30) == clips
    other = plan_corpus(80, 4, 4, 30)
    assert not {c.clip_key for c in other} & {c.clip_key for c in clips}
    assert sum(a.sentences == b.sentences for a, b in zip(clips, other, strict=True)) < 3


def test_splits_share_no_identity_voice_or_sentence(clips):
    assert [len(s) for s in by_split(clips, lambda c: c.identity_key)] == [50, 30]
    for value in (lambda c: c.identity_key, lambda c: c.voice):
        train, test = by_split(clips, value)
        assert train and test and not train & test
    train, test = (
        {s for c in clips if c.split == x for s in c.sentences} for x in ("train", "test")
    )
    assert len(train) > 300 and len(test) > 150 and not train & test
    assert len({c.clip_id for c in clips}) == len(clips) == 320


def test_a_larger_corpus_contains_the_smaller_one(clips):
    small = {c.clip_id: c for c in plan_corpus(20, 2, 3, 5)}
    large = {c.clip_id: c for c in clips}
    assert small.items() <= large.items()


def test_a_person_keeps_the_voice(clips):
    for identity in range(10):
        own = [c for c in clips if c.split == "train" and c.identity == identity]
        assert len(own) == 4 and len({c.voice for c in own}) == 1
        assert len({c.clip_key for c in own}) == 4


def test_some_clips_pause_and_some_are_noisy(clips):
    pauses = {name: sum(c.pause == name for c in clips) for name in planning.PAUSES}
    assert all(count >= 8 for count in pauses.values()) and pauses["none"] > 160
    for c in clips:
        assert 1 <= c.pause_seconds <= 2 if c.pause != "none" else c.pause_seconds == 0
    assert 30 < sum(c.room for c in clips) < 200
    assert 30 < sum(c.snr_db is not None for c in clips) < 200
    assert len({c.voice.language for c in clips}) >= 3


def test_plans_are_plain_data(clips):
    for c in clips[:5]:
        assert json.loads(json.dumps(c.to_json(), allow_nan=False)) == c.to_json()


def test_longer_clips_get_more_sentences():
    few, many = (plan_corpus(1, 1, 0, 0, CorpusSettings(seconds=s))[0].sentences for s in (4, 20))
    assert len(many) > len(few) and many[: len(few)] == few


@pytest.mark.parametrize("bad", [(2, 1, 0, 3), (2, -1, 0, 1), (2, 1, -1, 1), (-1, 1, 0, 0)])
def test_impossible_corpora(bad):
    with pytest.raises(ValueError, match="must not be negative"):
        plan_corpus(*bad)


def test_streams_are_independent():
    key = (1, 0, 5)
    assert planning.random_stream(key, 2).random() == planning.random_stream(key, 2).random()
    values = {planning.random_stream(k, p).random() for k in (key, (*key, 1)) for p in range(5)}
    assert len(values) == 10


def test_speech_without_pictures_has_a_voice_for_every_clip():
    clips = planning.plan_speech(60, 3)
    assert clips[:20] == planning.plan_speech(20, 3)
    assert len({c.voice for c in clips}) == len({c.clip_id for c in clips}) == 60
    # Nothing of it is in a corpus of the same seed; its sentences are the training split's.
    corpus = plan_corpus(60, 1, 3, 30)
    assert not {c.clip_key for c in clips} & {c.clip_key for c in corpus}
    assert not {c.voice for c in clips} & {c.voice for c in corpus}
    test = {s for c in plan_corpus(300, 2, 3, 300) for s in c.sentences}
    assert not test & {s for c in clips for s in c.sentences}
