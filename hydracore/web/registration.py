"""Signing up."""

from hydracore.flows.registration import register
from hydracore.validation import sent_members
from hydracore.web.access import public
from hydracore.web.base import Endpoint


@public
class Register(Endpoint):
    async def post(self) -> None:
        body = self.body("register")
        services = self.web.services
        profile = sent_members(body, services.registry.members)
        grant = await register(
            services, body["email"], body["password"], self.network, profile=profile, language=self.language
        )
        if grant is None:
            self.reply({"message": "Look at your mail: it says how to go on."}, 202)
        else:
            await self.leave_session()
            self.sign_in(grant, 201)
