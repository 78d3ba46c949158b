"""What has to fit together: names, versions, records. Each complaint names both parties and the remedy."""

import difflib
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from hydracore.config import Config, check_section, load_schema
from hydracore.discovery import NAME, Installed, fitting_name, misnamed, selected
from hydracore.errors import ConfigError, PluginError, StartupError
from hydracore.hookspecs import API_VERSION
from hydracore.logs import logger
from hydracore.records import Collection, Command, Context, Count, Identity, MailTransport, ProfileMember, Route
from hydracore.validation import compiled, storable

log = logger("hydracore.plugins")

Factory = Callable[[Context], object]
Record = TypeVar("Record")

OUR_COMMANDS = frozenset(
    (
        *("admin", "bench", "check-config", "explain", "keys", "mail", "openapi", "plugins", "secret", "selftest"),
        *("serve", "sessions", "users", "webhooks"),
    )
)
# Under the prefix; those that are not there yet are kept for what is to come.
OUR_WORDS = frozenset(
    (
        *("register", "login", "token", "refresh", "logout", "me", "sessions", "account", "admin", "export"),
        *("verify-email", "resend-verification", "forgot-password", "reset-password", "change-email"),
        *("change-password", "confirm-email", "undo-email-change", "undo-deletion", "openapi.json", "docs"),
    )
)
_CLAIMS_BYTES = 2048
_PROFILE_BYTES = 65_536
_OURS, _PYTHONS = Path(__file__).parent, Path(traceback.__file__).parent
_MEMBER = re.compile("[a-z][a-z0-9_]{0,63}")
_OWNER = re.compile("[A-Za-z0-9_.-]{1,64}")


def make(name: str, factory: Factory | Installed, context: Context) -> object:
    """The plugin. Raises :class:`PluginError` whatever its module or its class does."""
    try:
        made_by = factory.load() if isinstance(factory, Installed) else factory
        check_version(name, made_by)
        _check_takes_one(name, made_by)
        return _made(name, made_by(context))
    except StartupError as error:
        raise PluginError(name, str(error)) from error
    except ImportError as error:
        raise PluginError(name, f"The plugin {name} cannot be imported: {error}.{_extra(name, factory)}") from error
    except KeyboardInterrupt:
        _tell_interrupted(name)
        raise
    except BaseException as error:
        raise PluginError(
            name, f"The plugin {name} cannot be made{place(error)}: {type(error).__name__}: {error}"
        ) from error


def _tell_interrupted(name: str) -> None:
    """Somebody's Ctrl-C ends the start; so does a plugin that raises its like, and the two cannot be told apart."""
    log.error(f"the start was interrupted while the plugin {name} was loading", plugin=name)


def _made(name: str, plugin: object) -> object:
    if inspect.iscoroutine(plugin):
        plugin.close()
        raise PluginError(name, f"The plugin {name} is made by a coroutine function: write def, not async def.")
    if plugin is None:
        raise PluginError(name, f"The plugin {name} is made by a function that returns None: return the plugin.")
    return plugin


def _check_takes_one(name: str, factory: Callable[..., object]) -> None:
    with suppress(ValueError):  # It is of C, and does not tell.
        try:
            inspect.signature(factory).bind(None)
        except TypeError as error:
            raise PluginError(
                name, f"The plugin {name} is made with one argument, its context: write def __init__(self, context)."
            ) from error


def place(error: BaseException) -> str:
    """Where in a plugin it was raised: the innermost step that is neither ours nor Python's own."""
    for step in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(step.filename)
        pythons = file.is_relative_to(_PYTHONS) and "site-packages" not in file.parts
        if not file.is_relative_to(_OURS) and not pythons:
            return f" ({file.name}, line {step.lineno})"
    return ""


def _extra(name: str, factory: Factory | Installed) -> str:
    if isinstance(factory, Installed) and factory.distribution == "hydracore":
        return f' Perhaps: pip install "hydracore[{name.partition("_")[2]}]".'
    return ""


