"""Long trials: thousands of mails while processes are killed, or while the relay fails in every way.

``endurance.py kill`` commits mails, drains them with several processes, and kills one of them with -9 again and
again. ``endurance.py soak`` commits mails for minutes, while the relay refuses, defers, drops, hangs up and goes
away at random. Both end with a table of what was committed, delivered, rejected, unknown and duplicate, and with
exit status 0 only if nothing was lost and every duplicate is a recorded unknown.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

import transaction
from sink import Delayed

from zope.sendmail.config.settings import Keep, Timeouts
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.relay import Drop, Relay

_UNKNOWN = re.compile(r"to <([^>]+)>: unknown")


class Processes:
    """Processes that drain one queue; what they say is collected in files."""

    def __init__(self, directory: str, path: str, port: int) -> None:
        self._directory, self._path, self._port = directory, path, port
        self._started = 0
        self.alive: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """One more."""
        self._started += 1
        output = open(os.path.join(self._directory, f"log-{self._started}"), "wb")  # noqa: SIM115 - the process has it
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, __file__, "drain", self._path, str(self._port)]
        self.alive.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
        output.close()

    def kill(self, number: int) -> None:
        """kill -9."""
        process = self.alive.pop(number)
        process.kill()
        process.wait()

    def end(self) -> list[int]:
        """SIGTERM for all; their exit statuses."""
        for process in self.alive:
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self.alive]

    def said(self) -> str:
        """Everything they said."""
        text = []
        for number in range(1, self._started + 1):
            with open(os.path.join(self._directory, f"log-{number}"), encoding="utf-8", errors="replace") as stream:
                text.append(stream.read())
        return "".join(text)


def drain(path: str, port: int) -> None:
    """Drain the queue until SIGTERM, with a schedule for impatient people."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    schedule = Schedule(first=1.0, maximum=5.0)
    processor = QueueProcessorThread(interval=1.0, schedule=schedule, concurrency=2)
    timeouts = Timeouts(connect=5.0, command=5.0, data=5.0, block=5.0, final=5.0, quit=1.0)
    processor.setMailer(SMTPMailer("127.0.0.1", port, timeouts=timeouts, keep=Keep(mails=200)))
    processor.setQueuePath(path)
    signal.signal(signal.SIGTERM, lambda *_: processor.stop())
    processor.run()


def commit(path: str, names: list[str], group: int) -> None:
    """Commit a mail to each of `names`, `group` in a transaction."""
    delivery = QueuedMailDelivery(path)
    for number, name in enumerate(names, 1):
        delivery.send("sender@example.org", [f"{name}@example.org"], f"Message-Id: <{name}@x>\n\n{name}\n" * 2)
        if number % group == 0:
            transaction.commit()
    transaction.commit()


def kill(arguments: argparse.Namespace) -> int:
    """Many mails, many kills."""
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory, Relay() as relay:
        path = os.path.join(directory, "queue")
        names = [f"m{number}" for number in range(arguments.mails)]
        commit(path, names, 100)
        port = Delayed(relay.port, arguments.delay).port if arguments.delay else relay.port
        processes = Processes(directory, path, port)
        for _ in range(arguments.processes):
            processes.start()
        step = arguments.mails / (arguments.kills + 1)
        for number in range(arguments.kills):
            wanted = int(step * number + chance.random() * step)
            relay.wait_until(lambda: len(relay.mails) >= wanted, 300)  # noqa: B023 - called at once
            processes.kill(chance.randrange(len(processes.alive)))
            processes.start()
            progress(f"{number + 1} kills, {len(relay.mails)} mails")
        return finish(path, processes, relay, names)


