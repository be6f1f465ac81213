"""The templates of the console (Chameleon); what is put into them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chameleon import PageTemplateLoader

_loader = PageTemplateLoader(str(Path(__file__).parent), ".pt", boolean_attributes={"checked", "selected", "disabled"})


def prepare() -> None:
    """Compile all templates now, so that no page waits for that."""
    for path in Path(__file__).parent.glob("*.pt"):
        _loader[path.stem].cook_check()


def render(template: str, **values: Any) -> str:
    """Return a page.

    :param template: the name of its template
    """
    text: str = _loader[template](layout=_loader["layout"], **values)
    return f"<!DOCTYPE html>\n{text}"  # of a macro, nothing before its first tag is kept
