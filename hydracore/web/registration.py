"""Signing up."""

from hydracore.flows.registration import register
from hydracore.web.base import Endpoint


class Register(Endpoint):
    public = True

    async def post(self) -> None:
        body = self.body("register")
        grant = await register(self.web.services, body["email"], body["password"], self.network)
        if grant is None:
            self.reply({"message": "Look at your mail: it says how to go on."}, 202)
        else:
            self.sign_in(grant, 201)
