"""Events by their names, as the configuration and the command have them."""

import difflib
from collections.abc import Sequence

from hydracore.plugin import StartupError, events

EVENTS = {
    name: kind for name, kind in vars(events).items() if isinstance(kind, type) and issubclass(kind, events.Event)
}


def configured(names: Sequence[str]) -> tuple[type[events.Event], ...]:
    """The events to keep; all of them where none is named. Raises ``StartupError``."""
    for name in names:
        if name not in EVENTS:
            raise StartupError(f"plugins.audit_log.events has {name!r}, and there is no such event{meant(name)}")
    return tuple(EVENTS[name] for name in names) or (events.Event,)


def meant(name: str) -> str:
    """The rest of a sentence: what was near, or what there is."""
    folded = {known.casefold(): known for known in EVENTS}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    return f"; did you mean {folded[near[0]]}?" if near else f" (there are: {', '.join(sorted(EVENTS))})."
