"""Proof of an address."""

from hydracore.errors import InvalidCode, TokenRefused, TooManyRequests
from hydracore.flows.verification import ask_for_mail, verify_email
from hydracore.web.access import public
from hydracore.web.base import Endpoint, bearer_token
from hydracore.web.client import device_of
from hydracore.web.described import described


@public
class VerifyEmail(Endpoint):
    @described(
        "Prove an address by the mailed code",
        "The code is good once, for 10 minutes. The new tokens say that the address is proven. Send the access token "
        "of the registration along: without it the sessions of before end.",
        takes="verify-email",
        gives={200: "tokens"},
        refuses=(InvalidCode, TokenRefused, TooManyRequests),
        by=("none", "bearer", "cookie"),
        sets_cookies=True,
    )
    async def post(self) -> None:
        body = self.body()
        held = bearer_token(self.request) or self.web.cookies.access_token(self.request.cookies)
        grant = await verify_email(
            self.web.services,
            body["email"],
            body["code"],
            held,
            self.network,
            language=self.language,
            device=device_of(self.request),
        )
        self.sign_in(grant)


@public
class ResendVerification(Endpoint):
    @described(
        "Ask for another code",
        "The answer is the same, whether or not the address has an account that waits for one.",
        takes="resend-verification",
        gives={200: "message"},
        refuses=(TooManyRequests,),
    )
    async def post(self) -> None:
        body = self.body()
        await ask_for_mail(self.web.services, "verify_email", body["email"], self.network, self.language)
        self.reply({"message": "If this address has an unverified account, a code is on its way."})
