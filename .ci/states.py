"""docs/states.svg: the states of a mail, drawn from the tables and rules of zope.sendmail.lifecycle.

What operators can do is the table in `lifecycle.states`; what an attempt makes of a mail is asked of `lifecycle.retry`.
``python .ci/states.py`` draws it; bin/check compares it with what would be drawn now.
"""

import sys
from collections import defaultdict
from html import escape
from pathlib import Path

from zope.sendmail.errors import NotPossible
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule, judge
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.message.envelope import Envelope

HERE = Path(__file__).resolve().parent.parent
PICTURE = HERE / "docs" / "states.svg"

WIDTH, HEIGHT = 980, 460
BOX = 150, 64
#: Where each state stands; "gone" is no state, but where an operator removes a mail to.
PLACES = {
    "staged": (90, 60), "scheduled": (360, 60), "ready": (360, 210), "sending": (620, 210), "sent": (890, 60),
    "rejected": (890, 390), "deferred": (620, 390), "held": (360, 390), "gone": (90, 210),
}  # fmt: skip
#: What is no decision of a rule: the transaction, the clock, a worker. internals.rst has the steps.
ALWAYS = {
    ("staged", "ready"): "commit",
    ("staged", "scheduled"): "commit, for later",
    ("staged", "gone"): "abort",
    ("scheduled", "ready"): "its time",
    ("ready", "sending"): "claim",
    ("deferred", "sending"): "claim",
    ("sending", "held"): "three deaths",
    ("sending", "ready"): "release",
}


def by_attempts() -> dict[tuple[str, str], set[str]]:
    """Return what becomes of a mail that is being sent, by what the relay says."""
    envelope = Envelope("a@example.org", ("b@example.org",))
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for answer in Answer:
        for policy in OnUnknown:
            for lifetime, late in ((1e9, ""), (0.0, ", too old")):
                schedule = Schedule(lifetime=lifetime, on_unknown=policy)
                outcome = Outcome.same("relay", envelope.recipients, Reply(answer, "words"))
                state = judge(Record(State.SENDING), envelope, outcome, schedule, now=1.0, chance=0.5).state
                is_final = answer is Answer.REJECTED or state is not State.REJECTED
                found["sending", str(state)].add(str(answer) if is_final else f"{answer}{late}")
    return found


def by_operators(state: State) -> list[str]:
    """Return what operators can do to a mail in this state: the table of states."""
    return [str(action) for action in Action if is_possible(state, action)]


def is_possible(state: State, action: Action) -> bool:
    """Return whether the table has this action for this state."""
    try:
        after(state, action, "")
    except NotPossible:
        return False
    return True


def drawn() -> str:
    """Return the picture."""
    arrows = {pair: {word} for pair, word in ALWAYS.items()}
    for pair, words in by_attempts().items():
        arrows[pair] = arrows.get(pair, set()) | words
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' role="img" font-family="system-ui, sans-serif">',
        "<title>The states of a mail: by transactions, processors and relays; in each, what operators can do</title>",
        '<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#5b7086"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfaf7"/>',
    ]
    for pair in sorted(arrows):
        parts += arrow(pair, arrows[pair], (pair[1], pair[0]) in arrows)
    for name, (x, y) in PLACES.items():
        parts += box(name, x, y, by_operators(State(name)) if name != "gone" else [])
    return "\n".join([*parts, "</svg>", ""])


def arrow(pair: tuple[str, str], words: set[str], is_mutual: bool) -> list[str]:  # noqa: FBT001 - a private function
    """Return an arrow between two boxes with its words; one of two runs beside the other."""
    (x1, y1), (x2, y2) = PLACES[pair[0]], PLACES[pair[1]]
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    across = ((y2 - y1) / length, -(x2 - x1) / length)
    aside = 12 if is_mutual else 0
    x1, x2 = x1 + across[0] * aside, x2 + across[0] * aside
    y1, y2 = y1 + across[1] * aside, y2 + across[1] * aside
    start, end = edge(x1, y1, x2, y2), edge(x2, y2, x1, y1)
    x, y = start[0] + (end[0] - start[0]) * 0.5, start[1] + (end[1] - start[1]) * 0.5
    lines = sorted(words)
    anchor, shift = ("middle", 0) if x1 != x2 or not aside else ("start", 6) if y2 > y1 else ("end", -6)
    return [
        f'<path d="M{start[0]:.0f},{start[1]:.0f} L{end[0]:.0f},{end[1]:.0f}" stroke="#5b7086" fill="none"'
        ' marker-end="url(#tip)"/>',
        *(
            f'<text x="{x + shift:.0f}" y="{y + across[1] * 9 + 4 + 13 * (number - (len(lines) - 1) / 2):.0f}"'
            f' text-anchor="{anchor}" font-size="11" fill="#1c2733" stroke="#fbfaf7" stroke-width="3"'
            f' paint-order="stroke">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ),
    ]


def edge(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float]:
    """Return where the line to the second point leaves the box around the first."""
    across, down = x2 - x1, y2 - y1
    scale = min(
        BOX[0] / 2 / abs(across) if across else 9.0,
        BOX[1] / 2 / abs(down) if down else 9.0,
    )
    return x1 + across * scale, y1 + down * scale


def box(name: str, x: int, y: int, verbs: list[str]) -> list[str]:
    """Return the box of a state, with what operators can do there."""
    fill = "#fbfaf7" if name == "gone" else "#e8eef4"
    top = y - BOX[1] // 2
    lines = [" ".join(verbs[:3]), " ".join(verbs[3:])]
    return [
        f'<rect x="{x - BOX[0] // 2}" y="{top}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="{fill}"'
        ' stroke="#5b7086"/>',
        f'<text x="{x}" y="{top + (22 if verbs else 37)}" text-anchor="middle" font-size="15"'
        f' fill="#1c2733">{name}</text>',
        *(
            f'<text x="{x}" y="{top + 40 + 15 * number}" text-anchor="middle" font-size="11"'
            f' fill="#5b7086">{line}</text>'
            for number, line in enumerate(lines)
            if line
        ),
    ]


def is_current() -> bool:
    """Say whether the picture shows the states of today."""
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn():
        return True
    print("docs/states.svg does not show the states of today: run python .ci/states.py", file=sys.stderr)
    return False


def main() -> int:
    """Draw the picture; return 0."""
    PICTURE.write_text(drawn(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
