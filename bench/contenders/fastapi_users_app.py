"""FastAPI-Users with Beanie, as its documentation shows it, with HydraCore's hash.

``uvicorn --app-dir … fastapi_users_app:app``; the database is ``BENCH_URI``. Tokens are JWTs; the user is looked up.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from beanie import Document, PydanticObjectId, init_beanie
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.password import PasswordHelper
from fastapi_users_db_beanie import BeanieBaseUser, BeanieUserDatabase, ObjectIDIDMixin
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pymongo import AsyncMongoClient

SECRET = "a-secret-of-the-benchmark-that-is-long-enough"  # noqa: S105  # of a benchmark


class User(BeanieBaseUser, Document):
    pass


class UserRead(schemas.BaseUser[PydanticObjectId]):
    pass


class Manager(ObjectIDIDMixin, BaseUserManager[User, PydanticObjectId]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def manager() -> AsyncIterator[Manager]:
    hasher = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19456, parallelism=1),))
    yield Manager(BeanieUserDatabase(User), PasswordHelper(hasher))


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["BENCH_URI"])
    await init_beanie(database=client["bench_fastapi_users"], document_models=[User])
    yield
    await client.close()


def strategy() -> JWTStrategy[Any, Any]:
    return JWTStrategy(secret=SECRET, lifetime_seconds=1800)


backend = AuthenticationBackend("jwt", BearerTransport("auth/jwt/login"), strategy)
users = FastAPIUsers[User, PydanticObjectId](manager, [backend])
app = FastAPI(lifespan=opened)
app.include_router(users.get_auth_router(backend), prefix="/auth/jwt")
app.include_router(users.get_register_router(UserRead, schemas.BaseUserCreate), prefix="/auth")


current_user = users.current_user(active=True)


@app.get("/users/me")
async def me(user: Annotated[User, Depends(current_user)]) -> dict[str, Any]:
    return {"id": str(user.id), "email": user.email, "email_verified": user.is_verified}
