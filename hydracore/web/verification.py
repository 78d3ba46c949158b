"""Proof of an address."""

from hydracore.flows.verification import ask_for_mail, verify_email
from hydracore.web.access import public
from hydracore.web.base import Endpoint, bearer_token


@public
class VerifyEmail(Endpoint):
    async def post(self) -> None:
        body = self.body("verify-email")
        held = bearer_token(self.request) or self.web.cookies.access_token(self.request.cookies)
        services, language = self.web.services, self.language
        self.sign_in(await verify_email(services, body["email"], body["code"], held, self.network, language=language))


@public
class ResendVerification(Endpoint):
    async def post(self) -> None:
        body = self.body("resend-verification")
        await ask_for_mail(self.web.services, "verify_email", body["email"], self.network, self.language)
        self.reply({"message": "If this address has an unverified account, a code is on its way."})
