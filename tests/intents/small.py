"""A small FAQ with an entry of every sort, and what tests do with it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from intents.build import Built, Reporter
from intents.confirm import Confirmer, Joint
from intents.decide import Confidence, Policy
from intents.entries import Entry, Faq, Header
from intents.index import FaqIndex

Builder = Callable[..., Built]
Opener = Callable[[Path], FaqIndex]

SALE_BEGINS, SALE_ENDS = date(2026, 7, 1), date(2026, 7, 31)

SMALL = Faq(
    header=Header(name="Small shop"),
    entries=(
        Entry(
            id="opening-hours",
            question="When are you open?",
            answer="We are open from **9 to 18**, Monday to Saturday.",
            phrasings=("opening hours", "what time do you close", "are you open on saturdays", "shop hours today"),
        ),
        Entry(
            id="returns",
            question="How do I return something?",
            answer="Print the label in your account and hand the parcel in.",
            phrasings=("send an item back", "return policy", "i want to give it back", "where is the return label"),
        ),
        Entry(
            id="shipping-cost",
            question="What does shipping cost?",
            answer="Shipping is 4.90, and free from 50.",
            phrasings=("delivery fee", "how much is postage", "do you ship for free", "price of delivery"),
        ),
        Entry(
            id="hello",
            question="Hello",
            answer="Hello! Ask me about orders, shipping, returns and our opening hours.",
            phrasings=("hi there", "good morning", "hey you"),
            kind="smalltalk",
        ),
        Entry(
            id="human",
            question="Can I talk to a person?",
            answer="I am passing you on.",
            phrasings=("speak to a human", "connect me with an agent", "real person please"),
            kind="handoff",
        ),
        Entry(
            id="summer-sale",
            question="Is there a summer sale?",
            answer="Everything is 20 % off in July.",
            phrasings=("summer discount", "july sale", "when do the summer prices start"),
            valid_from=SALE_BEGINS,
            valid_to=SALE_ENDS,
        ),
        Entry(
            id="fax",
            question="What is your fax number?",
            answer="We gave our fax machine away.",
            phrasings=("send you a fax", "fax line"),
            enabled=False,
        ),
    ),
)


def changed(position: int, **fields: Any) -> Faq:
    """The small FAQ with other fields in one entry."""
    entries = list(SMALL.entries)
    entries[position] = msgspec.structs.replace(entries[position], **fields)
    return Faq(header=SMALL.header, entries=tuple(entries))


# A candidate's joint evidence is ten times its own and its logit beyond -2; one of 6 is a confidence of one half.
CONFIRMER = Confirmer(
    model="a cross-encoder",
    fingerprint="f" * 64,
    pair_tokens=64,
    candidates=4,
    confirm_from=0.0,
    confirm_to=1.0,
    joint=Joint(evidence=10.0, logit=1.0, imputed=-2.0, imputed_by_evidence=2.0, order=1.0),
    policy=Policy(confidence=Confidence(bias=-6.0, evidence=1.0, margin=0.0), answer_at=0.9, clarify_at=0.5),
)


def confirming(index: FaqIndex, **fields: Any) -> FaqIndex:
    """The index as if it had been built with a cross-encoder, which confirms everything unless it is said otherwise."""
    confirmer = msgspec.structs.replace(CONFIRMER, **fields)
    return replace(index, manifest=msgspec.structs.replace(index.manifest, confirmer=confirmer))


class Recorder(Reporter):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.total = 0
        self.done = 0

    def step(self, what: str) -> None:
        """See `Reporter.step`."""
        self.steps.append(what)

    def encoding(self, total: int) -> Callable[[int], None]:
        """See `Reporter.encoding`."""
        self.total += total

        def advance(count: int) -> None:
            self.done += count

        return advance
