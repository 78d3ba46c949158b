"""Registration by invitation: ``plugins.enabled = [..., "invites"]``.

Operators invite with ``hydracore invites send ADDRESS`` (mailed, and good for that address alone) or
``hydracore invites create`` (printed, good for the first address that registers with it). Verified users may
invite too, ``[plugins.invites] per_user`` people each, by ``POST /auth/invites`` with ``{"email"}``. Who registers
sends ``invite_code`` beside ``email`` and ``password``; ``POST /auth/invites/check`` says beforehand whether a code
is good.

An invitation is used up by one atomic step, after all other plugins had their say, and belongs to the address that
used it from then on, so that a registration that has to be repeated goes through; one that led to no account within
ten minutes is free again. ``hydracore invites list`` shows the used ones too: whoever deletes an account and wants its
owner to stay out revokes its invitation. The database holds keyed digests of codes. Without the database nobody
registers, and the answer is 503.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hydracore.plugin import (
    Collection,
    Command,
    Context,
    Endpoint,
    Forbidden,
    Index,
    ProfileMember,
    RegistrationRefused,
    Route,
    described,
    hookimpl,
    public,
    verified,
)

_CODE_BYTES = 16
_DAY = 86_400
_RESERVED = timedelta(minutes=10)


class Invites:
    def __init__(self, context: Context) -> None:
        self.context = context
        self._required: bool = context.config["required"]
        self._life = timedelta(days=context.config["days"])
        self._page: str = context.config["page"]
        self.per_user: int = context.config["per_user"]

    # -- what it brings ------------------------------------------------------------------------

    @hookimpl
    def hydracore_register_collections(self) -> list[Collection]:
        return [
            Collection("invitations", [Index([("created_at", 1)]), Index([("expires_at", 1)], expire_after=_DAY)]),
            Collection("inviters"),
        ]

    @hookimpl
    def hydracore_register_profile_members(self) -> list[ProfileMember]:
        code = {"type": "string", "minLength": 1, "maxLength": 64}
        return [ProfileMember("invite_code", code, keep=False)]

    @hookimpl
    def hydracore_register_routes(self) -> list[Route]:
        return [Route("/invites", Invite), Route("/invites/check", Check)]

    @hookimpl
    def hydracore_register_commands(self) -> list[Command]:
        group = click.Group("invites", help="Invitations to register.")
        address = click.Argument(["email"])
        group.add_command(click.Command("create", help="Print a new code.", callback=self.print_code))
        group.add_command(click.Command("send", help="Mail one.", callback=self.send_code, params=[address]))
        group.add_command(click.Command("list", help="Those that have not expired.", callback=self.print_all))
        ident = click.Argument(["id"])
        group.add_command(click.Command("revoke", help="Take one back.", callback=self.revoke, params=[ident]))
        return [Command("invites", group)]

    @hookimpl(trylast=True)
    async def hydracore_before_register(self, email: str, profile: Mapping[str, Any]) -> None:
        code = profile.get("invite_code")
        if code is None:
            if self._required:
                raise RegistrationRefused("Registration is by invitation: send your invite_code.")
            return
        who, now = self.context.address_key(email), self.context.now()
        mine = {**self._good(code), "email": {"$in": ["", who]}}
        # Whoever has an account gets no other, and leaves the code to someone who needs it.
        use = {"used_by": who, "used_at": now} if await self.context.find_account(email) is None else {"asked_at": now}
        if await self._use({**mine, "used_by": {"$in": ["", who]}}, use):
            return
        held = await self._invitations.find_one({**mine, "used_at": {"$lte": now - _RESERVED}})
        nothing_came_of_it = held is not None and await self.context.find_account(held["used_by"]) is None
        # Unless its holder tries again at this very moment, it is the next one's.
        if not (nothing_came_of_it and await self._use({**mine, "used_at": held["used_at"]}, use)):
            raise RegistrationRefused("This invitation is not good, or not for this address.")

    # -- what it does --------------------------------------------------------------------------

    async def _use(self, which: Mapping[str, Any], use: Mapping[str, Any]) -> bool:
        return await self._invitations.find_one_and_update(which, {"$set": use}) is not None

    @property
    def _invitations(self) -> Any:
        return self.context.collection("invitations")

    def _good(self, code: str) -> dict[str, Any]:
        return {"_id": {"$in": list(self.context.macs("code", code))}, "expires_at": {"$gt": self.context.now()}}

    async def is_good(self, code: str) -> bool:
        """Whether someone may still register with it, for the first time."""
        return await self._invitations.find_one({**self._good(code), "used_by": ""}) is not None

    async def invite(self, email: str = "", *, by: str = "", language: str = "") -> str:
        """A new code, for that address alone if one is given; then it is mailed, too."""
        code, now = self.context.token(_CODE_BYTES), self.context.now()
        invitation = {
            "_id": self.context.mac("code", code),
            "email": self.context.address_key(email) if email else "",
            "by": by,
            "used_by": "",
            "created_at": now,
            "expires_at": now + self._life,
        }
        await self._invitations.insert_one(invitation)
        if email:
            link = f"{self._page}#invite={code}" if self._page else ""
            values = {"code": code, "link": link, "days": self._life.days}
            try:
                await self.context.send_mail("invitation", email, values, life=self._life, language=language)
            except BaseException:  # Nobody will ever hear of this one.
                await self._invitations.delete_one({"_id": invitation["_id"]})
                raise
        return code

    async def spend(self, user_id: str) -> None:
        """Count one more invitation of a user. Raises ``Forbidden`` when there is none left, whoever asks at once."""
        left = {"_id": user_id, "invited": {"$lt": self.per_user}}
        try:
            await self.context.collection("inviters").find_one_and_update(
                left, {"$inc": {"invited": 1}}, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            raise Forbidden("You have invited as many people as you may.") from None

    async def give_back(self, user_id: str) -> None:
        """One that came to nothing counts for nothing."""
        inviters = self.context.collection("inviters")
        await inviters.find_one_and_update({"_id": user_id, "invited": {"$gt": 0}}, {"$inc": {"invited": -1}})

    # -- the commands --------------------------------------------------------------------------

    async def print_code(self) -> None:
        click.echo(await self.invite())

    async def send_code(self, email: str) -> None:
        try:
            await self.invite(email)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"Invited {email}.")

    async def print_all(self) -> None:
        good = {"expires_at": {"$gt": self.context.now()}}
        async for found in self._invitations.find(good).sort("created_at", 1):
            used = f"  used by {found['used_by']}" if found["used_by"] else ""
            click.echo(f"{found['_id']}  {found['expires_at']:%Y-%m-%d}  {found['email'] or 'anyone'}{used}")

    async def revoke(self, id: str) -> None:  # noqa: A002  # click hands it over by that name
        if not (await self._invitations.delete_one({"_id": id})).deleted_count:
            raise click.ClickException(f"No invitation has the id {id}.")
        click.echo("Revoked.")


@verified
class Invite(Endpoint):
    """A user invites someone. The answer is the same whether or not the address has an account."""

    plugin: Invites

    @described(
        "Invite somebody",
        "A code to register with is mailed to the address. The answer is the same, whether or not it has an account.",
        takes="invite",
        gives={202: "invited"},
        refuses=(Forbidden,),
    )
    async def post(self) -> None:
        if not self.plugin.per_user:
            raise Forbidden("Only operators invite here.")
        email = self.body()["email"]
        await self.plugin.spend(self.caller.id)
        try:
            await self.plugin.invite(email, by=self.caller.id, language=self.language)
        except BaseException:
            await self.plugin.give_back(self.caller.id)
            raise
        self.reply({"message": "An invitation is on its way."}, 202)


@public
class Check(Endpoint):
    """Whether a code is good, for the form that asks for it. A code has 128 random bits: guessing is hopeless."""

    plugin: Invites

    @described("Whether an invitation is good", takes="check", gives={200: "checked"})
    async def post(self) -> None:
        self.reply({"good": await self.plugin.is_good(self.body()["invite_code"])})
