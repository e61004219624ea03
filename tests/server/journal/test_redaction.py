"""Guards `server.journal.redaction`: addresses and numbers are gone, however they are written, and in linear time."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from server.journal.redaction import CARD, EMAIL, NUMBER, PHONE, redact

EXAMPLES = {
    "write to anna.smith+shop@mail.example.co.uk please": f"write to {EMAIL} please",
    "mailto:anna@example.com.": f"mailto:{EMAIL}.",
    "(anna@example.com)": f"({EMAIL})",
    "anna @ example.com": EMAIL,
    "émile.çelik@exämple.fr": EMAIL,
    "o'neill@example.ie": EMAIL,
    '"anna smith"@example.com': EMAIL,
    "anna\uff20example\uff0ecom": EMAIL,
    "anna@example.com,bob@example.com": f"{EMAIL},{EMAIL}",
    "follow @anna, meet @ 5": "follow @anna, meet @ 5",
    "call +44 (0)20 7946-0018 today": f"call {PHONE} today",
    "call (555) 123-4567": f"call {PHONE}",
    "555.123.4567": PHONE,
    "0049/30/1234567": PHONE,
    "tel:020\u00a07946\u00a00018": f"tel:{PHONE}",
    "\uff15\uff15\uff15\uff11\uff12\uff13\uff14\uff15": PHONE,
    "٠١٢٣٤٥٦٧٨٩": PHONE,
    "my card is 4111 1111 1111 1111": f"my card is {CARD}",
    "4111-1111-1111-1111 12/27 123": CARD,
    "4111_1111_1111_1111": CARD,
    "4111,1111,1111,1111": CARD,
    "378282246310005": CARD,
    "6011000990139424!": f"{CARD}!",
    "4111 1111 1111 1112": NUMBER,
    "order 1234567": f"order {PHONE}",
    "DE89 3704 0044 0532 0130 00": f"DE{NUMBER}",
    "order 123456 from 2026-11-23": "order 123456 from 2026-11-23",
    "on 23.11.2026 or 11/23/2026": "on 23.11.2026 or 11/23/2026",
    "not a date: 2026-13-23": f"not a date: {PHONE}",
    "2 shirts, size 42, £19.99": "2 shirts, size 42, £19.99",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.items())
def test_examples(text: str, expected: str) -> None:
    """What goes, what is written in its place, and what stays."""
    assert redact(text) == expected


def longest_number(text: str) -> int:
    """Digits of the longest number, with up to three blanks, dots, hyphens, slashes or brackets between two digits."""
    runs = re.findall(r"\d(?:[\s.()/\-]{0,3}\d)*", text)
    return max((sum(map(str.isdecimal, run)) for run in runs), default=0)


@given(st.emails(), st.text(max_size=30), st.text(max_size=30))
@example("0@a.com", "", "")
def test_addresses(address: str, before: str, after: str) -> None:
    """An address is found whatever stands around it."""
    redacted = redact(f"{before} {address} {after}")
    assume(address not in f"{before} {after}")
    assert address not in redacted


def luhn(digits: str) -> str:
    """The digits with the last one that Luhn's formula gives them."""
    doubled = [int(d) * (2 if place % 2 == 0 else 1) for place, d in enumerate(reversed(digits))]
    return digits + str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


@given(st.text("0123456789", min_size=12, max_size=18).map(luhn), st.data())
def test_cards(number: str, data: st.DataObject) -> None:
    """A card's number is found with anything but letters between its digits."""
    between = st.text(st.characters(categories=["P", "S", "Z", "Cc", "Cf"]), max_size=3)
    typed = "".join(data.draw(between) + digit for digit in number).strip("@")
    assume("@" not in typed)
    assert not re.search(r"\d", redact(f"pay {typed}now"))


@given(
    st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=1, max_size=8),
    st.data(),
    st.sampled_from(["", "+", "00", "("]),
)
def test_phones(groups: list[str], data: st.DataObject, prefix: str) -> None:
    """A number of seven digits or more is found however it is grouped, unless it is a date."""
    assume(sum(map(len, groups)) >= 7)
    assume(len(groups) != 3)  # a date has three
    separators = st.sampled_from([" ", "-", ".", "/", ") ", " (", "\u2011", "\u00a0"])
    typed = prefix + "".join(group + data.draw(separators) for group in groups[:-1]) + groups[-1]
    assert not re.search(r"\d", redact(f"call {typed}, please"))


@given(st.text(st.sampled_from("0123456789 .-/()abc@\n")))
def test_no_number_is_left(text: str) -> None:
    """No long number stays in any text, and nothing is redacted twice."""
    redacted = redact(text)
    undated = re.sub(r"(19|20)\d\d[-./]\d\d?[-./]\d\d?|\d\d?[-./]\d\d?[-./](19|20)\d\d", "x", redacted)
    assert longest_number(undated) < 7
    assert redact(redacted) == redacted


@given(st.text())
def test_again(text: str) -> None:
    """Redacting twice changes nothing, and a text without digits and @ is left as it is."""
    redacted = redact(text)
    assert redact(redacted) == redacted
    if not re.search(r"[\d@\uff20\ufe6b]", text):
        assert redacted == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit", ["a", "1", "a.", "1 ", "a@", "@", '"', '"a', "a@b", "1-", "(", "+1", "1...", "a@b.", "@a.", "é", "1\u200b"]
)
def test_long_texts(unit: str) -> None:
    """A text of 300,000 characters is redacted before a quadratic expression would have begun."""
    redact(unit * (300_000 // len(unit)))
    redact("x" + unit * (300_000 // len(unit)) + "!")
