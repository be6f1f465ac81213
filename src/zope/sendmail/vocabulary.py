"""Vocabularies for forms: which mail deliveries there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zope.component import getUtilitiesFor, getUtility
from zope.interface import Interface, implementer, provider
from zope.interface.interfaces import IInterface
from zope.schema.interfaces import ITokenizedTerm, IVocabularyFactory, IVocabularyTokenized
from zope.schema.vocabulary import SimpleTerm, SimpleVocabulary

from zope.sendmail.interfaces import IDefaultMailDelivery, IMailDelivery


@provider(IVocabularyFactory)
def MailDeliveryNames(context: object = None) -> SimpleVocabulary:  # noqa: ARG001 - a factory gets one
    """Return the names of all `IMailDelivery` utilities, sorted; `context` makes no difference."""
    names = sorted(name for name, delivery in getUtilitiesFor(IMailDelivery) if _is_listed(delivery))
    return SimpleVocabulary([SimpleTerm(name) for name in names])


def _is_listed(utility: object) -> bool:
    """Return whether forms offer a utility: one that only finds another one would be offered twice."""
    return not IDefaultMailDelivery.providedBy(utility)


# BBB: zope.sendmail 3.5 had the two classes below; vocabularies of other packages are made with them.


@implementer(ITokenizedTerm)
class UtilityTerm:
    """A utility, or its name, under its name as token."""

    def __init__(self, value: Any, token: str) -> None:
        self.value = value
        self.token = token

    def __repr__(self) -> str:
        return f"<UtilityTerm {self.token!r}: {self.value!r}>"


@implementer(IVocabularyTokenized)
@provider(IVocabularyFactory)
class UtilityVocabulary:
    """The utilities for `interface`, by name; with `nameOnly` the values are the names.

    Subclasses set the two attributes; keywords win.  `interface` may be the dotted name under which an
    interface is registered.  The vocabulary shows what was registered when it was made.
    """

    # mypy-zope takes zope.schema to say that these methods return None, hence the ignored overrides.

    interface: Any = Interface
    nameOnly = False

    def __init__(self, context: object, **kw: Any) -> None:
        self.nameOnly = bool(kw.get("nameOnly", self.nameOnly))
        self.interface = kw.get("interface", self.interface)
        if isinstance(self.interface, str):
            self.interface = getUtility(IInterface, self.interface)
        every = sorted(getUtilitiesFor(self.interface, context), key=lambda pair: pair[0])
        found = [(name, utility) for name, utility in every if _is_listed(utility)]
        self._terms = {name: UtilityTerm(name if self.nameOnly else utility, name) for name, utility in found}

    def __contains__(self, value: object) -> bool:  # type: ignore[override]  # zope.schema says nothing about types
        return any(term.value == value for term in self)

    def getTerm(self, value: object) -> UtilityTerm:  # type: ignore[override]  # zope.schema says nothing about types
        """Return the term of a value, or raise `LookupError`."""
        for term in self:
            if term.value == value:
                return term
        raise LookupError(value)

    def getTermByToken(self, token: str) -> UtilityTerm:  # type: ignore[override]  # zope.schema says nothing about types
        """Return the term of a token, or raise `LookupError`."""
        return self._terms[token]

    def __iter__(self) -> Iterator[UtilityTerm]:  # type: ignore[override]  # zope.schema says nothing about types
        return iter(self._terms.values())

    def __len__(self) -> int:  # type: ignore[override]  # zope.schema says nothing about types
        return len(self._terms)
