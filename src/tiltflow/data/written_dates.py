"""Text of dates, of times and of spans of time, as people and programs write them."""

import datetime
import re
from typing import Any

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[ap]m)?"
_DAY = (
    r"\d{1,2}[./-]\d{1,2}[./-]\d{4}",
    r"\d{4}[./-]\d{1,2}[./-]\d{1,2}",
    r"\d{1,2}/\d{1,2}/\d{2}",
    rf"\d{{1,2}}[ .-]*{_MONTH}[ .,-]*\d{{2,4}}",
    rf"{_MONTH}[ .-]*\d{{1,2}},? *\d{{4}}",
)
_SPAN = r"-?P(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?"
DATE = re.compile(
    rf"(?:{'|'.join(_DAY)})(?:[ ,T]+{_CLOCK}.*)?|{_CLOCK}|{_SPAN}(?<=[DHMS])", re.IGNORECASE
)
"""What Python's `fromisoformat` does not take."""


def is_date(level: Any) -> bool:
    """Whether it is the text of a date, a time or a span of time."""
    if not isinstance(level, str):
        return False
    if DATE.fullmatch(level.strip()):
        return True
    try:
        datetime.datetime.fromisoformat(level)
    except ValueError:
        return False
    return True
