"""Tables that pages of docs/ take over from the code, each between two marks of its page."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class PageTable:
    """`page` is the name of a file in docs/, `markdown` makes the table."""

    page: str
    begin: str
    end: str
    markdown: Callable[[], str]

    def replaced(self, text: str) -> str:
        """The page's text with the table made anew."""
        before, _, rest = text.partition(self.begin)
        _, _, after = rest.partition(self.end)
        return f"{before}{self.begin}\n\n{self.markdown()}\n\n{self.end}{after}"

    def write(self) -> None:
        """Into the page that the command line names, else into the checkout's."""
        page = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / self.page
        page.write_text(self.replaced(page.read_text()))
