"""The scene with several processes: they share a queue, one of them is killed in the middle, the rest finish.

The moment is chosen by what the catcher has: it takes a mail and withholds the answer, and the worker that waits for
that is killed.  So the queue cannot know whether the mail got through; it must say so, and lose no other.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, closing

import transaction

from zope.sendmail import startup
from zope.sendmail.demo.catcher import Caught
from zope.sendmail.demo.drainprocess import DrainProcess
from zope.sendmail.demo.ledger import Surprise
from zope.sendmail.demo.scenes import Act
from zope.sendmail.demo.shop import visit
from zope.sendmail.demo.stage import PATIENCE, until

PROCESSES = 3
MAILS = 150
FATAL = MAILS // 3

#: Seconds that the catcher takes for a mail, so that every process gets its share of them.
_LEISURE = 0.004


def shared_queue(act: Act) -> str:
    """Three processes share a queue, one is killed, and the rest finish."""
    stage, numbers = act.stage, range(1, PROCESSES + 1)
    if not startup.stop(PATIENCE):
        raise Surprise("The thread that drains the queue did not stop.")
    before = len(stage.catcher.caught())
    with ExitStack() as at_end:
        workers = [at_end.enter_context(closing(stage.worker(number))) for number in numbers]
        until(lambda: all(each.has_started() for each in workers), "not all processes have started")
        act.narrator.say(f"{listed(workers)} have loaded site.zcml too and drain the queue; this one commits.")
        unanswered, victim = kill_one(act, workers)
        survivors = [each for each in workers if each is not victim]
        stage.wait_for(act.account.committed, 2 * PATIENCE)
        end(survivors)
    explain(act, survivors, unanswered)
    shares = Counter(mail.port for mail in stage.catcher.caught(before))
    shown = [f"{each.pid} {shares[each.port]}{' (killed)' if each is victim else ''}" for each in workers]
    return f"All {MAILS} mails came. Deliveries: {', '.join(shown)}."


def kill_one(act: Act, workers: list[DrainProcess]) -> tuple[Caught, DrainProcess]:
    """Commit many mails; kill the worker that delivers the fatal one.  Returns that mail and the victim."""
    catcher = act.stage.catcher
    catcher.pause = _LEISURE
    hold = catcher.hold(FATAL)
    try:
        commit_all(act)
        until(hold.mail.done, f"the catcher has less than {FATAL} of {MAILS} mails")
        unanswered = hold.mail.result()
        [victim] = [each for each in workers if each.port == unanswered.port]
        victim.kill()
    finally:
        catcher.release()
        catcher.pause = 0.0
    act.narrator.say(
        f"kill -9 {victim.pid} in mid-queue, at the worst moment there is: the catcher has mail {FATAL}, "
        f"and {victim.pid} has not heard it yet."
    )
    return unanswered, victim


def commit_all(act: Act) -> None:
    """Many mails in one transaction."""
    with visit(act.stage.database) as shop:
        numbers = range(1, MAILS + 1)
        act.account.handed += [shop.order("all@example.org", f"News {number}") for number in numbers]
        began = time.monotonic()
        transaction.commit()
        seconds = time.monotonic() - began
    act.account.committed += act.account.handed
    act.narrator.say(f"{MAILS} mails are committed in one transaction, which takes {seconds * 1000:.0f} ms.")


def end(workers: list[DrainProcess]) -> None:
    """Let the processes end, as they would at the end of a day."""
    for each in workers:
        each.tell_to_end()
    for each in workers:
        if status := each.end(PATIENCE):
            raise Surprise(f"Process {each.pid} ended with status {status}.")


def explain(act: Act, survivors: list[DrainProcess], unanswered: Caught) -> None:
    """Tell what the survivors recorded as unknown, and what became of it."""
    for each in survivors:
        for report in each.told("MailUnknownEvent"):
            act.account.unknown[report["message_id"]] += 1
            act.narrator.say(f"{each.pid} takes a mail over and records it as unknown: {report['text']}.")
    copies = [mail.moment for mail in act.stage.catcher.caught() if mail.message_id == unanswered.message_id]
    if len(copies) > 1:
        act.narrator.say(
            "It cannot be known whether such a mail got through. It is sent again, here "
            f'{copies[1] - copies[0]:.2f} s after the first time; onUnknown="hold" would ask a person first.'
        )


def listed(workers: list[DrainProcess]) -> str:
    """Return the processes, for people."""
    *first, last = [str(each.pid) for each in workers]
    return f"Processes {', '.join(first)} and {last}"
