"""A program for the other release, run with that release's Python: ``python -I older.py commit|drain|names|zcml ...``.

Uses only what both releases have, and nothing of this checkout.  Writes what it knows to standard output, a line each.
"""

from __future__ import annotations

import inspect
import json
import logging
import signal
import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

MODULES = "interfaces", "delivery", "mailer", "queue", "maildir", "vocabulary", "zcml"


def commit(path: str, prefix: str, count: int, group: int) -> None:
    """Commit `count` mails, `group` in a transaction."""
    import transaction

    from zope.sendmail.delivery import QueuedMailDelivery

    delivery = QueuedMailDelivery(path)
    for number in range(count):
        delivery.send("sender@example.org", [f"{prefix}-{number}@example.org"], f"Subject: {prefix} {number}\n\nText\n")
        if (number + 1) % group == 0:
            transaction.commit()
    transaction.commit()


def drain(path: str, port: int, *, forever: bool) -> None:
    """Drain the queue once, or until SIGTERM."""
    from zope.sendmail.mailer import SMTPMailer
    from zope.sendmail.queue import QueueProcessorThread

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    processor = QueueProcessorThread(0.05)
    processor.setQueuePath(path)
    processor.setMailer(SMTPMailer("127.0.0.1", port))
    signal.signal(signal.SIGTERM, lambda *_: setattr(processor, "_stopped", True))
    print("ready", flush=True)  # noqa: T201 - what the test reads
    while not processor._stopped:
        try:
            processor.run(forever)
        except FileNotFoundError:  # fault A7: another processor was faster
            continue
        if not forever:
            break


def names() -> dict[str, dict[str, Any]]:
    """What each module defines: functions and classes with the names of their arguments, and what classes have."""
    found: dict[str, dict[str, Any]] = {}
    for module in MODULES:
        loaded = import_module(f"zope.sendmail.{module}")
        mine = {name: value for name, value in vars(loaded).items() if not name.startswith("__")}
        found[module] = {
            name: describe(value)
            for name, value in mine.items()
            if getattr(value, "__module__", "") == loaded.__name__ and not isinstance(value, ModuleType)
        }
    return found


def describe(value: Any) -> dict[str, Any]:
    """Arguments and, of a class or an interface, members."""
    described: dict[str, Any] = {"arguments": arguments(value), "members": {}, "optional": []}
    if inspect.isclass(value):
        described["members"] = {
            name: arguments(member) for name, member in vars(value).items() if not name.startswith("__")
        }
    elif hasattr(value, "names"):
        described["members"] = dict.fromkeys(value.names(all=True))
        described["optional"] = [name for name in value.names(all=True) if not getattr(value[name], "required", True)]
    return described


def arguments(value: Any) -> list[str] | None:
    """Their names, without self."""
    try:
        return [name for name in inspect.signature(value).parameters if name != "self"]
    except (TypeError, ValueError):
        return None


def configured(*directives: str) -> list[list[str]]:
    """What the directives register: names and attributes of mailers and deliveries, for each; or the class of error."""
    from zope.component import getUtilitiesFor
    from zope.component.testing import tearDown
    from zope.configuration import xmlconfig
    from zope.security.proxy import removeSecurityProxy

    from zope.sendmail.interfaces import IMailDelivery, IMailer

    site = """<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">
        <include package="zope.component" file="meta.zcml" />
        <include package="zope.security" file="meta.zcml" />
        <include package="zope.sendmail" file="meta.zcml" />
        %s</configure>"""
    found = []
    for each in directives:
        tearDown()
        try:
            xmlconfig.string(site % each)
        except Exception as error:
            # An action's error is wrapped, a directive's is not; both are caught by the same name.
            found.append([type(error).__name__.replace("ExecutionError", "Error")])
            continue
        told = []
        for name, mailer in getUtilitiesFor(IMailer):
            told.append(f"{name}: " + attributes(mailer, *_RELAY, "timeout"))
        for name, delivery in getUtilitiesFor(IMailDelivery):
            if not name:  # since 8.0: it finds one of the others
                continue
            bare = removeSecurityProxy(delivery)
            protected = "" if bare is delivery else "protected "
            told.append(f"{name}: {protected}{type(bare).__name__} {attributes(bare, 'queuePath')}")
        found.append(sorted(told))
    tearDown()
    return found


def console(*calls: str) -> list[str]:
    """What ``zope-sendmail`` makes of each of these command lines: its attributes, or that it refuses."""
    from zope.sendmail.queue import ConsoleApp

    found = []
    for words in calls:
        try:
            app = ConsoleApp(["zope-sendmail", *words.split()], verbose=False)
        except SystemExit:
            found.append("refused")
        else:
            found.append(attributes(app, *_RELAY, "queue_path", "daemon", "interval"))
    return found


_RELAY = "hostname", "port", "username", "password", "no_tls", "force_tls"


def attributes(thing: Any, *names: str) -> str:
    """Numbers as numbers: a port was text as well; an empty name is none."""
    values: dict[str, Any] = {name: getattr(thing, name) or None for name in names if hasattr(thing, name)}
    return ", ".join(
        f"{name}={float(value) if name in ('port', 'timeout', 'interval') else value}"
        for name, value in sorted(values.items())
    )


def main(verb: str, *rest: str) -> None:
    if verb == "commit":
        commit(rest[0], rest[1], int(rest[2]), int(rest[3]))
    elif verb in ("drain", "once"):
        drain(rest[0], int(rest[1]), forever=verb == "drain")
    elif verb in ("zcml", "console"):
        print(json.dumps({"zcml": configured, "console": console}[verb](*rest)))  # noqa: T201 - what the test reads
    else:
        print(json.dumps({"version": version("zope.sendmail"), "modules": names()}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(*sys.argv[1:])
