"""Shared words: what counts as a term, and how similar texts are by them."""

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intents.lexical import lexicon_of, terms_of

FRUIT = ["red apple", "green apple", "a pear tree", "the pear, the tree"]
TEXTS = st.lists(st.text(alphabet="ab c,", max_size=12), min_size=1, max_size=8)


def similarity(one: str, other: str, items: list[str]) -> float:
    """The cosine by its definition, with dictionaries."""

    def weights(text: str) -> dict[int, float]:
        having = Counter(term for item in items for term in set(terms_of(item)))
        return {
            term: (1 + log(count)) * (log((1 + len(items)) / (1 + having[term])) + 1)
            for term, count in Counter(terms_of(text)).items()
        }

    a, b = weights(one), weights(other)
    lengths = (sum(w * w for w in a.values()) * sum(w * w for w in b.values())) ** 0.5
    return sum(a[term] * b.get(term, 0.0) for term in a) / lengths if lengths else 0.0


@given(TEXTS, st.text(alphabet="ab cd", max_size=12))
def test_similarities_are_those_of_the_definition(items: list[str], message: str) -> None:
    """Of any items, in any order of asking, also twice, and also with words that none of them has."""
    positions = np.array([*range(len(items)), 0])
    found = lexicon_of(items).similarities(message, positions)
    expected = [similarity(message, items[i], items) for i in positions]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_text_is_most_similar_to_itself() -> None:
    """Its similarity is 1, whatever its case and punctuation."""
    lexicon = lexicon_of(FRUIT)
    assert lexicon.similarities("RED apple!", np.array([0])).tolist() == pytest.approx([1.0], abs=1e-6)


def test_rare_words_count_for_more() -> None:
    """What stands in one item tells more than what stands in several."""
    red, green = lexicon_of(FRUIT).similarities("red", np.array([0, 1]))
    (shared,) = lexicon_of(FRUIT).similarities("apple", np.array([0]))
    assert red > shared > green == 0


def test_what_else_is_said_makes_less_similar() -> None:
    """A word that no item has counts towards the message's length."""
    lexicon = lexicon_of(FRUIT)
    alone, beside = (lexicon.similarities(text, np.array([0]))[0] for text in ("red apple", "red apple lawnmower"))
    assert alone > beside > 0


def test_pairs_of_words_are_terms() -> None:
    """Word order counts."""
    assert len(terms_of("the cat sat")) == 5
    assert set(terms_of("dog bites man")) != set(terms_of("man bites dog"))


def test_terms_are_the_same_in_every_process() -> None:
    """An index is read by other processes than the one that wrote it."""
    assert terms_of("Hello, world") == [907060870, 980881731, 222957957]


def test_scripts_without_spaces() -> None:
    """Where words are not parted by spaces each character is one, so that neighbours make pairs."""
    assert len(terms_of("\u9001\u6599\u306f\u3044\u304f\u3089 OK")) == 7 + 6
    lexicon = lexicon_of(["\u9001\u6599\u306f", "\u8fd4\u54c1"])
    like, unlike = lexicon.similarities("\u9001\u6599", np.array([0, 1]))
    assert like > 0.5
    assert unlike == 0


def test_vowel_signs_are_parts_of_words() -> None:
    """Words of the Devanagari script that differ in a vowel sign are two words, and each is one."""
    assert len(terms_of("\u092e\u093e\u0930\u0940")) == len(terms_of("\u092e\u0947\u0930\u093e")) == 1
    assert terms_of("\u092e\u093e\u0930\u0940") != terms_of("\u092e\u0947\u0930\u093e")


@pytest.mark.parametrize("items", [["!", "?"], ["", "words"]])
def test_texts_without_words(items: list[str]) -> None:
    """They are like nothing, and nothing is like them."""
    lexicon = lexicon_of(items)
    assert lexicon.is_whole(2)
    assert lexicon.similarities("words", np.array([0])).tolist() == [0.0]
    assert lexicon.similarities("...", np.array([0, 1])).tolist() == [0.0, 0.0]


def test_arrays_that_do_not_fit_are_told() -> None:
    """Read from files that were sealed together they fit; anything else must not be searched."""
    lexicon = lexicon_of(FRUIT)
    assert lexicon.is_whole(4)
    assert not lexicon.is_whole(3)
    broken = [
        replace(lexicon, starts=lexicon.starts + 1),
        replace(lexicon, starts=lexicon.starts[::-1].copy()),
        replace(lexicon, weights=lexicon.weights[1:]),
        replace(lexicon, idf=lexicon.idf[1:]),
        replace(lexicon, terms=lexicon.terms[::-1].copy()),
        replace(lexicon, columns=lexicon.columns + len(lexicon.terms)),
        replace(lexicon, columns=lexicon.columns - 1),
    ]
    assert not any(one.is_whole(4) for one in broken)
