"""The trace of a mail, as W3C Trace Context has it."""

from __future__ import annotations

import unittest

from zope.sendmail.message.tracecontext import parent_and_state, trace_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class ATrace(unittest.TestCase):
    def test_comes_back_as_it_was(self) -> None:
        """With its state, which may have blanks in it, or without one."""
        for state in ("", "vendor=value", "a=b c,d=e", "x" * 512):
            self.assertEqual(parent_and_state(trace_context(PARENT, state)), (PARENT, state), state)
        self.assertEqual(trace_context(PARENT, " a=b "), f"{PARENT} a=b")
        self.assertEqual(trace_context(PARENT), PARENT)

    def test_with_a_state_that_cannot_be_has_none(self) -> None:
        """Too long, or not in ASCII: the trace itself goes on."""
        for state in ("x" * 513, "\u00e9", "a\nb", " "):
            self.assertEqual(parent_and_state(f"{PARENT} {state}"), (PARENT, ""), state)

    def test_that_is_none_is_left_out(self) -> None:
        """Version ff, zeros, large letters, anything before or behind it (3.2.2)."""
        for parent in (
            "", "x", PARENT.replace("00-", "ff-"), PARENT.upper(), f"x{PARENT}", f"{PARENT}x", f" {PARENT}",
            f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        ):  # fmt: skip
            self.assertEqual(trace_context(parent, "a=b"), "", parent)
            self.assertEqual(parent_and_state(f"{parent} a=b"), ("", ""), parent)


if __name__ == "__main__":
    unittest.main()
