"""Sessions: refresh, log out, and who is signed in."""

from hydracore.errors import InvalidRefreshToken, TokenRefused
from hydracore.flows.session import log_out, refresh
from hydracore.web.access import public, unverified
from hydracore.web.base import Endpoint, bearer_token
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
        grant = await refresh(self.web.services, token, self.network)
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
