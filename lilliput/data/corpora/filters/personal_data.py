"""Personal data in public text: addresses and numbers are replaced, as FineWeb and Dolma do.

Own patterns: datatrove's formatter chooses among placeholders by what it has replaced before, so that a document would
depend on those before it; it knows no telephone numbers, and finds addresses inside longer numbers.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import ClassVar

from lilliput.data.corpora.filters import FilterResult
from lilliput.data.documents import Document

# A run of characters is searched once, from its beginning: quantifiers are bounded or possessive.
_EMAIL = re.compile(r"(?<![\w.+%-])\w[\w.+%-]{0,63}+@(?:[A-Za-z0-9-]{1,63}+\.){1,8}[A-Za-z]{2,24}\b")
_IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)"  # 4
    r"|(?<![\w:])[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{3,34}(?!:?\w)"  # 6, of the addresses that are given out
)
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+?1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])\d{3}[-.]\d{4}(?![\w-])"  # North America
    r"|(?<![\w+])\+[1-9](?:[-. ()/]{0,2}\d){7,14}(?!\w)"  # E.164, and how people set it apart
)


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """Email addresses, public IP addresses and telephone numbers, each replaced by a placeholder.

    The placeholders are reserved for documentation and have no owner.
    """

    name: ClassVar[str] = "personal data"
    remembers: ClassVar[bool] = False

    email: str | None = "email@example.com"
    """Placeholder; None leaves addresses as they are."""
    ip: str | None = "192.0.2.1"
    phone: str | None = "+1-202-555-0100"

    def begin(self) -> Callable[[Document], FilterResult]:
        """A function of one document that remembers nothing."""

        def step(document: Document) -> FilterResult:
            text = document.text
            if self.email is not None and "@" in text:
                text = _EMAIL.sub(self.email, text)
            if self.ip is not None:
                text = _IP.sub(self._ip, text)
            if self.phone is not None:
                text = _PHONE.sub(self.phone, text)
            return document if text == document.text else replace(document, text=text)

        return step

    def _ip(self, found: re.Match[str]) -> str:
        """The placeholder for a public address; what is private, or no address, as it is."""
        try:
            is_public = ip_address(found[0]).is_global
        except ValueError:
            return found[0]
        return str(self.ip) if is_public else found[0]
