"""SASLprep: names and passwords that look alike become the same text.  Pure.

RFC 4013, a profile of stringprep (RFC 3454) over Unicode 3.2.  Prepared as a query: characters that Unicode 3.2 does
not know are let through, as RFC 3454, 7 asks of the side that does not store the text.
"""

from __future__ import annotations

import stringprep
import unicodedata

#: What must not be in the result (RFC 4013, 2.3).
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """Return `text`, prepared.  Raises `ValueError` that does not tell it, because it may be a password."""
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each for each in text if not stringprep.in_table_b1(each)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(is_in_table(each) for each in prepared for is_in_table in _PROHIBITED):
        raise ValueError("it has a character that RFC 4013 forbids, such as a control character")
    _check_directions(prepared)
    return prepared


def _check_directions(text: str) -> None:
    """Raise `ValueError` unless text from right to left begins and ends so, and has no other letters (RFC 3454, 6)."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends or any(map(stringprep.in_table_d2, text)):
        raise ValueError("it mixes letters from right to left with others in a way that RFC 4013 forbids")
