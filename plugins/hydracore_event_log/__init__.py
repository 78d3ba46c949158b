"""Writes a line to the log for everything that happens: who signed in, what was refused, which mail went out.

One line an event, named after it, with its fields, from the logger ``hydracore.events``. Warnings are what
an operator should look at: a stolen refresh token, an address that was brought back to its owner, a mail given up. No
configuration.
"""

from hydracore.plugin import Context, events, hookimpl, logger

log = logger("hydracore.events")

_ALARMING = (events.RefreshReused, events.EmailChangeUndone, events.MailDead)


class EventLog:
    def __init__(self, context: Context) -> None:
        pass

    @hookimpl
    async def hydracore_on_event(self, event: events.Event) -> None:
        write = log.warning if isinstance(event, _ALARMING) else log.info
        write(type(event).__name__, **vars(event))
