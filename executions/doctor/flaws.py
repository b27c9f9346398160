"""Published vulnerabilities of gVisor that the date of a release tells whether it has."""

import re
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Flaw:
    """`fixed` is the date from which on a release doesn't have it."""

    name: str
    fixed: date
    meaning: str
    escape: bool
    """Whether a program in a sandbox may gain something by it."""

    @property
    def source(self) -> str:
        return f"https://nvd.nist.gov/vuln/detail/{self.name}"


# Those whose description in the National Vulnerability Database names the date.
FLAWS = (
    Flaw("CVE-2018-16359", date(2018, 8, 22), "a program may write to files of the host", True),
    Flaw("CVE-2018-20168", date(2018, 8, 22), "page tables are used at a wrong level", True),
    Flaw("CVE-2018-19333", date(2018, 11, 1), "memory of root's processes is overwritten", True),
    Flaw("CVE-2025-2713", date(2025, 3, 19), "local users of the host may gain privileges", False),
)


def released(version: str) -> date | None:
    """The date in `release-20240729.0` or `0.0~20240729.0` (Debian); None when there is none."""
    found = re.search(r"(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)", version)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def flaws_of(version: str) -> list[Flaw] | None:
    """What a version of runsc is known to have; None when it doesn't tell its age."""
    day = released(version)
    return None if day is None else [flaw for flaw in FLAWS if day < flaw.fixed]
