"""Vocabularies of mail deliveries and other utilities."""

from __future__ import annotations

import unittest

from zope.component import getGlobalSiteManager
from zope.component.interface import provideInterface
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject
from zope.schema.interfaces import ITokenizedTerm, IVocabularyFactory, IVocabularyTokenized
from zope.testing.cleanup import cleanUp

from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.vocabulary import MailDeliveryNames, UtilityTerm, UtilityVocabulary


class IColour(Interface):
    """Something to register."""


@implementer(IColour)
class Colour:
    """A thing."""


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        cleanUp()
        self.addCleanup(cleanUp)
        self.registry = getGlobalSiteManager()


class NamesOfDeliveries(Fixture):
    def test_are_sorted_and_complete(self) -> None:
        """All deliveries, whatever their class, by name."""
        for name in ("Mail", "Bulk", ""):
            self.registry.registerUtility(object(), IMailDelivery, name)
        self.assertEqual([term.value for term in MailDeliveryNames()], ["", "Bulk", "Mail"])

    def test_need_no_context(self) -> None:
        """Whatever a form passes as context makes no difference."""
        self.registry.registerUtility(object(), IMailDelivery, "Mail")
        self.assertIn("Mail", MailDeliveryNames(object()))

    def test_come_from_a_vocabulary_factory(self) -> None:
        """The function can be registered as it is."""
        self.assertTrue(IVocabularyFactory.providedBy(MailDeliveryNames))


class AUtilityVocabulary(Fixture):
    def setUp(self) -> None:
        super().setUp()
        self.red, self.blue = Colour(), Colour()
        self.registry.registerUtility(self.red, IColour, "red")
        self.registry.registerUtility(self.blue, IColour, "blue")
        self.registry.registerUtility(object(), IMailDelivery, "Mail")
        self.colours = UtilityVocabulary(None, interface=IColour)

    def test_holds_the_utilities_of_its_interface(self) -> None:
        """Utilities are its values, those of other interfaces are not."""
        self.assertIn(self.red, self.colours)
        self.assertNotIn(Colour(), self.colours)
        self.assertEqual(len(self.colours), 2)

    def test_is_sorted_by_name(self) -> None:
        """Terms come in the order of their names."""
        self.assertEqual([term.token for term in self.colours], ["blue", "red"])

    def test_finds_terms(self) -> None:
        """A term is found by its value and by its token."""
        self.assertEqual(self.colours.getTerm(self.blue).token, "blue")
        self.assertIs(self.colours.getTermByToken("red").value, self.red)

    def test_says_what_it_does_not_have(self) -> None:
        """An unknown value or token is a LookupError."""
        with self.assertRaises(LookupError):
            self.colours.getTerm("red")
        with self.assertRaises(LookupError):
            self.colours.getTermByToken("green")

    def test_may_hold_the_names(self) -> None:
        """With nameOnly the names are the values."""
        names = UtilityVocabulary(None, interface=IColour, nameOnly=True)
        self.assertIn("red", names)
        self.assertNotIn(self.red, names)

    def test_may_be_subclassed(self) -> None:
        """Subclasses say as attributes what they are about."""

        class Colours(UtilityVocabulary):
            interface = IColour
            nameOnly = True

        self.assertEqual([term.value for term in Colours(None)], ["blue", "red"])

    def test_may_name_its_interface(self) -> None:
        """A dotted name stands for a registered interface."""
        provideInterface("colours.IColour", IColour)
        self.assertIn(self.red, UtilityVocabulary(None, interface="colours.IColour"))

    def test_is_what_forms_expect(self) -> None:
        """Vocabulary, terms and factory provide zope.schema's interfaces."""
        verifyObject(IVocabularyTokenized, self.colours)
        verifyObject(ITokenizedTerm, UtilityTerm("value", "token"))
        self.assertTrue(IVocabularyFactory.providedBy(UtilityVocabulary))

    def test_terms_show_themselves(self) -> None:
        """A term's representation names token and value."""
        self.assertEqual(repr(UtilityTerm(1, "one")), "<UtilityTerm 'one': 1>")


if __name__ == "__main__":
    unittest.main()
