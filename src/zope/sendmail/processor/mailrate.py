"""How many mails a second a relay takes, as its refusals tell.

After refusals nothing is sent for a moment that grows until a mail is taken again; what was taken between tells the
rate, which is kept from then on, and raised little by little up to where the relay refused.  Pure.
"""

from __future__ import annotations

from math import inf

#: Seconds for which nothing is sent after the second refusal in a row; longer by the factor after each further one.
#: The one after the third is as long: a limit of a second is over then, and is known the more exactly.
_PATIENT = 3
_HOLD, _HOLD_FACTOR, _HOLD_MOST = 0.5, 1.5, 300.0

#: After so many mails that were taken the rate is raised by the factor: by the second one as long as no rate is known
#: at which the relay refuses; else up to this part of that one, which is doubted after so many seconds.
_RAISE_AFTER, _RAISE, _RAISE_BLINDLY, _CEILING, _DOUBT = 10, 1.03, 1.2, 0.98, 300.0

#: A refusal at the known rate lowers it by this factor; two in a row to no less than the first part, more of them to no
#: less than the second.
_LOWER, _LEAST = 0.95, (0.8, 0.5)

#: Seconds within which what was taken tells the rate.
_RECENT = 60.0

#: From so many mails a second on there is no rate to be kept.
_UNLIMITED = 200.0


class MailRate:
    """How many mails a second a relay has shown to take."""

    def __init__(self) -> None:
        #: Mails a second, or None as long as there is no need for a rate.
        self.rate: float | None = None
        self._ceiling, self._ceiling_at = inf, -inf
        #: When the first mail was taken since the last refusal, and how many were.
        self._since, self._taken = -inf, 0.0
        self._to_raise = 0
        #: Refusals since a mail was taken, and the time of the last one.
        self.refusals, self._refused_at = 0, -inf
        self.hold = 0.0

    @property
    def is_usual(self) -> bool:
        """Whether there is no rate, and nothing was refused since a mail was taken."""
        return self.rate is None and not self.refusals and not self.hold

    def taken(self, begun: float, now: float, mails: int = 1) -> bool:
        """Note that a mail, or several, was taken that was begun then; return whether that ended a hold."""
        if self.hold > 0.0 and begun <= self._refused_at:  # one of those that went beside the refused ones
            self._taken += mails
            return False
        if self.hold > 0.0:
            self._learn(now)
            self._since, self._taken, self.refusals, self.hold = now, float(mails), 0, 0.0
            return True
        self.refusals = 0
        if not self._taken:
            self._since = now
        self._taken += mails
        if self.rate is not None:
            self._raise(now, mails)
        elif now - self._since > _RECENT:  # what was taken long ago counts less
            self._since, self._taken = (self._since + now) / 2, self._taken / 2
        return False

    def refused(self, begun: float, now: float) -> float:
        """Note a refusal; return for how many seconds nothing is to be sent from now on.

        Mails that were on their way side by side are refused for one reason, and are no series.
        """
        if begun <= self._refused_at and (self.refusals > 1 or self.rate is not None):
            return self._refused_at + self.hold - now
        self.refusals += 1
        self._refused_at, self._to_raise = now, 0
        if self.rate is not None and self.refusals == 1:
            if self._taken >= _RAISE_AFTER:  # else what was sent before the hold may be the cause
                self._ceiling, self._ceiling_at = self.rate, now
            self.rate *= _LOWER
            self.hold = min(1.0 / self.rate, _HOLD_MOST)
        elif self.refusals > 1:
            factor = 1.0 if self.refusals <= _PATIENT else _HOLD_FACTOR
            self.hold = min(max(_HOLD, self.hold * factor), _HOLD_MOST)
        return self.hold

    def _learn(self, now: float) -> None:
        """Tell the rate from what was taken: it was too much before the last refusal, and is not any more now."""
        seconds = (self._refused_at + now) / 2 - self._since
        found = self._taken / seconds if self._taken and seconds > 0.0 else inf
        if self.rate is None:
            self.rate = found if found < _UNLIMITED else None
        elif self.refusals > 1:  # the rate is far too high, the more so the longer the hold was
            self.rate = max(min(self.rate, found), self.rate * _LEAST[self.refusals > 2])

    def _raise(self, now: float, mails: int) -> None:
        self._to_raise += mails
        if self.rate is None or self._to_raise < _RAISE_AFTER:
            return
        self._to_raise = 0
        raised = self.rate * (_RAISE if self._ceiling < inf else _RAISE_BLINDLY)
        if raised <= self._ceiling * _CEILING:
            self.rate = raised
        elif now - self._ceiling_at > _DOUBT:
            self._ceiling, self._ceiling_at = self._ceiling * _RAISE_BLINDLY, now
        if self.rate >= _UNLIMITED:
            self.rate, self._ceiling = None, inf
