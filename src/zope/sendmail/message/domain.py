"""Domains with other letters than ASCII, as the net writes them.  Pure.

RFC 5890 (IDNA 2008); UTS 46, not transitional, as browsers do it: "straße" stays itself and does not become "strasse",
where another person may live.
"""

from __future__ import annotations

import re

import idna
import idna.uts46data  # now: a process that forks in the moment of a first import has its lock for ever

#: With the underscore, which hosts do not have, and some domains nevertheless.
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)


def ascii_domain(domain: str) -> str | None:
    """Return `domain` with an A-label in the place of each label that is not ASCII, which is all that is changed.

    :returns: None if there is no such form: a character that no domain may have, or a label that is empty or too long.
    """
    if domain.isascii():
        return domain
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
        labels = [_ascii_label(label) for label in mapped.removesuffix(".").split(".")]
    except UnicodeError:  # idna's errors are kin
        return None
    return ".".join(labels) if all(map(_LABEL.fullmatch, labels)) else None


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        return idna.alabel(label).decode("ascii")
    except idna.InvalidCodepointContext:
        raise
    except idna.InvalidCodepoint:
        # Registered before 2008, such as a heart: browsers go there.  What is not allowed, the mapping has refused.
        return "xn--" + label.encode("punycode").decode("ascii")
