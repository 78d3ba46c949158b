"""Signing up."""

from hydracore.errors import EmailTaken, RegistrationRefused, TokenRefused, TooManyRequests
from hydracore.flows.registration import register
from hydracore.validation import sent_members
from hydracore.web.access import public
from hydracore.web.base import Endpoint
from hydracore.web.client import device_of
from hydracore.web.described import described


@public
class Register(Endpoint):
    @described(
        "Register",
        "A code is mailed that proves the address (/verify-email). A server that does not tell who has an account "
        "answers 202 to everybody, and neither 201 nor 409.",
        takes="register",
        gives={201: "tokens", 202: "message"},
        refuses=(EmailTaken, RegistrationRefused, TokenRefused, TooManyRequests),
        sets_cookies=True,
    )
    async def post(self) -> None:
        body = self.body()
        services = self.web.services
        profile = sent_members(body, services.registry.members)
        grant = await register(
            services,
            body["email"],
            body["password"],
            self.network,
            profile=profile,
            language=self.language,
            device=device_of(self.request),
        )
        if grant is None:
            self.reply({"message": "Look at your mail: it says how to go on."}, 202)
        else:
            await self.leave_session()
            self.sign_in(grant, 201)