def check_names(config: Config, known: Mapping[str, Installed], extra: Iterable[str]) -> None:
    """Every plugin that the configuration names is there, once, and may be called so, as those may that a host hands
    in; and its section is right, loaded or not."""
    every = {*known, *extra}
    for source, names in (("plugins.enabled", config.plugins.enabled), ("[plugins.…]", config.plugins.sections)):
        for name in names:
            if name not in every:
                raise ConfigError(
                    f"{source} names {name}, and no such plugin is installed{meant(name, every, 'installed')}"
                    f"{_misnamed(config, name)}"
                )
    for name in dict.fromkeys((*extra, *selected(config), *config.plugins.sections)):
        if name in every:
            _check_name(name, None if name in extra else known[name])
    for name in set(config.plugins.sections) & set(known) - set(extra):
        check_section(name, config.plugins.sections[name], known[name].schema())


def name_flaw(name: str) -> str:
    """Why no plugin may be called ``name``, in words; "" where one may."""
    if not NAME.fullmatch(name):
        return "a name has lower-case letters, digits and single _ between them, and begins with a letter"
    if (path := name.replace("_", "-")) in OUR_WORDS:
        return f"/{path} is HydraCore's own path"
    if name in load_schema()["properties"]["plugins"]["properties"]:
        return f"plugins.{name} is a setting, so there is no section for it"
    return ""


def _check_name(name: str, source: Installed | None) -> None:
    if source is not None and source.clash:
        raise PluginError(name, source.clash)
    if flaw := name_flaw(name):
        where = "its key in HydraCore(plugins=...)"
        if source is not None:
            where = str(source.file) if source.file else f"its entry point in {source.distribution}"
        fits = fitting_name(name)
        example = f" {fits}, say" if fits and not name_flaw(fits) else ""
        raise PluginError(name, f"The plugin {name} cannot be called so: {flaw}. Rename {where}:{example}.")


def _misnamed(config: Config, name: str) -> str:
    file = misnamed(Path(config.plugins.dir), name) if config.plugins.dir else None
    if file is None:
        return ""
    what = file.parent if file.name == "__init__.py" else file
    return f" There is {what}, and no plugin may be called so: rename it {fitting_name(name)}{what.suffix}."


def check_version(name: str, plugin: object) -> None:
    """A plugin may say ``requires_api = "1.2"``: the same first number, and not more than we have."""
    wanted = getattr(plugin, "requires_api", API_VERSION)
    try:
        major, minor = (int(part) for part in str(wanted).split("."))
    except ValueError as error:
        raise PluginError(name, f'The plugin {name} has requires_api = {wanted!r}; write it as "1.0".') from error
    ours = [int(part) for part in API_VERSION.split(".")]
    if major != ours[0] or minor > ours[1]:
        raise PluginError(
            name,
            f"The plugin {name} requires the hook API {wanted}, and this HydraCore has {API_VERSION}. "
            f"Install a {name} made for {API_VERSION}, or a HydraCore that has {wanted}.",
        )


def check_spelling(name: str, plugin: object, specs: ModuleType) -> None:
    """What looks like a hook is one, whole: pluggy alone would pass over a misspelt name, or a missing mark."""
    known = [hook for hook in dir(specs) if hook.startswith("hydracore_")]
    for attribute in dir(plugin):
        # Looked at without being asked: a property may need what is not there yet.
        found = inspect.getattr_static(plugin, attribute, None)
        marked = hasattr(getattr(found, "__func__", found), "hydracore_impl")
        if not (marked or attribute.startswith("hydracore_")):
            continue
        if attribute not in known:
            raise PluginError(
                name,
                f"The plugin {name} implements {attribute}, and HydraCore has no such hook"
                f"{meant(attribute, known, 'it has')}",
            )
        if not marked:
            raise PluginError(name, f"The plugin {name} has {attribute} without @hookimpl, so nobody would call it.")
        given = inspect.signature(getattr(specs, attribute)).parameters
        for argument, how in inspect.signature(getattr(plugin, attribute)).parameters.items():
            if how.kind != how.POSITIONAL_OR_KEYWORD or how.default is not how.empty:
                raise PluginError(
                    name,
                    f"The plugin {name} takes {how} in {attribute}, which it would never be given: write {argument} "
                    "without a default, a star or a slash.",
                )
            if argument not in given:
                raise PluginError(
                    name,
                    f"The plugin {name} wants {argument} in {attribute}, which is not given"
                    f"{meant(argument, given, 'given are')}",
                )


