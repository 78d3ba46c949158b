"""Others' records into ours. What a record says beside the account itself may become the profile, as far as plugins
have members of these names (in snake_case)."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hydracore.chance import Now
from hydracore.foreign import firebase, keycloak
from hydracore.moving.formats import Format, Record, any_of_them, document, json_lines

Row = Mapping[str, Any]

NAMES = ("supabase", "auth0", "firebase", "keycloak", "django", "fastapi-users")


@dataclass(frozen=True)
class HashConfig:
    """A Firebase project's password hash parameters, as its console shows them."""

    base64_signer_key: str
    base64_salt_separator: str
    rounds: int
    mem_cost: int

    @classmethod
    def parse(cls, text: str) -> "HashConfig":
        """Raises ``ValueError``, with a sentence."""
        found = dict(re.findall(r"(\w+)\s*:\s*\"?([^\s,\"]+)", text))
        if found.get("algorithm", "SCRYPT") != "SCRYPT":
            raise ValueError(f"The algorithm is {found['algorithm']}, and not Firebase's SCRYPT.")
        try:
            return cls(
                found["base64_signer_key"],
                found.get("base64_salt_separator", ""),
                int(found["rounds"]),
                int(found["mem_cost"]),
            )
        except (LookupError, ValueError) as error:
            raise ValueError(
                "There have to be base64_signer_key, base64_salt_separator, rounds and mem_cost, "
                "as the Firebase console shows them."
            ) from error


@dataclass(frozen=True)
class Source:
    """Where a file comes from: how it is read, and what becomes of a record: a line of ours with whatever else it
    says, None for what is no account; a ``ValueError`` says what is wrong with it. Without ``account`` the records are
    lines of ours."""

    read: Format
    account: Callable[[Row], tuple[dict[str, Any], Row] | None] | None = None


def sources(now: Now, hash_config: HashConfig | None = None) -> Mapping[str, Source]:
    """By their :data:`NAMES`; "" is our own."""
    return {
        "": Source(json_lines),
        "supabase": Source(any_of_them, lambda row: _supabase(row, now())),
        "auth0": Source(any_of_them, _auth0),
        "firebase": Source(document("users"), lambda row: _firebase(row, hash_config)),
        "keycloak": Source(document("users"), _keycloak),
        "django": Source(any_of_them, _django),
        "fastapi-users": Source(any_of_them, _fastapi_users),
    }


def _supabase(row: Row, now: datetime) -> tuple[dict[str, Any], Row] | None:
    """A row of auth.users."""
    if _text(row.get("deleted_at")):
        return None
    metadata = row.get("raw_user_meta_data")
    banned = _text(row.get("banned_until"))
    account = {
        "id": _text(row.get("id")),
        "email": _text(row.get("email")),
        "email_verified": bool(_text(row.get("email_confirmed_at"))),
        "created_at": _moment(row.get("created_at")),
        "disabled": bool(banned) and _date(banned) > now,
        "password_hash": _text(row.get("encrypted_password")),
    }
    more = json.loads(metadata) if isinstance(metadata, str) and metadata else metadata
    return account, more or {}


def _auth0(row: Row) -> tuple[dict[str, Any], Row]:
    """A line of the export of password hashes, or of the export of users, which has none."""
    own = row.get("_id")
    oid = own.get("$oid") if isinstance(own, Mapping) else own
    account = {
        "id": _text(row.get("user_id")) or (f"auth0|{oid}" if oid else ""),
        "email": _text(row.get("email")),
        "email_verified": _flag(row.get("email_verified")),
        "created_at": _moment(row.get("created_at")),
        "disabled": _flag(row.get("blocked")),
        "password_hash": _text(row.get("passwordHash")),
    }
    return account, row.get("user_metadata") or {}


def _firebase(row: Row, hash_config: HashConfig | None) -> tuple[dict[str, Any], Row]:
    """One of the users of auth:export."""
    password_hash = ""
    if row.get("passwordHash"):
        if hash_config is None:
            raise ValueError("passwordHash: it takes the project's parameters to verify this: --hash-config FILE.")
        password_hash = firebase(
            _text(row["passwordHash"]),
            _text(row.get("salt")),
            signer_key=hash_config.base64_signer_key,
            salt_separator=hash_config.base64_salt_separator,
            rounds=hash_config.rounds,
            mem_cost=hash_config.mem_cost,
        )
    account = {
        "id": _text(row.get("localId")),
        "email": _text(row.get("email")),
        "email_verified": _flag(row.get("emailVerified")),
        "created_at": _milliseconds(row.get("createdAt")),
        "disabled": _flag(row.get("disabled")),
        "password_hash": password_hash,
    }
    return account, {name: row[name] for name in ("displayName", "photoUrl", "phoneNumber") if row.get(name)}


