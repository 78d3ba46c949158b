"""A forgotten password."""

from hydracore.errors import InvalidToken, ResetRefused, TooManyRequests
from hydracore.flows.recovery import reset_password
from hydracore.flows.verification import ask_for_mail
from hydracore.web.access import public
from hydracore.web.base import Endpoint
from hydracore.web.described import described


@public
class ForgotPassword(Endpoint):
    @described(
        "Ask for a mail that sets a password",
        "The answer is the same, whether or not the address has an account.",
        takes="forgot-password",
        gives={200: "message"},
        refuses=(TooManyRequests,),
    )
    async def post(self) -> None:
        body = self.body()
        await ask_for_mail(self.web.services, "reset_password", body["email"], self.network, self.language)
        self.reply({"message": "If this address has an account, a mail is on its way."})


@public
class ResetPassword(Endpoint):
    """Signs nobody in: the new password does."""

    @described(
        "Set a password by the mailed token",
        "The token is good once, for 30 minutes. Every session of the account ends, and nobody is signed in.",
        takes="reset-password",
        gives={200: "message"},
        refuses=(InvalidToken, ResetRefused, TooManyRequests),
    )
    async def post(self) -> None:
        body = self.body()
        await reset_password(self.web.services, body["token"], body["new_password"], self.network, self.language)
        self.reply({"message": "The password is set. Sign in with it."})
