"""The command ``zope-sendmail``: sends what is due in a queue, once or as a daemon.

``zope-sendmail queue VERB`` is for operators, see `zope.sendmail.cli.queuecommands`; ``zope-sendmail check`` tries the
relay, see `zope.sendmail.cli.checkcommand`.  The exit status says what became of the mail, and a signal never cuts a
message short.  A setting on the command line beats the environment, that beats the ini file, that beats the default.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from zope.sendmail.cli.arguments import (
    INI_SECTION,
    SETTINGS,
    given_settings,
    make_parser,
    merged_settings,
)
from zope.sendmail.cli.asowner import as_before, become_owner
from zope.sendmail.cli.metricscommand import parse_address, serve_metrics
from zope.sendmail.cli.processes import Report, Supervisor
from zope.sendmail.cli.subcommands import SUBCOMMANDS
from zope.sendmail.cli.terminal import is_terminal
from zope.sendmail.cli.tracing import begin_traces
from zope.sendmail.config.options import boolean, mailer_keywords, processor_keywords
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import OnUnknown
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import directories_of
from zope.sendmail.reporting import jsonlog, notifier, printablelog
from zope.sendmail.system.supervisor import tell_supervisor

__all__ = ["ConsoleApp", "boolean", "main", "run", "string_or_none"]

#: Seconds that subscribers to mail events have before the process ends.
_TELLING = 5.0

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("zope.sendmail.cli")


class ConsoleApp:
    """One call of ``zope-sendmail``: `argv` begins with the program's name; `verbose` lets it sum up.

    Raises `SystemExit`: 2 if the command line is wrong, 78 (``EX_CONFIG``) if the configuration is.
    """

    INI_SECTION = INI_SECTION
    INI_NAMES = list(SETTINGS)
    MailerKind: Callable[..., Any] = SMTPMailer
    QueueProcessorKind: Callable[..., Any] = QueueProcessorThread
    parser = make_parser()

    # What a subclass of 7.3 could look at before anything was parsed.
    daemon: bool = False
    interval: float = 3.0
    hostname: str = "localhost"
    port: int = 25
    username: str | None = None
    password: str | None = None
    force_tls: bool = False
    no_tls: bool = False
    queue_path: str = ""

    def __init__(self, argv: Sequence[str] | None = None, verbose: bool = True) -> None:  # noqa: FBT001, FBT002 - as in 7.3
        self.script_name, *words = sys.argv if argv is None else argv
        self._arguments = vars(self.parser.parse_args(words))
        self.verbose = verbose and not self._arguments.get("quiet", False)
        self.log_level = logging.INFO if self._arguments.get("verbose") else logging.WARNING
        self.log_format: str = self._arguments.get("log_format", "text")
        self.daemon = self._arguments.get("daemon", False)
        self._metrics: str | None = self._arguments.get("metrics")
        self._flush_traces: Callable[[], object] | None = None
        self._processes: int = self._arguments.get("processes", 1)
        #: Which share of the mails this process takes first, of several that drain the queue.
        self._share: int | None = None
        self._config: str | None = self._arguments.get("config")
        #: Signals that came: to stop, and to read the configuration again.
        self._is_stopping = self._is_reloading = False
        self._processor: Any = None
        try:
            self._check_metrics()
            if self._arguments.get("traces"):
                self._flush_traces = begin_traces()
            self._configure(self._merged(self._arguments))
        except ValueError as error:
            self._refuse(str(error))

    def _check_metrics(self) -> None:
        if self._metrics is not None:
            parse_address(self._metrics)
            if self._processes > 1:
                raise ValueError("--metrics counts one process: leave it or --processes out")
            if not self.daemon:
                raise ValueError("--metrics is for a daemon: add --daemon, or use 'zope-sendmail queue metrics'")

    def _configure(self, settings: dict[str, Any]) -> None:
        """Make what these settings say.  Raises `ValueError`, and has changed nothing then."""
        if "queue_path" not in settings:
            raise ValueError(f"no queue; name its directory, or give queue_path in [{self.INI_SECTION}] of --config")
        mailer_options, processor_options = mailer_keywords(settings), processor_keywords(settings)
        self.mailer = follow_password_file(self.MailerKind(**mailer_options), settings)
        self._processor_options = processor_options
        self._remember({**settings, **mailer_options})

    def _merged(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings: command line, environment, ini file."""
        return merged_settings(self._config, given_settings(arguments))

    def _remember(self, settings: Mapping[str, Any]) -> None:
        """Set the attributes that the class had in 7.3."""
        self.queue_path = settings["queue_path"]
        self.interval = settings.get("interval", 3.0)
        self.hostname = settings.get("hostname", "localhost")
        self.port = settings.get("port", 25)
        self.username = settings.get("username")
        self.password = settings.get("password")
        self.force_tls = settings.get("force_tls", False)
        self.no_tls = settings.get("no_tls", False)
        self._on_unknown: OnUnknown = settings.get("on_unknown", OnUnknown.RESEND)

    def _refuse(self, why: str) -> NoReturn:
        """End with the reason; without an ini file it is the command line that is wrong."""
        if self._config is None:
            self.parser.error(why)
        self.parser.exit(os.EX_CONFIG, f"{self.parser.prog}: bad configuration ({self._config}): {why}\n")

    def main(self) -> int:
        """Send; return the exit status."""
        try:
            for path in directories_of(self.queue_path)[:1]:
                become_owner(path)
            self._note_new()
            processor = self._new_processor()
            return self._drain(processor) if self._processes == 1 else self._supervise(processor)
        except (OSError, ValueError) as error:
            log.error("The queue %s cannot be used: %s", self.queue_path, error)  # noqa: TRY400 - says it all
            return os.EX_CONFIG

    def _new_processor(self) -> Any:
        processor = self.QueueProcessorKind(**self._processor_options)
        processor.setMailer(self.mailer)
        processor.setQueuePath(self.queue_path)
        if self._share is not None and (prefer := getattr(processor.queue, "prefer", None)) is not None:
            prefer(self._share, self._processes)
        return processor

    def _note_new(self) -> None:
        """Tell of a queue that does not exist yet: draining it is most often a slip of the pen."""
        for path in directories_of(self.queue_path):
            if not os.path.isdir(path):
                log.warning("There was no queue %s; an empty one is made. Is that the right path?", path)

    def _drain(self, processor: Any) -> int:
        queue: IMailQueue = processor.queue
        queue.claim(0)  # raises what is wrong with the queue; the processor would go on for ever hoping that it heals
        before = queue.admin.count()
        report = self._work(processor)
        return self._sum_up(queue, report, before)

    def _work(self, processor: Any) -> Report:
        """Drain the queue in this process; return what was done."""
        with signals_to(self._stop, self._ask_reload if self.daemon else self._stop):
            if self._metrics is not None:
                self._processor = processor
                serve_metrics(self._metrics, lambda: self._processor)
            tell_supervisor()
            self._run(processor)
            tally = Counter(processor.tally)
            while self._is_reloading and not self._is_stopping:
                processor = self._reloaded()
                self._run(processor)
                tally.update(processor.tally)
        notifier.flush(_TELLING)
        if self._flush_traces is not None:
            self._flush_traces()
        return Report(tally, processor.fault)

    def _supervise(self, processor: Any) -> int:
        """Drain the queue in several processes; `processor` only shows that it can be done."""
        queue: IMailQueue = processor.queue
        queue.claim(0)
        before = queue.admin.count()
        queue.close()
        supervisor = Supervisor(self._be_one_of_several, self._processes, forever=self.daemon)
        with signals_to(supervisor.stop, supervisor.hang_up if self.daemon else supervisor.stop):
            report, is_whole = supervisor.run(tell_supervisor)
        status = self._sum_up(queue, report, before)
        return status if is_whole or status else os.EX_TEMPFAIL

    def _be_one_of_several(self, share: int) -> Report:
        self._share = share
        return self._work(self._new_processor())

    def _sum_up(self, queue: IMailQueue, report: Report, before: Mapping[State, int]) -> int:
        after = queue.admin.count()
        status = exit_status(report.tally, report.fault, before, after, self._on_unknown)
        if not self.daemon and status != 1 and any(queue.admin.unusable()):
            status = 1
        if self.verbose:
            level = logging.INFO if status == os.EX_OK else logging.WARNING
            log.log(level, "%s: %s", self.queue_path, summary(report.tally, report.fault, after))
        return os.EX_OK if self.daemon else status

    def _run(self, processor: Any) -> None:
        self._processor = processor
        if self._is_stopping or self._is_reloading:  # a signal was faster
            processor.stop()
        processor.run(forever=self.daemon)

    def _reloaded(self) -> Any:
        """Return a processor with the configuration as it is now; one that cannot be used is told, and the former
        goes on.
        """
        self._is_reloading = False
        path = self.queue_path
        try:
            if self._config == "-":
                raise ValueError("it came from standard input, which is read once")
            with as_before():  # the file may be root's
                self._configure(self._merged(self._arguments))
        except ValueError as error:
            log.error("The configuration is not reloaded, the former one goes on: %s", error)  # noqa: TRY400 - says it all
        else:
            log.info("The configuration was reloaded.")
        if self.queue_path != path:
            log.warning("The queue stays %s until the daemon is restarted.", path)
            self.queue_path = path
        return self._new_processor()

    def _stop(self) -> None:
        self._is_stopping = True
        if self._processor is not None:
            self._processor.stop()

    def _ask_reload(self) -> None:
        self._is_reloading = True
        if self._processor is not None:
            self._processor.stop()


