"""What is not one account's: mail, signing keys, admin tokens, and the audit."""

from hydracore.errors import InvalidCursor, NotFound
from hydracore.flows import admin_tokens, administration, audit
from hydracore.models import AuditEntry, MailIntent
from hydracore.web.access import scoped
from hydracore.web.admin.base import AdminEndpoint
from hydracore.web.described import asks, described


class Mail(AdminEndpoint):
    @described(
        "The outbox",
        "What waits or was given up, and nothing of what it says.",
        gives={200: "admin-mail"},
        refuses=(InvalidCursor,),
    )
    @asks("mail")
    @scoped("mail:read")
    async def get(self) -> None:
        asked = self.query()
        page = await administration.list_mail(self.admin, **asked)
        self.reply_page("mail", page, MailIntent.administered)

    head = get


class RetryAllMail(AdminEndpoint):
    @described("Make all dead letters due now", gives={200: "retried"})
    @scoped("mail:write")
    async def post(self) -> None:
        self.reply({"retried": await administration.retry_dead_mail(self.admin)})


class RetryMail(AdminEndpoint):
    @described("Make a dead letter due now", gives={204: ""}, refuses=(NotFound,))
    @scoped("mail:write")
    async def post(self, mail_id: str) -> None:
        await administration.retry_mail(self.admin, mail_id)
        self.reply({}, 204)


class OneMail(AdminEndpoint):
    @described("Drop a mail", "It is never sent.", gives={204: ""}, refuses=(NotFound,))
    @scoped("mail:write")
    async def delete(self, mail_id: str) -> None:
        await administration.drop_mail(self.admin, mail_id)
        self.reply({}, 204)


class Keys(AdminEndpoint):
    @described("Published signing keys, oldest first", gives={200: "admin-keys"})
    @scoped("keys:read")
    async def get(self) -> None:
        keys = await administration.list_keys(self.admin)
        self.reply({"keys": [key.administered(state) for key, state in keys]})

    head = get


class RotateKeys(AdminEndpoint):
    @described(
        "Publish a new signing key",
        "It signs when its lead is over; in an `emergency` three seconds later, when every key of before ends.",
        takes="rotate-keys",
        gives={201: "rotated"},
    )
    @scoped("keys:write")
    async def post(self) -> None:
        body = self.body()
        key = await administration.rotate_keys(self.admin, emergency=body["emergency"])
        self.reply({"kid": key.kid, "signs_from": key.active_from.isoformat()}, 201)


class Tokens(AdminEndpoint):
    @described(
        "Admin tokens, the latest first",
        "Those too that ended less than a month ago. None is made here: the command line does that.",
        gives={200: "admin-tokens"},
        refuses=(InvalidCursor,),
    )
    @asks("tokens")
    @scoped("tokens:read")
    async def get(self) -> None:
        asked = self.query()
        page = await admin_tokens.list_tokens(self.admin, **asked)
        now = self.web.services.now()
        self.reply_page("tokens", page, lambda token: token.public(now))

    head = get


class OneToken(AdminEndpoint):
    @described("Revoke an admin token", gives={204: ""}, refuses=(NotFound,))
    @scoped("tokens:write")
    async def delete(self, token_id: str) -> None:
        await admin_tokens.revoke_token(self.admin, token_id)
        self.reply({}, 204)


class Audit(AdminEndpoint):
    @described(
        "What administrators did, the latest first",
        "By this API or the command line; of one account, where `user_id` names it.",
        gives={200: "admin-audit"},
        refuses=(InvalidCursor,),
    )
    @asks("audit")
    @scoped("audit:read")
    async def get(self) -> None:
        asked = self.query()
        page = await audit.list_audit(self.admin, **asked)
        self.reply_page("entries", page, AuditEntry.public)

    head = get
