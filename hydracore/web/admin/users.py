"""Accounts and their sessions, as administrators see and change them."""

from hydracore.errors import EmailTaken, InvalidCursor, NotFound, PasswordElsewhere
from hydracore.flows import administration
from hydracore.models import User
from hydracore.web.access import scoped
from hydracore.web.admin.base import AdminEndpoint
from hydracore.web.described import asks, described


class Users(AdminEndpoint):
    @described(
        "Accounts by what their address begins with",
        "In the order of the addresses, a page at a time: `next` is the `cursor` of the page that follows. What is "
        "added or deleted meanwhile makes none appear twice, and none be left out.",
        gives={200: "admin-users"},
        refuses=(InvalidCursor,),
    )
    @asks("users")
    @scoped("users:read")
    async def get(self) -> None:
        asked = self.query()
        page = await administration.search_users(self.admin, **asked)
        self.reply_page("users", page, User.administered)

    head = get

    @described(
        "Make an account",
        "Without a password its owner is mailed how to set one.",
        takes="create-user",
        gives={201: "admin-user"},
        refuses=(EmailTaken,),
    )
    @scoped("users:write")
    async def post(self) -> None:
        body = self.body()
        user = await administration.create_user(
            self.admin,
            body["email"],
            body["password"],
            verified=body["email_verified"],
            language=body["language"].lower(),
        )
        self.reply(user.administered(), 201)


class OneUser(AdminEndpoint):
    @described("An account", gives={200: "admin-user"}, refuses=(NotFound,))
    @scoped("users:read")
    async def get(self, user_id: str) -> None:
        user = await administration.show_user(self.admin, user_id)
        self.reply(user.administered())

    head = get

    @described(
        "Delete an account for good", "At once, with its sessions and codes.", gives={204: ""}, refuses=(NotFound,)
    )
    @scoped("users:write")
    async def delete(self, user_id: str) -> None:
        await administration.delete_user(self.admin, user_id)
        self.reply({}, 204)


class DisableUser(AdminEndpoint):
    @described(
        "Close an account", "Nobody signs in, and all sessions end.", gives={200: "admin-user"}, refuses=(NotFound,)
    )
    @scoped("users:write")
    async def post(self, user_id: str) -> None:
        user = await administration.disable_user(self.admin, user_id)
        self.reply(user.administered())


class EnableUser(AdminEndpoint):
    @described("Open it again", "Sessions that ended stay ended.", gives={200: "admin-user"}, refuses=(NotFound,))
    @scoped("users:write")
    async def post(self, user_id: str) -> None:
        user = await administration.enable_user(self.admin, user_id)
        self.reply(user.administered())


class ForceReset(AdminEndpoint):
    @described(
        "Have the owner set another password",
        "The one of before is void, all sessions end, and a mail says how to set a new one: none goes to an account "
        "that is closed.",
        gives={200: "admin-user"},
        refuses=(NotFound, PasswordElsewhere),
    )
    @scoped("users:write")
    async def post(self, user_id: str) -> None:
        user = await administration.force_reset(self.admin, user_id)
        self.reply(user.administered())


class MarkVerified(AdminEndpoint):
    @described(
        "Take the address for the owner's",
        "Sessions stay, and whoever has registered it keeps the password.",
        gives={200: "admin-user"},
        refuses=(NotFound,),
    )
    @scoped("users:write")
    async def post(self, user_id: str) -> None:
        user = await administration.mark_verified(self.admin, user_id)
        self.reply(user.administered())


class Roles(AdminEndpoint):
    @described(
        "Give an account roles and take some, in one step",
        "What it has already, or has not, is no error. This server's calls know at once; access tokens that are out "
        "say what they said until they expire.",
        takes="roles",
        gives={200: "admin-user"},
        refuses=(NotFound,),
    )
    @scoped("roles:write")
    async def post(self, user_id: str) -> None:
        body = self.body()
        user = await administration.change_roles(self.admin, user_id, add=body["add"], remove=body["remove"])
        self.reply(user.administered())


class Sessions(AdminEndpoint):
    @described("Where an account is signed in", gives={200: "admin-sessions"}, refuses=(NotFound,))
    @scoped("sessions:read")
    async def get(self, user_id: str) -> None:
        sessions = await administration.list_sessions(self.admin, user_id)
        self.reply({"sessions": [session.administered() for session in sessions]})

    head = get

    @described(
        "End all sessions of an account",
        "And every code and token that was mailed.",
        gives={204: ""},
        refuses=(NotFound,),
    )
    @scoped("sessions:write")
    async def delete(self, user_id: str) -> None:
        await administration.end_sessions(self.admin, user_id)
        self.reply({}, 204)


class OneSession(AdminEndpoint):
    @described("End one session", gives={204: ""}, refuses=(NotFound,))
    @scoped("sessions:write")
    async def delete(self, user_id: str, session_id: str) -> None:
        await administration.end_session(self.admin, user_id, session_id)
        self.reply({}, 204)
