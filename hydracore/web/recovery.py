"""A forgotten password."""

from hydracore.flows.recovery import reset_password
from hydracore.flows.verification import ask_for_mail
from hydracore.web.access import public
from hydracore.web.base import Endpoint


@public
class ForgotPassword(Endpoint):
    async def post(self) -> None:
        body = self.body("forgot-password")
        await ask_for_mail(self.web.services, "reset_password", body["email"], self.network, self.language)
        self.reply({"message": "If this address has an account, a mail is on its way."})


@public
class ResetPassword(Endpoint):
    """Signs nobody in: the new password does."""

    async def post(self) -> None:
        body = self.body("reset-password")
        await reset_password(self.web.services, body["token"], body["new_password"], self.network, self.language)
        self.reply({"message": "The password is set. Sign in with it."})
