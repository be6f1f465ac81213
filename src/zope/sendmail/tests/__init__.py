"""The tests of zope.sendmail."""

import signal


def _hear_signals() -> None:
    """Undo what ``nohup`` and shells do to programs in the background: the processes that tests start inherit it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_hear_signals()
