"""``queue metrics``, and ``--metrics`` of a daemon.  prometheus-client is loaded when one of them is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from zope.sendmail.cli.selecting import Call
from zope.sendmail.cli.terminal import CommandRefused, say

_CURE = "metrics need prometheus-client: pip install 'zope.sendmail[metrics]'"


def show_metrics(call: Call) -> int:
    """``queue metrics``: write the metrics of the queue to standard output, as the textfile collector reads them."""
    try:
        from zope.sendmail.metrics.textfile import exposition
    except ImportError:
        raise CommandRefused(_CURE, os.EX_CONFIG) from None
    say(exposition(call.queue.location, call.admin, call.clock).decode().rstrip("\n"))
    return os.EX_OK


def serve_metrics(address: str, processor: Callable[[], Any]) -> Any:
    """Serve the metrics of this process.

    :param address: ``HOST:PORT``
    :param processor: gives the one that is at work, or None
    :returns: the server, to be ended with ``shutdown()``
    :raises ValueError: if the address is none, or cannot be had
    """
    try:
        from prometheus_client import REGISTRY

        from zope.sendmail.metrics import AttemptMetrics, ProcessorCollector, QueueCollector
        from zope.sendmail.metrics.health import Health
        from zope.sendmail.metrics.server import MetricsApp, serve
        from zope.sendmail.reporting.observers import observe
    except ImportError:
        raise ValueError(_CURE) from None
    host, port = parse_address(address)

    def processors() -> list[Any]:
        return [each for each in (processor(),) if each is not None]

    observe(AttemptMetrics(REGISTRY))
    REGISTRY.register(ProcessorCollector(processors))
    for each in processors():
        REGISTRY.register(QueueCollector(each.queue.location, each.queue.admin))
    try:
        return serve(MetricsApp(REGISTRY, Health(processors)), host, port)
    except OSError as error:
        raise ValueError(f"metrics cannot be served at {address}: {error}") from error


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of ``HOST:PORT``, ``[ADDRESS]:PORT`` or ``:PORT``, which is this host only.

    :raises ValueError: for anything else
    """
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host and host[:1] != "["):
        raise ValueError(f"{text!r} is not an address: HOST:PORT is wanted, such as 127.0.0.1:9464")
    return host.strip("[]") or "127.0.0.1", int(port)
