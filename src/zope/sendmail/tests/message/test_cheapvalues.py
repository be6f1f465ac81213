"""`zope.sendmail.message.cheapvalues`."""

from __future__ import annotations

import copy
import pickle
import unittest
from dataclasses import replace

from zope.sendmail.message.envelope import Envelope


class Values(unittest.TestCase):
    ONE = Envelope("a@example.org", ("b@example.org",))

    def test_are_equal_and_have_one_hash_if_their_fields_are(self) -> None:
        other = Envelope("a@example.org", ("b@example.org",))
        self.assertEqual((self.ONE, hash(self.ONE)), (other, hash(other)))
        self.assertNotEqual(self.ONE, replace(other, sender=""))

    def test_have_no_other_attributes(self) -> None:
        with self.assertRaises(AttributeError):
            object.__setattr__(self.ONE, "size", 5)

    def test_are_copied_and_pickled(self) -> None:
        for copied in (copy.copy(self.ONE), copy.deepcopy(self.ONE), pickle.loads(pickle.dumps(self.ONE))):
            self.assertEqual(copied, self.ONE)
