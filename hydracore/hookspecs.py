"""Every hook: its contract, an example, and since when.

Two kinds. ``hydracore_register_<plural>`` is asked once, when a HydraCore is made, and returns records; names are
unique among all plugins. Moments are asynchronous and have ``plugins.timeout`` seconds each:
``hydracore_before_<verb>`` may refuse by raising what its contract names (a late or failing one refuses with 503), and
``hydracore_on_event`` listens.

The promise, for as long as :data:`API_VERSION`'s first number stands: no hook goes and none changes its meaning,
arguments and fields of records are only ever added, and an implementation names the arguments that it wants. What is
to go warns in the log for one minor version at least before it goes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from hydracore.events import Event
from hydracore.models import Account
from hydracore.records import (
    Authenticator,
    Collection,
    Command,
    EventListener,
    HealthCheck,
    LimitBackend,
    MailTransport,
    PasswordPolicy,
    ProfileMember,
    Route,
)

API_VERSION = "1.0"

hookspec = pluggy.HookspecMarker("hydracore")
hookimpl = pluggy.HookimplMarker("hydracore")


@hookspec
def hydracore_register_mail_transports() -> Sequence[MailTransport]:  # type: ignore[empty-body]
    """Ways to send mail; ``mail.transport`` chooses one by its name. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.sent = []

            @hookimpl
            def hydracore_register_mail_transports(self):
                return [MailTransport("example", self.send)]

            async def send(self, message, key):
                self.sent.append((message["To"], key))
    """


@hookspec
def hydracore_register_password_policies() -> Sequence[PasswordPolicy]:  # type: ignore[empty-body]
    """Judges of new passwords; all of them are asked, in the plugins' order. Since 1.0.

    They are asked at register, at a reset or a change of the password, and when an operator creates an account. Every
    objection is told at once.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            def hydracore_register_password_policies(self):
                return [PasswordPolicy("example", self.check)]

            def check(self, password, email):
                if "roadrunner" in password.casefold():
                    raise PasswordRefused("Everyone here would guess this one.")
    """


@hookspec
def hydracore_register_limit_backends() -> Sequence[LimitBackend]:  # type: ignore[empty-body]
    """Places to count attempts; ``limits.backend`` chooses one by its name. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.now = context.now
                self.counters = {}

            @hookimpl
            def hydracore_register_limit_backends(self):
                return [LimitBackend("example", self.hit)]

            async def hit(self, key, window, cost):
                now = self.now().timestamp()
                hits, ends = self.counters.get(key, (0, 0))
                if ends <= now:
                    if cost < 0:
                        return Count(0, 0)
                    hits, ends = 0, now + window
                self.counters[key] = max(hits + cost, 0), ends
                return Count(self.counters[key][0], ends - now)
    """


@hookspec
def hydracore_register_authenticators() -> Sequence[Authenticator]:  # type: ignore[empty-body]
    """Other places than HydraCore's own accounts that know who someone is; ``login.authenticators`` names and
    orders them. Since 1.0.

    Login and token ask them in that order until one vouches. The first time, an account is made for the address; it
    has no password here and gets no reset mail. Where the address has an account with a password already,
    a proven identity signs in to it; one that is not proven does not.

    Example::

        class Example:
            def __init__(self, context):
                self.people = {"ada@example.com": "the engine weaves algebra"}

            @hookimpl
            def hydracore_register_authenticators(self):
                return [Authenticator("example", self.authenticate)]

            async def authenticate(self, email, password):
                known = self.people.get(email.lower(), "")
                right = hmac.compare_digest(known.encode(), password.encode())
                return Identity(email_verified=True) if known and right else None
    """


@hookspec
def hydracore_register_routes() -> Sequence[Route]:  # type: ignore[empty-body]
    """Calls of the plugin's own, under the prefix. Since 1.0.

    An endpoint says whom it answers, by a decorator on the class or on a method: ``public`` (anyone), ``unverified``
    (whoever is signed in), ``verified`` (who has proven the address, too) or ``require_role("admin")`` (who has that
    role, too). One that does not say stops the start.
    Bodies, errors, cookies and origins are treated as in every other call, which has ``plugins.timeout`` seconds.

    Example::

        class Example:
            def __init__(self, context):
                self.greeting = "Hello"

            @hookimpl
            def hydracore_register_routes(self):
                return [Route("/example/greeting/{name}", Greeting)]


        @verified
        class Greeting(Endpoint):
            async def get(self, name):
                self.reply({"greeting": f"{self.plugin.greeting} {name}", "from": self.caller.email})
    """


@hookspec
def hydracore_register_commands() -> Sequence[Command]:  # type: ignore[empty-body]
    """Commands of ``hydracore``. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.context = context

            @hookimpl
            def hydracore_register_commands(self):
                email = click.Argument(["email"])
                return [Command("example", click.Command("example", callback=self.show, params=[email]))]

            async def show(self, email):
                account = await self.context.find_account(email)
                click.echo(f"{email} {'has an account' if account else 'is unknown'}.")
    """


@hookspec
def hydracore_register_collections() -> Sequence[Collection]:  # type: ignore[empty-body]
    """Collections that the plugin owns, with their indexes. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.context = context

            @hookimpl
            def hydracore_register_collections(self):
                return [Collection("notes", [Index([("at", 1)], expire_after=86_400)])]

            async def note(self, text):
                await self.context.collection("notes").insert_one({"text": text, "at": self.context.now()})
    """


@hookspec
def hydracore_register_profile_members() -> Sequence[ProfileMember]:  # type: ignore[empty-body]
    """Members that register accepts beside ``email`` and ``password``. Since 1.0.

    What is kept is in the account's ``profile``, which ``/auth/me`` shows, ``before_`` hooks get and
    ``current_user`` has.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            def hydracore_register_profile_members(self):
                name = {"type": "string", "minLength": 1, "maxLength": 80}
                return [ProfileMember("display_name", name, required=True)]
    """


@hookspec
def hydracore_register_event_listeners() -> Sequence[EventListener]:  # type: ignore[empty-body]
    """Listeners that hear events in order and in batches, and get again what they failed to take. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.seen = []

            @hookimpl
            def hydracore_register_event_listeners(self):
                return [EventListener("example", self.listen, of=(events.Registered, events.UserDeleted))]

            async def listen(self, batch):
                self.seen += batch
    """


@hookspec
def hydracore_register_health_checks() -> Sequence[HealthCheck]:  # type: ignore[empty-body]
    """What ``hydracore plugins list`` asks to say whether a plugin's surroundings are well. Since 1.0.

    Example::

        class Example:
            def __init__(self, context):
                self.folder, self.in_thread = context.data_dir, context.in_thread

            @hookimpl
            def hydracore_register_health_checks(self):
                return [HealthCheck("example", self.check)]

            async def check(self):
                there = await self.in_thread(self.folder.is_dir)
                return "" if there else f"{self.folder} is not there"
    """


@hookspec
async def hydracore_before_register(email: str, network: str, profile: Mapping[str, Any]) -> None:
    """Someone is about to register. Raise ``RegistrationRefused`` to refuse. Since 1.0.

    ``email`` is the address as it would be stored, ``network`` the client's, ``profile`` what registered members
    were sent, those that are not kept too. It is asked for known and unknown addresses alike and must not tell them
    apart. It may be asked again for one registration that the client repeats.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            async def hydracore_before_register(self, email):
                if not email.lower().endswith("@example.com"):
                    raise RegistrationRefused("Only people of example.com may register here.")
    """


@hookspec
async def hydracore_before_login(account: Account, network: str, authenticator: str) -> None:
    """Someone has proven who they are and is about to be signed in. Raise ``LoginRefused`` to refuse. Since 1.0.

    It is asked once the credentials are right, so that a refusal tells nothing to anyone else: at login and token
    (``authenticator`` is "password", or the one that vouched) and at verify-email ("code"; the code stays good). It is
    not asked at register, which signs in too, nor at refresh, nor where a change of the password or the address begins
    the caller's session anew: what is to keep someone out altogether also refuses in
    ``hydracore_before_register`` and ``hydracore_before_issue_token``.

    Example::

        class Example:
            def __init__(self, context):
                self.now = context.now

            @hookimpl
            async def hydracore_before_login(self, account):
                if self.now().weekday() == 6 and not account.email.endswith("@sunday.example"):
                    raise LoginRefused("On Sundays we rest.")
    """


@hookspec
async def hydracore_before_issue_token(account: Account, session_id: str, network: str) -> Mapping[str, Any] | None:
    """An access token is about to be issued, at a sign-in or a refresh. Return claims to add, or None; raise
    ``TokenRefused`` to refuse. Since 1.0.

    A claim's name begins with the plugin's name and a colon, or is a URL (RFC 7519, section 4.2), so that it cannot be
    taken for one of HydraCore's; it is none that another plugin adds, nor that of ``roles.claim``. All claims together
    have 2,048 bytes as JSON: they travel in a cookie. It is asked before anything is used up: after a refusal or a 503
    the refresh token, or the mailed code, is still good.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            async def hydracore_before_issue_token(self, account):
                staff = account.email_verified and account.email.endswith("@example.com")
                return {"https://example.com/roles": ["staff"] if staff else []}
    """


@hookspec
async def hydracore_before_reset_password(account: Account, network: str) -> None:
    """Someone with a mailed token, or with the current password, is about to set a new one. Raise ``ResetRefused`` to
    refuse. Since 1.0.

    The token stays good. Policies judge the password itself.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            async def hydracore_before_reset_password(self, account):
                if account.email.startswith("shared-"):
                    raise ResetRefused("Ask the help desk for the password of this account.")
    """


@hookspec
async def hydracore_before_change_email(account: Account, email: str, network: str) -> None:
    """Someone who has given the password is about to be mailed a code that gives the account another address. Raise
    ``ChangeRefused`` to refuse. Since 1.0.

    ``email`` is the address as it would be stored. What refuses addresses in ``hydracore_before_register`` refuses them
    here too, or people change to them later. It is asked for known and unknown addresses alike and must not tell them
    apart.

    Example::

        class Example:
            def __init__(self, context):
                pass

            @hookimpl
            async def hydracore_before_change_email(self, account, email):
                if account.email.endswith("@example.com") and not email.lower().endswith("@example.com"):
                    raise ChangeRefused("People of example.com stay there.")
    """


@hookspec
async def hydracore_on_event(event: Event) -> None:
    """Something happened (see ``hydracore.events``). Since 1.0.

    A listener cannot refuse: its failure is logged and harms nobody. It runs beside the request that it tells of;
    events that come close together may be heard in any order. Where order or completeness counts, register an
    event listener.

    Example::

        class Example:
            def __init__(self, context):
                self.failures = 0

            @hookimpl
            async def hydracore_on_event(self, event):
                if isinstance(event, events.LoginFailed):
                    self.failures += 1
    """
