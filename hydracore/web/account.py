"""What owners do to their accounts."""

from hydracore.errors import (
    ChangeRefused,
    EmailTaken,
    InvalidCode,
    InvalidPassword,
    InvalidToken,
    PasswordElsewhere,
    ResetRefused,
    TokenRefused,
    TooManyRequests,
)
from hydracore.flows.address import change_email, confirm_email, undo_email_change
from hydracore.flows.closing import undo_deletion
from hydracore.flows.credentials import change_password
from hydracore.flows.export import export_account
from hydracore.web.access import public, verified
from hydracore.web.base import Endpoint
from hydracore.web.client import device_of
from hydracore.web.described import described


@verified
class ChangePassword(Endpoint):
    """The session begins anew, and all others end."""

    @described(
        "Set another password",
        "By the current one. Every session of the account ends, and a new one begins here.",
        takes="change-password",
        gives={200: "tokens"},
        refuses=(InvalidPassword, PasswordElsewhere, ResetRefused, TokenRefused, TooManyRequests),
        sets_cookies=True,
    )
    async def post(self) -> None:
        body = self.body()
        grant = await change_password(
            self.web.services,
            self.caller,
            body["current_password"],
            body["new_password"],
            self.network,
            language=self.language,
            device=device_of(self.request),
        )
        self.sign_in(grant)


@verified
class ChangeEmail(Endpoint):
    @described(
        "Ask for another address",
        "A code is mailed there. The answer is the same, whoever has that address.",
        takes="change-email",
        gives={200: "message"},
        refuses=(InvalidPassword, PasswordElsewhere, ChangeRefused, TooManyRequests),
    )
    async def post(self) -> None:
        body = self.body()
        services = self.web.services
        await change_email(services, self.caller, body["password"], body["email"], self.network, self.language)
        self.reply({"message": "Look at the mail of that address: it says how to go on."})


@verified
class ConfirmEmail(Endpoint):
    """The session begins anew, and all others end."""

    @described(
        "Prove another address by the mailed code",
        "The code is good once, for 10 minutes, and the account has that address from then on. Every session of the "
        "account ends, and a new one begins here. The former address is mailed a token that undoes it.",
        takes="confirm-email",
        gives={200: "tokens"},
        refuses=(InvalidCode, TokenRefused, EmailTaken, TooManyRequests),
        sets_cookies=True,
    )
    async def post(self) -> None:
        code, device = self.body()["code"], device_of(self.request)
        services = self.web.services
        grant = await confirm_email(services, self.caller, code, self.network, language=self.language, device=device)
        self.sign_in(grant)


@public
class UndoEmailChange(Endpoint):
    """For whoever reads the former address's mail, signed in or not. Signs nobody in."""

    @described(
        "Bring the former address back by the mailed token",
        "Every session of the account ends, the password is void, and nobody is signed in: a mail to the address that "
        "is back sets a new one.",
        takes="undo-email-change",
        gives={200: "message"},
        refuses=(InvalidToken, EmailTaken, TooManyRequests),
    )
    async def post(self) -> None:
        token = self.body()["token"]
        await undo_email_change(self.web.services, token, self.network, self.language)
        self.reply({"message": "The address is back. A mail on its way there says how to set a new password."})


@public
class UndoDeletion(Endpoint):
    """For whoever reads the account's mail. Signs nobody in."""

    @described(
        "Open a closed account again by the mailed token",
        "Until it is deleted for good. Nobody is signed in: the password does that.",
        takes="undo-deletion",
        gives={200: "message"},
        refuses=(InvalidToken, TooManyRequests),
    )
    async def post(self) -> None:
        await undo_deletion(self.web.services, self.body()["token"], self.network)
        self.reply({"message": "The account is open again. Sign in."})


@verified
class Export(Endpoint):
    @described("Everything that is held about the caller", "No secret is among it.", gives={200: "export"})
    async def get(self) -> None:
        self.reply(await export_account(self.web.services, self.caller))

    head = get