def soak(arguments: argparse.Namespace) -> int:
    """Mails for minutes, through a relay that fails at random."""
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory, Relay() as relay:
        path = os.path.join(directory, "queue")
        processes = Processes(directory, path, relay.port)
        for _ in range(arguments.processes):
            processes.start()
        names: list[str] = []
        end = time.monotonic() + arguments.minutes * 60
        while time.monotonic() < end:
            batch = [f"m{len(names) + number}" for number in range(chance.choice((1, 1, 1, 5, 30)))]
            names += batch
            commit(path, batch, len(batch))
            misbehave(relay, chance, processes)
            progress(f"{len(names)} committed, {len(relay.mails)} delivered")
            threading.Event().wait(chance.random() * 0.4)
        return finish(path, processes, relay, names)


def misbehave(relay: Relay, chance: random.Random, processes: Processes) -> None:
    """Change what the relay does, now and then."""
    what = chance.random()
    if what < 0.30:
        point = chance.choice(("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT", "QUIT", "RSET"))
        # Within the body a relay that speaks and goes on would be one that answers twice; it hangs up.
        ways = [Drop()] if point == "BODY" else [Drop(), "421 4.3.2 going", "451 4.3.0 later", "nonsense"]
        relay.on(point, chance.choice(ways), nth=1)
    elif what < 0.40:
        relay.on("RCPT", "550 5.1.1 no such user", about=f"{chance.randrange(10)}@", nth=1)
    elif what < 0.45:
        relay.forgive()
        relay.hang_up()
    elif what < 0.48:
        relay.stop()
        threading.Event().wait(chance.random() * 3)
        relay.start()
    elif what < 0.49:
        processes.kill(chance.randrange(len(processes.alive)))
        processes.start()


def finish(path: str, processes: Processes, relay: Relay, names: list[str]) -> int:
    """Let everything come to its end, and compare."""
    relay.forgive()
    queue = MaildirQueue(path)
    deadline = time.monotonic() + 180
    while set(queue.admin.count()) - {State.REJECTED, State.HELD} and time.monotonic() < deadline:
        queue.wait(0.5)
    statuses = processes.end()
    counts = dict(queue.admin.count())
    rejected = {mail.message_id.partition("@")[0] for mail in queue.admin.mails([State.REJECTED, State.HELD])}
    queue.close()
    said = processes.said()
    delivered = Counter(who.partition("@")[0] for mail in relay.mails for who in mail.recipients)
    unknown = {who.partition("@")[0] for who in _UNKNOWN.findall(said)}
    twice = {name for name, count in delivered.items() if count > 1}
    lost = set(names) - set(delivered) - rejected
    silent = twice - unknown
    rows = {
        "committed": len(names), "delivered": len(delivered), "rejected or held": len(rejected),
        "lost": len(lost), "unknown recorded": len(unknown), "delivered twice or more": len(twice),
        "... without a recorded unknown": len(silent), "strangers": len(set(delivered) - set(names)),
        "tracebacks": said.count("Traceback"), "left in the queue": str(counts), "exit statuses": str(statuses),
    }  # fmt: skip
    with contextlib.suppress(OSError):
        progress("")
    for name, value in rows.items():
        print(f"{name:32} {value}")
    for name in sorted(lost | silent)[:5]:
        print(f"--- {name}", *(line for line in said.splitlines() if f"<{name}@" in line), sep="\n")
    return 1 if lost or silent or set(delivered) - set(names) or set(statuses) - {0, -signal.SIGTERM} else 0


def progress(text: str) -> None:
    """One line that rewrites itself, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--directory", help="where the queue is made")
    commands = parser.add_subparsers(dest="command", required=True)
    killing = commands.add_parser("kill")
    killing.add_argument("--mails", type=int, default=10_000)
    killing.add_argument("--kills", type=int, default=500)
    killing.add_argument("--delay", type=float, default=0.0, help="seconds of a round trip to the relay")
    soaking = commands.add_parser("soak")
    soaking.add_argument("--minutes", type=float, default=30)
    draining = commands.add_parser("drain")
    draining.add_argument("path")
    draining.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.command == "drain":
        drain(arguments.path, arguments.port)
        return 0
    return kill(arguments) if arguments.command == "kill" else soak(arguments)


if __name__ == "__main__":
    sys.exit(main())
