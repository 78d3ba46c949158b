"""Our own JSON lines: an account from one, and one from an account. They hold all of it but what others keep about it
(sessions, codes, mail) and its epoch."""

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from hydracore.addresses import parse_address
from hydracore.chance import Now, Token
from hydracore.errors import Problem, ValidationFailed
from hydracore.foreign import ForeignHash, read_hash
from hydracore.models import Former, User
from hydracore.passwords import Stored
from hydracore.records import ProfileMember
from hydracore.validation import Schemas, schemas_in, storable

_EVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Draft:
    """An account to be: ``user`` without its password, which ``foreign`` is, or ``wrapped``, our own notation of one
    from elsewhere. ``given`` names the members that the line has."""

    user: User
    given: frozenset[str]
    foreign: ForeignHash | None = field(default=None, repr=False)
    wrapped: Stored | None = field(default=None, repr=False)

    @property
    def keys(self) -> list[str]:
        """Those of all addresses that nobody else may have."""
        return [self.user.address_key, *(entry["key"] for entry in self.user.addresses)]


class Lines:
    """Lines into accounts. ``members`` are what plugins let the profile hold; that of an account which belongs to an
    authenticator holds what the authenticator likes."""

    def __init__(self, members: Iterable[ProfileMember], now: Now, token: Token) -> None:
        ours = schemas_in(resources.files("hydracore.schemas") / "moving")["user"]
        theirs = deepcopy(ours)
        ours["properties"]["profile"]["properties"] = {member.name: member.schema for member in members if member.keep}
        del theirs["properties"]["profile"]["additionalProperties"]
        self._schemas = Schemas({"ours": ours, "theirs": theirs})
        self._now = now
        self._token = token

    def draft(self, value: Any) -> Draft:
        """Raises :class:`ValidationFailed`."""
        lent = isinstance(value, Mapping) and bool(value.get("authenticator"))
        members = self._schemas.check("theirs" if lent else "ours", value)
        problems: list[Problem] = []

        def tried(name: str, of: Any, *arguments: Any) -> Any:
            try:
                return of(*arguments)
            except ValueError as error:
                problems.append(Problem(("body", name), str(error), "value_error"))

        now = self._now()
        created_at = tried("created_at", _moment, members["created_at"]) if members["created_at"] else _exact(now)
        formers = tried("former_addresses", _formers, members["former_addresses"])
        closing = tried("closing", _closing, members["closing"])
        encoded = members["password_hash"]
        foreign, wrapped = tried("password_hash", _hash, encoded) or (None, None)
        if encoded and lent:
            problems.append(Problem(("body", "password_hash"), "An authenticator's account has none.", "value_error"))
        if not storable(members["profile"]):
            problems.append(Problem(("body", "profile"), "This holds what cannot be kept.", "value_error"))
        if problems:
            raise ValidationFailed(problems)
        address = parse_address(members["email"])
        user = User(
            id=members["id"] or self._token(16),
            email=address.email,
            address_key=address.key,
            password_hash="",
            created_at=created_at,
            email_verified=members["email_verified"],
            disabled=members["disabled"] or closing is not None,
            profile=members["profile"],
            authority=members["authenticator"],
            networks=members["networks"],
            language=members["language"],
            addresses=formers,
            closing=closing,
            roles=sorted(set(members["roles"])),
        )
        return Draft(user, frozenset(value), foreign, wrapped)


def line_of(user: User) -> str:
    """All that :meth:`Lines.draft` takes back, without what says nothing."""
    formers = [_without(asdict(former), "key") for former in user.formers(_EVER)]
    members = {
        "id": user.id,
        "email": user.email,
        "email_verified": user.email_verified,
        "created_at": user.created_at,
        "disabled": user.disabled,
        "password_hash": user.password_hash,
        "authenticator": user.authority,
        "language": user.language,
        "profile": dict(user.profile),
        "roles": list(user.roles),
        "networks": list(user.networks),
        "former_addresses": formers,
        "closing": user.closing,
    }
    told = {name: value for name, value in members.items() if value or name == "email_verified"}
    return json.dumps(told, ensure_ascii=False, default=_written)


def _hash(text: str) -> tuple[ForeignHash | None, Stored | None]:
    if not text:
        return None, None
    if not Stored.is_wrapped(text):
        return read_hash(text), None
    try:
        stored = Stored.parse(text)
        read_hash(stored.argon2)
    except ValueError as error:
        raise ValueError("This is no wrapped hash, or not whole.") from error
    return None, stored


def _formers(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [asdict(former) for former in map(_former, entries)]


def _former(entry: Mapping[str, Any]) -> Former:
    address = parse_address(entry["email"])
    return Former(address.email, address.key, entry["nonce"], entry["digest"], _moment(entry["expires_at"]))


def _closing(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {**entry, "ends_at": _moment(entry["ends_at"])} if entry else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("This is no time: write 2026-11-27T22:20:00+00:00.") from error
    if moment.tzinfo is None:
        raise ValueError("This time has no zone: write 2026-11-27T22:20:00+00:00.")
    return _exact(moment.astimezone(UTC))


def _exact(moment: datetime) -> datetime:
    """As MongoDB keeps it: to the millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _without(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


def problems_of(error: ValidationFailed) -> Iterator[str]:
    """In words, each with its member in front."""
    for problem in error.problems:
        member = ".".join(map(str, problem.loc[1:]))
        yield f"{member}: {problem.msg}" if member else problem.msg