def check_kind(name: str, hook: str, function: Callable[..., Any]) -> None:
    """What registers is a plain function, a moment is a coroutine function."""
    wants_async = not hook.startswith("hydracore_register_")
    if inspect.iscoroutinefunction(function) != wants_async:
        said = "async def." if wants_async else "def, not async def."
        raise PluginError(name, f"The plugin {name} must write {hook} as {said}")


def registered(owner: str, hook: str, function: Callable[[], Any]) -> list[Any]:
    """What a plugin registers. Raises :class:`PluginError` where it fails, or returns no list."""
    try:
        return list(function())
    except StartupError as error:
        raise PluginError(owner, str(error)) from error
    except KeyboardInterrupt:
        _tell_interrupted(owner)
        raise
    except BaseException as error:
        raise PluginError(
            owner,
            f"The plugin {owner} failed in {hook}, which returns a list{place(error)}: {type(error).__name__}: {error}",
        ) from error


def refuse_twice(owner: str, kind: str, name: str, other: str) -> NoReturn:
    """Of a name that a record has already, which ``other`` registered."""
    if other == owner:
        raise PluginError(owner, f"The plugin {owner} registers a {kind} named {name} twice. Take one of them out.")
    raise PluginError(
        owner,
        f"Two plugins register a {kind} named {name}: {other} and {owner}. Take one of them out of plugins.enabled.",
    )


def check_path(owner: str, route: Route) -> None:
    """A plugin's paths are its own: no other plugin and no later HydraCore can want the same."""
    first = route.path.split("/")[1] if route.path.startswith("/") else ""
    if first in OUR_WORDS:
        raise PluginError(
            owner,
            f"The plugin {owner} registers the path {route.path}; /{first} is HydraCore's own. Rename the plugin.",
        )
    if first.replace("-", "_") != owner:
        raise PluginError(
            owner,
            f"The plugin {owner} registers the path {route.path}; its paths begin with /{owner.replace('_', '-')}.",
        )


def check_collection(owner: str, collection: Collection) -> None:
    """A plugin that has collections has a name that MongoDB takes for theirs."""
    if owner.partition(".")[0] == "system" or not _OWNER.fullmatch(owner):
        raise PluginError(
            owner,
            f"The plugin {owner} registers the collection {collection.name}, which would be {owner}.{collection.name}, "
            "a name that MongoDB does not take, or keeps for itself. Rename the plugin.",
        )


def check_member(owner: str, member: ProfileMember) -> None:
    """A member of register has a name of its own and a schema."""
    if not _MEMBER.fullmatch(member.name) or member.name in ("email", "password"):
        raise PluginError(
            owner,
            f"The plugin {owner} registers the member {member.name!r}: a name has lower-case letters, digits and _, "
            "and is neither email nor password.",
        )
    try:
        compiled(member.schema)
    except ValueError as error:
        raise PluginError(
            owner, f"The plugin {owner} registers the member {member.name} with a schema that is none: {error}"
        ) from error


def check_command(owner: str, command: Command) -> None:
    """A plugin's command does not stand in the way of ours."""
    if command.name in OUR_COMMANDS:
        raise PluginError(
            owner, f"The plugin {owner} registers the command {command.name}, which is HydraCore's own. Rename it."
        )


def check_over(
    transport: MailTransport, transports: Mapping[str, MailTransport], owner: str, above: tuple[str, ...] = ()
) -> None:
    """The transports that one hands over to are there, and it is not among them."""
    for name in transport.over:
        if name not in transports:
            raise PluginError(
                owner,
                f"The plugin {owner} hands mail over to {name}, which no loaded plugin registers"
                f"{meant(name, transports, 'there are')} Perhaps add mail_{name} to plugins.enabled.",
            )
        if name in (*above, transport.name):
            raise PluginError(owner, f"The plugin {owner} hands mail over in a circle, by way of {name}.")
        check_over(transports[name], transports, owner, (*above, transport.name))


