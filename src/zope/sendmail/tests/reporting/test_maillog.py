"""Every line of the log is one line, and nothing in it does anything to a terminal."""

from __future__ import annotations

import inspect
import io
import logging
import unittest
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.printablelog import PrintableFormatter, traceback_of

#: What a file, a relay or a caller may say: an order to a terminal, a forged line, marks that turn the rest around.
EVIL = "x\x1b]0;owned\x07\x1b[31m\r\n2030-01-01 ERROR forged\u202e\u2066\u2028\u200b\udcff\x00"
FORBIDDEN = set("\x1b\x07\r\n\u202e\u2066\u2028\u200b\udcff\x00")


def _evil(parameter: inspect.Parameter) -> Any:
    """A value of the kind that a function of the log takes."""
    kind = str(parameter.annotation)
    if "Reply" in kind:
        return Reply(Answer.REJECTED, EVIL, 550)
    if "OSError" in kind:
        return OSError(5, EVIL, EVIL)
    if "Exception" in kind or "BaseException" in kind:
        return RuntimeError(EVIL)
    if kind.partition(" ")[0] in ("int", "float"):
        return 1
    return EVIL


class Lines(unittest.TestCase):
    def test_of_every_kind_are_printable(self) -> None:
        """Whatever they tell of."""
        functions = [each for name, each in inspect.getmembers(maillog, inspect.isfunction) if not name.startswith("_")]
        functions = [each for each in functions if each.__module__ == maillog.__name__]
        self.assertGreater(len(functions), 20)
        for function in functions:
            with self.subTest(function.__name__):
                given = {each.name: _evil(each) for each in inspect.signature(function).parameters.values()}
                positional = [
                    given.pop(each.name)
                    for each in inspect.signature(function).parameters.values()
                    if each.kind is not inspect.Parameter.KEYWORD_ONLY
                ]
                with self.assertLogs(level="DEBUG") as logs:
                    function(*positional, **given)
                for record in logs.records:
                    self.assertTrue(FORBIDDEN.isdisjoint(record.getMessage()), record.getMessage())
                    written = logging.Formatter().format(record)
                    self.assertTrue((FORBIDDEN - {"\n"}).isdisjoint(written), written)
                    self.assertNotRegex(written, "(?m)^2030")

    def test_name_where_they_are_made(self) -> None:
        """As a logging configuration may want to show it."""
        with self.assertLogs("QueueProcessorThread", "INFO") as logs:
            maillog.relay_up("relay:25")
        self.assertEqual((logs.records[0].module, logs.records[0].funcName), ("maillog", "relay_up"))


class Tracebacks(unittest.TestCase):
    def test_are_printable(self) -> None:
        """Of an error, its cause and its notes; they are still read as tracebacks."""
        try:
            try:
                raise OSError(5, EVIL, EVIL)
            except OSError as cause:
                cause.add_note(EVIL)
                raise ValueError(f"first\n{EVIL}\nlast") from cause
        except ValueError as error:
            text = traceback_of(error)
        self.assertTrue((FORBIDDEN - {"\n"}).isdisjoint(text), text)
        self.assertNotRegex(text, "(?m)^2030|^last")
        self.assertRegex(text, '(?m)^  File ".*", line [0-9]+, in test_are_printable$')
        self.assertIn("\nThe above exception was the direct cause of the following exception:\n", text)
        self.assertIn("\nValueError: first\n    x", text)

    def test_of_any_logger_of_a_command_are_printable(self) -> None:
        """The formatter of the commands sees to it, whatever the logger, and whatever its words."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
        log = logging.getLogger("another.package")
        log.addHandler(handler)
        self.addCleanup(log.removeHandler, handler)
        try:
            raise RuntimeError(EVIL)
        except RuntimeError:
            log.exception(EVIL)
        self.assertTrue((FORBIDDEN - {"\n"}).isdisjoint(stream.getvalue()), stream.getvalue())
        self.assertNotRegex(stream.getvalue(), "(?m)^2030")
        self.assertIn("RuntimeError: x", stream.getvalue())


class PrintableText(unittest.TestCase):
    def test_has_nothing_that_is_not_seen(self) -> None:
        """Controls, marks of direction, joiners, fillers, tags, halves of characters; blanks stand in their place."""
        for (
            character
        ) in "\x00\x1b\x7f\x9b\xad\u061c\u200b\u200d\u200e\u202a\u2028\u2060\u2066\u3164\ufeff\ud800\U000e0041":
            self.assertEqual(printable(f"a{character}{character}b"), "a b", hex(ord(character)))

    def test_keeps_what_people_write(self) -> None:
        """In any script."""
        for text in ("zwölf", "नमस्ते", "日本語", "שלום", "🙂", "a\xa0b", "e\u0301"):
            self.assertEqual(printable(text), text)
