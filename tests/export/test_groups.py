"""Messages with their candidates, as they are shown."""

from export.groups import Candidate
from export.runtime.render import render


def test_a_candidate_is_shown_as_a_server_shows_it() -> None:
    """Question, phrasing and answer are rendered in the one place for that; the score is not shown."""
    candidate = Candidate("When are you open?", "opening hours", "From 9 to 18.", 0.8)
    assert candidate.text() == render("When are you open?", "opening hours", "From 9 to 18.")
    assert "0.8" not in candidate.text()


def test_what_is_empty_is_not_shown() -> None:
    """A candidate without a second phrasing or an answer is its question alone."""
    assert Candidate("When are you open?", "", "", 0.8).text() == "When are you open?"
