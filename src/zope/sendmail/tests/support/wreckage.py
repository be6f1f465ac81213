"""What a crash may leave of a disk, made out of the changes that were done to it.

A file system in memory applies recorded changes and knows what is durable.  *Death of the process* keeps everything
that was done.  *Power loss* keeps what was synced, and of everything else any combination: a name that was or was
not yet there, contents whole, torn or missing.  A rename is one change: journaling file systems (ext4, XFS, btrfs)
promise that.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from posixpath import split

from zope.sendmail.testing.faultydisk import Op

#: All of it takes long: five times as many states.
_EVERYTHING = bool(os.environ.get("ZOPE_SENDMAIL_ALL_STATES"))

#: With more open changes than this, not all combinations are made but: each prefix, each change alone left out or alone
#: kept, and, with the environment variable, each pair.
_ALL_COMBINATIONS, _TOGETHER = (10, 2) if _EVERYTHING else (5, 1)

#: So many combinations of whole, torn and missing contents are made for each combination of names.
_CONTENTS = 27 if _EVERYTHING else 9

#: An entry of a directory: the number of the directory, and a name.
Entry = tuple[int, str]

#: A directory as it may be found: path -> (number of the file, content); the content of a directory is None.
Tree = dict[str, tuple[int, bytes | None]]


@dataclass
class Node:
    """A file, or a directory if `content` is None.  `durable`: as much of the content as was synced."""

    content: bytes | None = None
    durable: bytes = b""
    #: Written where something durable stood, so that it has at least that after a loss of power.
    in_place: bool = False


@dataclass(frozen=True)
class Change:
    """Entries that are taken away and given, all at once."""

    removed: tuple[tuple[Entry, int], ...] = ()
    added: tuple[tuple[Entry, int], ...] = ()

    def touches(self, directory: int) -> bool:
        """Whether syncing `directory` makes this durable."""
        return any(entry[0] == directory for entry, _ in (*self.removed, *self.added))


@dataclass
class FileSystem:
    """Entries and nodes after some changes, and what of it is durable.  Node 0 is the root."""

    nodes: list[Node] = field(default_factory=lambda: [Node()])
    entries: dict[Entry, int] = field(default_factory=dict)
    #: All changes in the order they were done, and which of them are durable.
    changes: list[Change] = field(default_factory=list)
    synced: set[int] = field(default_factory=set)

    def apply(self, op: Op) -> None:
        """Do a recorded change."""
        getattr(self, f"_{op.call}")(op)

    def after_death(self) -> Iterator[Tree]:
        """What is there when the process dies: everything."""
        yield self._tree(self.entries, {})

    def after_power_loss(self) -> Iterator[Tree]:
        """Everything that may be there after the machine went down."""
        pending = [number for number in range(len(self.changes)) if number not in self.synced]
        for kept in _subsets(len(pending)):
            entries: dict[Entry, int] = {}
            for number in sorted(self.synced.union(pending[each] for each in kept)):
                _change(entries, self.changes[number])
            unsynced = [n for n, node in enumerate(self.nodes) if node.content not in (None, node.durable)]
            unsynced = sorted(set(unsynced) & set(entries.values()))
            for torn in itertools.islice(itertools.product((0, 1, 2), repeat=len(unsynced)), _CONTENTS):
                yield self._tree(entries, dict(zip(unsynced, torn, strict=True)))

    # the changes

    def _create(self, op: Op) -> None:
        self._make(op.path, Node(op.data))

    def _mkdir(self, op: Op) -> None:
        self._make(op.path, Node())

    def _append(self, op: Op) -> None:
        if self._entry(op.path) not in self.entries:
            self._make(op.path, Node(b""))
        node = self._node(op.path)
        node.content = (node.content or b"") + op.data

    def _truncate(self, op: Op) -> None:
        node = self._node(op.path)
        node.content = (node.content or b"")[: op.offset]

    def _write_at(self, op: Op) -> None:
        node = self._node(op.path)
        text = (node.content or b"").ljust(op.offset, b"\0")
        node.in_place = op.path.endswith("/.progress") or "/.reserve-" in op.path
        node.content = text[: op.offset] + op.data + text[op.offset + len(op.data) :]

    def _rename(self, op: Op) -> None:
        old, new = self._entry(op.path), self._entry(op.other)
        number = self.entries[old]
        replaced = [(new, self.entries[new])] if new in self.entries else []
        self._change(Change(((old, number), *replaced), ((new, number),)))

    def _link(self, op: Op) -> None:
        self._change(Change(added=((self._entry(op.other), self.entries[self._entry(op.path)]),)))

    def _unlink(self, op: Op) -> None:
        entry = self._entry(op.path)
        self._change(Change(removed=((entry, self.entries[entry]),)))

    _rmdir = _unlink

    def _sync(self, op: Op) -> None:
        node = self._node(op.path)
        node.durable = node.content or b""

    def _sync_directory(self, op: Op) -> None:
        directory = self._number(op.path)
        self.synced.update(number for number, change in enumerate(self.changes) if change.touches(directory))

    def _sync_all(self, op: Op) -> None:
        for node in self.nodes:
            node.durable = node.content or b""
        self.synced.update(range(len(self.changes)))

    # how they are done

    def _make(self, path: str, node: Node) -> None:
        self.nodes.append(node)
        self._change(Change(added=((self._entry(path), len(self.nodes) - 1),)))

    def _change(self, change: Change) -> None:
        _change(self.entries, change)
        self.changes.append(change)

    def _number(self, path: str) -> int:
        return 0 if path in ("", ".") else self.entries[self._entry(path)]

    def _entry(self, path: str) -> Entry:
        directory, name = split(path)
        return self._number(directory), name

    def _node(self, path: str) -> Node:
        return self.nodes[self._number(path)]

    def _tree(self, entries: dict[Entry, int], torn: dict[int, int]) -> Tree:
        """What a walk from the root finds."""
        tree: Tree = {}
        todo = [(0, "")]
        while todo:
            directory, path = todo.pop()
            for (parent, name), number in entries.items():
                if parent == directory:
                    full = f"{path}/{name}" if path else name
                    tree[full] = number, self._content(number, torn.get(number, 2))
                    if tree[full][1] is None:
                        todo.append((number, full))
        return tree

    def _content(self, number: int, torn: int) -> bytes | None:
        node = self.nodes[number]
        if node.content is None or torn == 2:
            return node.content
        if node.in_place and len(node.content) == len(node.durable):
            return node.durable
        if node.durable.startswith(node.content):  # cut off: it ends where it did, or where it does
            return node.durable if torn == 0 else node.content
        kept = node.durable if node.content.startswith(node.durable) else b""
        return kept if torn == 0 else node.content[: len(kept) + (len(node.content) - len(kept)) // 2]


def _change(entries: dict[Entry, int], change: Change) -> None:
    for entry, number in change.removed:
        if entries.get(entry) == number:
            del entries[entry]
    entries.update(change.added)


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Which of `count` open changes reached the disk."""
    everything = range(count)
    if count <= _ALL_COMBINATIONS:
        for size in range(count + 1):
            yield from itertools.combinations(everything, size)
        return
    for number in range(count + 1):
        yield tuple(range(number))
    for size in range(1, _TOGETHER + 1):
        for some in itertools.combinations(everything, size):
            yield some
            yield tuple(number for number in everything if number not in some)


def materialize(tree: Tree, root: str) -> None:
    """Make a real directory out of a state; several names of a file become hard links."""
    os.mkdir(root, 0o700)
    made: dict[int, str] = {}
    for path in sorted(tree):
        number, content = tree[path]
        full = os.path.join(root, path)
        if content is None:
            os.mkdir(full, 0o700)
        elif number in made:
            os.link(made[number], full)
        else:
            with open(full, "wb") as stream:
                stream.write(content)
            made[number] = full
