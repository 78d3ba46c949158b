"""Sessions: refresh, log out, who is signed in, and where else."""

from hydracore.errors import (
    InvalidPassword,
    InvalidRefreshToken,
    NotFound,
    PasswordElsewhere,
    TokenRefused,
    TooManyRequests,
)
from hydracore.flows.closing import close_account
from hydracore.flows.session import log_out, refresh
from hydracore.flows.signins import end_others, end_session, list_sessions
from hydracore.web.access import public, unverified, verified
from hydracore.web.base import Endpoint, bearer_token
from hydracore.web.client import device_of
from hydracore.web.described import described


@public
class Refresh(Endpoint):
    """From the body, or from the cookie; what came by cookie goes back by cookie."""

    @described(
        "Refresh tokens",
        "By the refresh token of the body or, where that is empty, of the cookie; in the latter case alone cookies "
        "come along. A token that was used before gets the same successor for a while; after that its session ends.",
        takes="refresh",
        gives={200: "tokens"},
        refuses=(InvalidRefreshToken, TokenRefused),
        by=("none", "refresh_cookie"),
        sets_cookies=True,
    )
    async def post(self) -> None:
        given = self.body()["refresh_token"]
        token = given or self.web.cookies.refresh_token(self.request.cookies)
        if not token:
            raise InvalidRefreshToken().because("no refresh token came")
        grant = await refresh(self.web.services, token, self.network, device_of(self.request))
        if given:
            self.reply(grant.public())
        else:
            self.sign_in(grant)


@public
class Logout(Endpoint):
    """Ends every session whose token came along; says 204 whatever came."""

    @described(
        "Log out",
        "Ends every session whose token comes along, in the body, a cookie or the Authorization header.",
        takes="logout",
        gives={204: ""},
        by=("none", "bearer", "cookie", "refresh_cookie"),
        sets_cookies=True,
    )
    async def post(self) -> None:
        cookies, jar = self.web.cookies, self.request.cookies
        given = self.body()["refresh_token"]
        tokens = [token for token in (given, cookies.refresh_token(jar)) if token]
        access_token = bearer_token(self.request) or cookies.access_token(jar)
        await log_out(self.web.services, tokens, access_token, self.network)
        cookies.clear(self)
        self.set_status(204)


@unverified
class Me(Endpoint):
    """Answers unverified users too, so that a front end can ask them to look at their mail."""

    @described("Who is signed in", "Whether or not the address is proven.", gives={200: "user"})
    async def get(self) -> None:
        self.reply(self.caller.public())

    head = get

    @verified
    @described(
        "Close the account",
        "By its password. Every session ends, and the account is deleted for good at `deleted_at`, unless the mailed "
        "token opens it again before.",
        takes="delete-account",
        gives={200: "closed"},
        refuses=(InvalidPassword, PasswordElsewhere, TooManyRequests),
        sets_cookies=True,
    )
    async def delete(self) -> None:
        password = self.body()["password"]
        ends_at = await close_account(self.web.services, self.caller, password, self.network, self.language)
        self.web.cookies.clear(self)
        self.reply({"message": "The account is closed. Look at your mail.", "deleted_at": ends_at.isoformat()})


@verified
class Sessions(Endpoint):
    """Where the caller is signed in."""

    @described("Where the caller is signed in", "The 100 latest used, the latest first.", gives={200: "sessions"})
    async def get(self) -> None:
        found = await list_sessions(self.web.services, self.caller)
        self.reply({"sessions": [session.public(self.caller.session_id) for session in found]})

    head = get


@verified
class OneSession(Endpoint):
    @described(
        "End a session",
        "One of the caller's own; with the one that asks, its cookies go.",
        gives={204: ""},
        refuses=(NotFound,),
        sets_cookies=True,
    )
    async def delete(self, session_id: str) -> None:
        await end_session(self.web.services, self.caller, session_id, self.network)
        if session_id == self.caller.session_id:
            self.web.cookies.clear(self)
        self.set_status(204)


@verified
class RevokeOthers(Endpoint):
    @described("End all sessions but this one", takes="revoke-others", gives={200: "ended"})
    async def post(self) -> None:
        self.body()
        self.reply({"ended": await end_others(self.web.services, self.caller, self.network)})