def check_delivery(config: Config, transport: MailTransport, transports: Mapping[str, MailTransport]) -> None:
    """Beside a database of one's own, mail reaches people."""

    def delivers(one: MailTransport) -> bool:
        return one.delivers and all(delivers(transports[name]) for name in one.over)

    if config.store.uri and not delivers(transport) and not config.mail.allow_undelivered:
        raise ConfigError(
            f"mail.transport is {transport.name}, which delivers to nobody, and store.uri is set, so this is no trial. "
            "Set mail.transport to smtp or resend (HYDRACORE_MAIL__TRANSPORT), or, to go without mail on purpose, "
            "mail.allow_undelivered to true."
        )


def choose(records: Mapping[str, Record], setting: str, name: str, names: Iterable[str]) -> Record:
    """The record that a setting names; ``names`` are what could be chosen."""
    if name not in records:
        raise ConfigError(
            f"{setting} is {name}, which no loaded plugin registers{meant(name, {*records, *names}, 'there are')}"
            " If a plugin of yours does, add it to plugins.enabled."
        )
    return records[name]


def meant(name: str, known: Iterable[str], have: str) -> str:
    """The rest of a sentence: what was near, or what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f" ({have}: {', '.join(known) or 'none'})."


def checked_identity(answer: Any) -> Identity | None:
    """An authenticator's answer. Raises ``TypeError`` or ``ValueError`` for what is none, or what no account holds."""
    if answer is None:
        return None
    if not isinstance(answer, Identity):
        raise TypeError(f"an authenticator returns an Identity or None, not {type(answer).__name__}")
    # Not what passes for one: "FALSE" would prove the address.
    if not isinstance(answer.email_verified, bool):
        raise TypeError(f"email_verified of an identity is a bool, not {type(answer.email_verified).__name__}")
    written = json.dumps(dict(answer.profile), allow_nan=False, ensure_ascii=False).encode()
    if len(written) > _PROFILE_BYTES:
        raise ValueError(f"the profile of the identity has {len(written)} bytes of JSON, more than {_PROFILE_BYTES}")
    profile = json.loads(written)
    if not storable(profile):
        raise ValueError("the profile of the identity holds a number, a name or a depth that cannot be kept")
    return Identity(answer.email_verified, profile)


def check_nothing(what: str, answer: Any, does: str = "refuses by raising") -> None:
    """What refuses by raising returns nothing. Raises ``TypeError``: whoever returns False meant to refuse."""
    if answer is not None:
        raise TypeError(f"{what} {does}, and returns nothing: not {type(answer).__name__}")


def checked_words(answer: Any) -> str:
    """A health check's answer. Raises ``TypeError`` for what is none."""
    if not isinstance(answer, str):
        raise TypeError(f'a health check returns a sentence, or "" when all is well, not {type(answer).__name__}')
    return answer


def checked_count(answer: Any, window: int) -> Count:
    """A limit backend's answer. Raises ``TypeError`` or ``ValueError`` for what is none."""
    if not (isinstance(answer, Count) and isinstance(answer.hits, int) and isinstance(answer.resets_in, int | float)):
        raise TypeError(f"a limit backend returns a Count of numbers, not {answer!r}")
    if not 0 <= answer.resets_in <= window + 1:
        raise ValueError(f"a counter starts again within its window of {window} s, not in {answer.resets_in} s")
    return answer


def checked_claims(owner: str, answer: Any, others: Mapping[str, Any], roles: str) -> Mapping[str, Any]:
    """A plugin's claims, none of which is the one of ``roles``, whether or not there are any. Raises ``TypeError`` or
    ``ValueError`` for what no access token may hold."""
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise TypeError(f"claims are a mapping or None, not {type(answer).__name__}")
    for name in answer:
        if not (isinstance(name, str) and name.startswith((f"{owner}:", "https://", "http://"))):
            raise ValueError(f"the claim {name!r} begins neither with {owner}: nor with a URL")
        if name == roles:
            raise ValueError(f"the claim {name} is that of roles.claim")
        if name in others:
            raise ValueError(f"the claim {name} is another plugin's already")
    written = json.dumps({**others, **answer}, allow_nan=False, ensure_ascii=False).encode()
    if len(written) > _CLAIMS_BYTES:
        raise ValueError(f"all claims together have {len(written)} bytes, more than {_CLAIMS_BYTES}")
    return answer
