"""How much heads and shared words count."""

from dataclasses import replace

import numpy as np

from intents.candidates import Weights
from intents.weighing import DEFAULT, WEIGHTS, best_weights, choose_weights
from tests.intents.synthetic import synthetic


def test_weights_are_those_that_find_most() -> None:
    """Where others find clearly more than the default ones they are taken, the smallest of equals; else those are."""
    hits = {weights: np.arange(100) < 60 for weights in WEIGHTS}
    assert best_weights(hits) == DEFAULT
    better, more = Weights(head=1.0, lexical=0.5), Weights(head=1.0, lexical=2.0)
    hits[better] = hits[more] = np.arange(100) < 70
    assert best_weights(hits) == better
    hits[DEFAULT] = (np.arange(100) < 69) | (np.arange(100) == 99)  # as many, and not the same ones
    assert best_weights(hits) == DEFAULT


def test_weights_are_chosen_on_held_out_phrasings() -> None:
    """Where phrasings lie all around their entries heads get weight; where entries differ in a word, words do."""
    assert choose_weights(synthetic(30, 6, 1.2).hold_out()).head > 0
    alike = synthetic(12, 6, 3.0)
    items = [replace(item, text=f"word{item.entry}") for item in alike.items]
    chosen = choose_weights(replace(alike, items=items).hold_out())
    assert chosen.lexical > chosen.head