def _keycloak(row: Row) -> tuple[dict[str, Any], Row] | None:
    """One of the users of a realm's export."""
    if row.get("serviceAccountClientId"):
        return None
    password = next((each for each in row.get("credentials") or [] if each.get("type") == "password"), None)
    account = {
        "id": _text(row.get("id")),
        "email": _text(row.get("email")),
        "email_verified": _flag(row.get("emailVerified")),
        "created_at": _milliseconds(row.get("createdTimestamp")),
        "disabled": not _flag(row.get("enabled", True)),
        "password_hash": "",
    }
    if password is not None:
        account["password_hash"] = keycloak(
            _object(password.get("secretData")), _object(password.get("credentialData"))
        )
    attributes = {name: values[0] for name, values in (row.get("attributes") or {}).items() if len(values) == 1}
    names = {name: row[name] for name in ("firstName", "lastName", "username") if row.get(name)}
    return account, {**attributes, **names}


def _django(row: Row) -> tuple[dict[str, Any], Row] | None:
    """An object of ``dumpdata auth.user``, or of a user model of the project's own."""
    fields = row.get("fields")
    if not isinstance(fields, Mapping) or "password" not in fields:
        return None
    password = _text(fields["password"])
    account = {
        "id": _text(row.get("pk")),
        "email": _text(fields.get("email")),
        "created_at": _moment(fields.get("date_joined")),
        "disabled": not _flag(fields.get("is_active", True)),
        # What cannot be used begins with "!".
        "password_hash": "" if password.startswith("!") else password,
    }
    return account, {name: fields[name] for name in ("username", "first_name", "last_name") if fields.get(name)}


def _fastapi_users(row: Row) -> tuple[dict[str, Any], Row]:
    """A row of the user table, or a document of it."""
    account = {
        "id": _text(row.get("id", row.get("_id"))),
        "email": _text(row.get("email")),
        "email_verified": _flag(row.get("is_verified")),
        "disabled": not _flag(row.get("is_active", True)),
        "password_hash": _text(row.get("hashed_password")),
    }
    ours = ("id", "_id", "email", "is_verified", "is_active", "is_superuser", "hashed_password")
    return account, {name: value for name, value in row.items() if name not in ours and value not in ("", None)}


@dataclass(frozen=True)
class Mapped:
    """A line of ours, and the names of what it ``leaves_out``; or a ``problem``; or what is ``no_account``."""

    place: str
    line: Any = None
    problem: str = ""
    no_account: bool = False
    leaves_out: tuple[str, ...] = ()
    upto: int = 0


def mapped(
    records: Iterator[Record], source: Source, members: Mapping[str, Any], *, verified: bool
) -> Iterator[Mapped]:
    """Records as lines of ours, whose profile has those of the plugins' ``members`` that are there. ``verified`` says
    that all addresses are proven."""
    for record in records:
        if record.problem:
            yield Mapped(record.place, problem=record.problem, upto=record.upto)
            continue
        try:
            yield _mapped(record, source, members, verified=verified)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # A ValueError of ours is a sentence; others quote what they choke on, which may be a secret.
            said = str(error) if type(error) is ValueError else "This is not as such an export has it."
            yield Mapped(record.place, problem=said, upto=record.upto)


def _mapped(record: Record, source: Source, members: Mapping[str, Any], *, verified: bool) -> Mapped:
    if not isinstance(record.value, Mapping) or source.account is None:
        return Mapped(record.place, record.value, upto=record.upto)
    if (found := source.account(record.value)) is None:
        return Mapped(record.place, no_account=True, upto=record.upto)
    account, more = found
    named = {_snake(name): value for name, value in more.items()}
    profile = {name: value for name, value in named.items() if name in members}
    line = {name: value for name, value in account.items() if value not in ("", None)}
    if profile:
        line["profile"] = profile
    if verified:
        line["email_verified"] = True
    return Mapped(record.place, line, leaves_out=tuple(name for name in named if name not in profile), upto=record.upto)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _flag(value: Any) -> bool:
    """True and false, as JSON and as databases write them in CSV."""
    known = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False, "": False, "none": False}
    if (word := str(value).lower()) not in known:
        raise ValueError("Something that is true or false is neither.")
    return known[word]


def _date(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("A time is none.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment(value: Any) -> str:
    return _date(value).isoformat() if value else ""


def _milliseconds(value: Any) -> str:
    try:
        return datetime.fromtimestamp(int(value) / 1000, UTC).isoformat() if value else ""
    except (ValueError, OverflowError, OSError):
        raise ValueError("A time is none.") from None


def _object(value: Any) -> Row:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise TypeError("no object")
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1], name).lower()