def exit_status(
    tally: Mapping[Answer, int],
    fault: Reply | None,
    before: Mapping[State, int],
    after: Mapping[State, int],
    on_unknown: OnUnknown,
) -> int:
    """Return what one pass comes to: 1 if a person should look, 75 if time should help, else 0."""
    answers, was, now = Counter(tally), Counter(before), Counter(after)
    set_aside = now[State.REJECTED] > was[State.REJECTED] or now[State.HELD] > was[State.HELD]
    if answers[Answer.REJECTED] or set_aside or (answers[Answer.UNKNOWN] and on_unknown is OnUnknown.HOLD):
        return 1
    stuck = was[State.READY] and now[State.READY]
    if answers[Answer.DEFERRED] or answers[Answer.UNKNOWN] or fault is not None or stuck:
        return os.EX_TEMPFAIL
    return os.EX_OK


def summary(tally: Mapping[Answer, int], fault: Reply | None, states: Mapping[State, int]) -> str:
    """Return one line about what was done and what is left."""
    done = [f"{tally[answer]} {answer}" for answer in Answer if tally.get(answer)]
    left = [f"{states[state]} {state}" for state in State if states.get(state)]
    line = f"recipients: {', '.join(done)}" if done else "nothing was sent"
    if fault is not None:
        line += f"; the relay cannot be used ({fault})"
    return f"{line}; mails left: {', '.join(left)}" if left else f"{line}; the queue is empty"


