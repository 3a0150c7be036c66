"""What is to come as a calendar (RFC 5545) that people subscribe to: an entry a day and kind."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import groupby

from icalendar import Calendar, Event

from retainer.model.forecast import Forecast
from retainer.model.printable import shown
from retainer.views.forecast import WHAT
from retainer.views.units import many, size


def calendar(told: Forecast) -> str:
    """The same day and kind has the same entry in every forecast, so that a calendar that reads it
    anew replaces it."""
    told = shown(told)
    found = Calendar()
    found.add("prodid", f"-//retainer//{told.tool}//EN")
    found.add("version", "2.0")
    found.add("x-wr-caldesc", "Due by the policies; a limit or a clash may hold deletes back.")
    found.add("x-wr-calname", f"retainer {told.project}".strip())
    for (day, what), group in groupby(
        sorted(told.coming, key=lambda each: (each.day, each.what)),
        lambda each: (each.day, each.what),
    ):
        rows = list(group)
        count, total = sum(each.copies for each in rows), sum(each.bytes for each in rows)
        event = Event()
        name = hashlib.sha256(repr((told.project, day.isoformat(), what)).encode()).hexdigest()[:24]
        event.add("uid", f"{name}@retainer")
        event.add("dtstamp", told.now)
        event.add("dtstart", day)
        event.add("dtend", day + timedelta(days=1))
        event.add("transp", "TRANSPARENT")
        noun = ("recording", "recordings") if what == "leaves" else ("copy", "copies")
        event.add("summary", f"{many(count, *noun)} {WHAT[what][2]} ({size(total)})")
        last = sum(each.last_copies for each in rows) if what == "delete" else 0
        lines = [
            f"{each.store}, by {each.rule}: {each.copies:,} ({size(each.bytes)})"
            for each in rows
            if what != "leaves"
        ]
        if last:
            lines.append(f"the last copy of {many(last, 'recording')}")
        event.add("description", "\n".join(lines))
        found.add_component(event)
    text: bytes = found.to_ical()
    return text.decode()
