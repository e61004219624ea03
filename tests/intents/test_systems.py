"""The systems side by side: what each reads, what it costs, and that all of them decide as the cascade does."""

from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import pytest

from export.runtime.bi_encoder import BiEncoder
from export.runtime.cross_encoder import CrossEncoder
from intents.confirm import Pair
from intents.evaluate import Looked, look_up
from intents.index import FaqIndex
from intents.labelled import Labelled
from intents.search import Floats
from intents.systems import Trial, pooled, try_systems
from tests.intents.judging import judged, run
from tests.intents.small import Recorder, confirming

DAY = date(2026, 7, 15)


class PreferShipping:
    """A reader that knows one thing, and writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[Pair]] = []

    def score(self, pairs: Sequence[Pair], *, progress: Callable[[int], None] | None = None) -> Floats:
        """See `Reader.score`."""
        self.asked.append(list(pairs))
        if progress is not None:
            progress(len(pairs))
        return np.array([8.0 if "hipping" in text else -8.0 for _, text in pairs], dtype=np.float32)


@pytest.fixture
def looked(small_index: FaqIndex, encoder: BiEncoder) -> list[Looked]:
    """A message that equals a phrasing, one that the bi-encoder is sure of, and one that it gets wrong."""
    messages = [
        Labelled("opening hours!", "opening-hours"),
        Labelled("what time do you open and close on saturdays", "opening-hours"),
        Labelled("what do i pay for sending it back", "shipping-cost"),
    ]
    vectors = encoder.encode([message.text for message in messages])
    return look_up(messages, vectors, small_index, small_index.search("exact"), DAY)


def test_without_a_cross_encoder_there_is_one_system(small_index: FaqIndex, looked: list[Looked]) -> None:
    """The bi-encoder stands alone where there is nothing to read pairs with, or the index was built without."""
    assert list(try_systems(looked, small_index, DAY, 1.0).runs) == ["alone"]
    trial = try_systems(looked, small_index, DAY, 1.0, PreferShipping())
    assert (list(trial.runs), trial.depths, trial.served.seconds) == (["alone"], (), 1.0)


def test_every_pair_is_read_once_and_the_cascades_first(small_index: FaqIndex, looked: list[Looked]) -> None:
    """What the cascade would read is read rank by rank, then what only full confirmation would read."""
    alone = try_systems(looked, small_index, DAY, 1.0).runs["alone"].judged
    # A band that holds the third message's confidence and not the second's.
    index = confirming(small_index, confirm_from=alone[2].confidence, confirm_to=alone[2].confidence)
    assert alone[1].confidence != alone[2].confidence
    reader, recorder = PreferShipping(), Recorder()
    trial = try_systems(looked, index, DAY, 1.0, reader, recorder)
    second, third = looked[1].message.text, looked[2].message.text
    assert [[message for message, _ in pairs] for pairs in reader.asked] == [[third]] * 4 + [[second]] * 4
    pairs = [pair for pairs in reader.asked for pair in pairs]
    assert len(set(pairs)) == len(pairs) == recorder.total == recorder.done
    assert {name: [one.read for one in run.judged] for name, run in trial.runs.items()} == {
        "alone": [0, 0, 0],
        "confirmer_alone": [0, 4, 4],
        "cascade": [0, 0, 4],
        "full_confirmation": [0, 4, 4],
    }
    assert [[one.read for one in depth.judged] for depth in trial.depths] == [[0, 0, k] for k in (1, 2, 3, 4)]
    assert [one.confirmation for one in trial.runs["cascade"].judged] == ["not_needed", "not_needed", "overruled"]
    assert trial.runs["cascade"].judged[2].is_right
    assert trial.runs["confirmer_alone"].judged[2].ranking[0] == "shipping-cost"
    assert trial.served is trial.runs["cascade"]
    took = [1.0, *(depth.seconds for depth in trial.depths), trial.runs["full_confirmation"].seconds]
    assert took == sorted(took), "whoever reads more takes no less"


def test_a_real_cross_encoder(small_index: FaqIndex, looked: list[Looked], cross_encoder: CrossEncoder) -> None:
    """With a real model, a cascade that confirms everything is full confirmation."""
    trial = try_systems(looked, confirming(small_index), DAY, 0.5, cross_encoder)
    assert trial.runs["cascade"].judged == trial.runs["full_confirmation"].judged
    assert trial.runs["cascade"].seconds > trial.runs["alone"].seconds == 0.5


def test_trials_are_pooled() -> None:
    """Messages of all folds count together, and a fold with fewer candidates counts with all that it has."""
    ours, others = run(judged("a", "answer", "a"), seconds=1), run(judged(None, "no_match"), seconds=2)
    deep, none = Trial({"alone": ours, "cascade": ours}, (ours, ours)), Trial({"alone": others})
    both = pooled([deep, Trial({"alone": others, "cascade": others}, (others,))])
    assert {name: (len(run.judged), run.seconds) for name, run in both.runs.items()} == {
        "alone": (2, 3),
        "cascade": (2, 3),
    }
    assert [(len(run.judged), run.seconds) for run in both.depths] == [(2, 3), (2, 3)]
    assert (list(pooled([deep, none]).runs), pooled([deep, none]).depths) == (["alone"], ())
