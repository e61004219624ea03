"""Takes e-mail addresses, phone numbers and card numbers out of a text.

Rather too much than too little: what is lost here is a number in a record of questions; what is missed is somebody's
address. So every number of seven digits or more goes, order numbers and prices included; what stays is dates.

Every expression reads a text once: a run of characters is entered only at its beginning and never given back
(possessive quantifiers), so that no text, however it is made, takes longer than its length.

Not found: addresses that are spelt out ("anna at example dot com"), numbers in words, names, and postal addresses.
"""

import re
from itertools import accumulate

EMAIL, PHONE, CARD, NUMBER = "[email]", "[phone]", "[card]", "[number]"

# Most texts have none of these, and are done with.
_SUSPECT = re.compile(r"[\d@\uff20\ufe6b]")

_LOCAL = r"\w.!#$%&'*+/=?^`{|}~\-"
_DOMAIN = r"[ ]?[@\uff20\ufe6b][ ]?[\w\-]++(?:[.\u3002\uff0e][\w\-]++)+"
_EMAIL = re.compile(
    # The look-behind enters a run of characters at its first one alone.
    rf"""(?:(?<![{_LOCAL}])[{_LOCAL}]++|"[^"@]*+")"""
    rf"{_DOMAIN}"
    # Another one that follows without a gap goes with it; on its own it would be found only the next time.
    rf"(?:[{_LOCAL}]*+{_DOMAIN})*+"
)
# Digits of any script with up to three characters between them that are no letters: how card numbers are typed.
_SPREAD = re.compile(r"\d(?:[\W_]{0,3}+\d)*+")
# Digits as phone numbers are written: "+44 (0)20 7946-0018", "0049/30/1234567".
_WRITTEN = re.compile(r"[+(\uff0b]{0,2}+\d(?:[\s.()/\u2010-\u2015\u2212\uff08\uff09\-]{0,3}+\d)*+")
_DATE = re.compile(
    r"(?:19|20)\d\d([-./])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-./])(?:0?[1-9]|[12]\d|3[01])\2(?:19|20)\d\d",
    re.ASCII,
)
# Digits of the shortest and the longest number of each kind.
_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(7, 16)
# What a digit counts for in Luhn's sum at every second place.
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def redact(text: str) -> str:
    """The text with `[email]`, `[phone]`, `[card]` and `[number]` in the place of what may lead to a person.

    A card number is 13 to 19 digits whose last one is right by Luhn's formula, whatever stands between them; all digits
    beside it go with it. A phone number is 7 digits or more as phone numbers are written; from 16 on it is called a
    number. Redacting twice changes nothing.
    """
    if _SUSPECT.search(text) is None:
        return text
    text = _EMAIL.sub(EMAIL, text)
    text = _SPREAD.sub(lambda found: CARD if _holds_card(found[0]) else found[0], text)
    return _WRITTEN.sub(lambda found: _name(found[0]), text)


def _name(number: str) -> str:
    """What to write in the place of a number."""
    count = sum(map(str.isdecimal, number))
    if count < _PHONE_DIGITS.start or _DATE.fullmatch(number):
        return number
    return PHONE if count < _PHONE_DIGITS.stop else NUMBER


def _holds_card(number: str) -> bool:
    """Whether a card number begins with one of the groups of digits, and ends with one of them."""
    digits = [int(character) for character in number if character.isdecimal()]
    if len(digits) < _CARD_DIGITS.start:
        return False
    edges = list(accumulate(map(len, re.findall(r"\d+", number)), initial=0))
    # Luhn's sums of all digits up to each, with those at even places doubled, and those at odd ones: the sum of any
    # stretch is the difference of two, so that many digits cost no more than their count.
    at_even, at_odd = (
        list(accumulate((_DOUBLED[d] if place % 2 == doubled else d for place, d in enumerate(digits)), initial=0))
        for doubled in (0, 1)
    )
    known = set(edges)
    for start in edges:
        for end in range(start + _CARD_DIGITS.start, min(start + _CARD_DIGITS.stop, len(digits) + 1)):
            sums = at_odd if end % 2 else at_even  # the last digit counts once, and the one before it twice
            if end in known and (sums[end] - sums[start]) % 10 == 0:
                return True
    return False