@contextlib.contextmanager
def signals_to(stop: Callable[[], None], hang_up: Callable[[], None] | None = None) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `stop`, and SIGHUP `hang_up`, however often they come.

    What is ignored stays ignored.  Without `hang_up` SIGHUP calls `stop` as well.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's alone
        yield
        return
    heard = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    calls = {signal.SIGHUP: hang_up or stop}
    before = {number: signal.signal(number, _handler(calls.get(number, stop))) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _handler(call: Callable[[], None]) -> Callable[[int, object], None]:
    return lambda *_: call()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script; `argv` is without the program's name."""
    return run(None if argv is None else [ConsoleApp.parser.prog, *argv])


def _configure_log(app: ConsoleApp) -> None:
    """Send to stderr: problems and the summary; with --verbose every mail as well.

    Says nothing about a run that went well unless a terminal watches: cron would send it by mail.
    """
    if app.log_format == "json":
        jsonlog.configure(app.log_level)
    else:
        printablelog.configure(app.log_level)
    log.setLevel(logging.INFO if app.daemon or is_terminal(sys.stderr) else app.log_level)


# BBB: names of zope.sendmail 7.3


def run(argv: Sequence[str] | None = None) -> int:
    """Run the console script; `argv` has the program's name in front."""
    words = list(sys.argv) if argv is None else argv
    if words[1:] and (subcommand := SUBCOMMANDS.get(words[1])) is not None and subcommand.is_meant(words[1:]):
        return subcommand.main(words[2:])
    app = ConsoleApp(words)
    _configure_log(app)
    return app.main()


def string_or_none(text: str | None) -> str | None:
    """Return None for the word ``None``, else the text."""
    return None if text == "None" else text


if __name__ == "__main__":
    sys.exit(main())
