"""The documents as the version before this one had them: what its nodes write, and what they read.

With each release these become what that release has in ``hydracore.models``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Refusal:
    id: str
    request_id: str
    at: datetime
    call: str
    status: int
    code: str
    network: str
    why: Mapping[str, Any]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class User:
    id: str
    email: str
    address_key: str
    password_hash: str
    created_at: datetime
    email_verified: bool = False
    disabled: bool = False
    epoch: int = 0
    profile: Mapping[str, Any] = field(default_factory=dict)
    authority: str = ""
    networks: Sequence[str] = field(default_factory=list)
    language: str = ""
    addresses: Sequence[Mapping[str, Any]] = field(default_factory=list)
    closing: Mapping[str, Any] | None = field(default=None)


@dataclass(frozen=True)
class Session:
    id: str
    user_id: str
    epoch: int
    generation: int
    created_at: datetime
    rotated_at: datetime
    ends_at: datetime
    expires_at: datetime
    device: str = ""
    network: str = ""


@dataclass(frozen=True)
class Code:
    id: str
    kind: str
    user_id: str
    epoch: int
    digest: str
    expires_at: datetime
    tries: int = 0
    email: str = ""


@dataclass(frozen=True)
class MailIntent:
    id: str
    kind: str
    address_key: str
    created_at: datetime
    attempts: int = 0
    sealed: bytes | None = field(default=None)
    sealed_until: datetime | None = None
    lease: str = ""
    dead: bool = False
    error: str = ""
    due_at: datetime | None = None
    after_epoch: int = -1
    language: str = ""
    held: bool = False
    user_id: str = ""
    email: str = ""
    nonce: str = ""


@dataclass(frozen=True)
class SigningKey:
    kid: str
    sequence: int
    algorithm: str
    public_jwk: Mapping[str, Any]
    sealed_private: bytes
    created_at: datetime
    active_from: datetime
    expires_at: datetime | None = None
