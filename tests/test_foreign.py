"""Hashes from elsewhere: known answers, what is refused, and what each costs."""

import subprocess
import unicodedata
from base64 import b64encode

import pytest

from hydracore.foreign import Foreign, Work, firebase, keycloak, read_hash, schemes, spend
from hydracore.passwords import TESTING, HashCost, HashingPool, Passwords, price

# The one that Firebase publishes with its scrypt.
FIREBASE = firebase(
    "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
    "42xEC+ixf3L2lw==",
    signer_key="jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
    salt_separator="Bw==",
    rounds=8,
    mem_cost=14,
)
# From RFC 6070, RFC 7914, Openwall's and Drepper's papers, and the tests of Django, passlib and phpass.
KNOWN = {
    "bcrypt": ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    "bcrypt of more than 72 bytes": (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
        "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
    ),
    "Django's pbkdf2_sha256": (
        "lètmein",
        "pbkdf2_sha256$390000$seasalt$8xBlGd3jVgvJ+92hWPxi5ww0uuAuAnKgC45eudxro7c=",
    ),
    "Django's pbkdf2_sha1": ("password", "pbkdf2_sha1$4096$salt$SwB5AbdlSJq+rUnZJvch0GWkKcE="),
    "Django's scrypt": (
        "lètmein",
        "scrypt$16384$seasalt$8$1$"
        "Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw==",
    ),
    "Django's argon2": ("secret", "argon2$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$YC9+jJCrQhs5R6db7LlN8Q"),
    "argon2 of an older version": (
        "secret",
        "$argon2i$m=8,t=1,p=1$c29tZXNhbHQ$"
        "gwQOXSNhxiOxPOA0+PY10P9QFO4NAYysnqRt1GSQLE55m+2GYDt9FEjPMHhP2Cuf0nOEXXMocVrsJAtNSsKyfg",
    ),
    "argon2id": (
        "password",
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    ),
    "scrypt": (
        "pleaseletmein",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI",
    ),
    "sha512-crypt": (
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    "sha512-crypt with rounds": (
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$"
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    "phpass": ("test12345", "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"),
    "phpBB's phpass": ("test12345", "$H$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"),
    "Firebase's scrypt": ("user1password", FIREBASE),
}


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(TESTING, HashingPool(1, 10, patience=60))


@pytest.mark.parametrize("kind", KNOWN)
async def test_known_answers(passwords: Passwords, kind: str) -> None:
    """A published hash is kept under argon2id, verifies its password and no other, and is due to be replaced. A strong
    argon2id hash stays as it is."""
    password, published = KNOWN[kind]
    kept = await passwords.wrap(read_hash(published))
    assert (kept == published) == (kind == "argon2id")
    assert "$argon2id$" in kept
    assert published.rpartition("$")[2] not in kept or kept == published
    assert await passwords.verify(kept, password)
    assert not await passwords.verify(kept, f"x{password}")
    assert passwords.outdated(kept)
    passwords.close()


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("length", [1, 17, 63, 64, 65, 128])
async def test_sha512_crypt_as_openssl_makes_it(passwords: Passwords, length: int) -> None:
    """Whatever the password's length, openssl's hash of it verifies."""
    password = ("pässword " * 20)[:length]
    kept = await passwords.wrap(read_hash(openssl("passwd", "-6", "-salt", "abcdefgh", password)))
    assert await passwords.verify(kept, password)
    passwords.close()


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("pbkdf2", "SHA1"), ("pbkdf2-sha256", "SHA256"), ("pbkdf2-sha512", "SHA512")]
)
async def test_keycloak_as_openssl_makes_it(passwords: Passwords, algorithm: str, digest: str) -> None:
    """A Keycloak credential, whose hash openssl has derived as long as Keycloak does, verifies."""
    options = ("digest:" + digest, "pass:a password", "salt:sixteen of bytes", "iter:2000")
    derived = openssl("kdf", "-keylen", "64", *(part for option in options for part in ("-kdfopt", option)), "PBKDF2")
    secret = {
        "value": b64encode(bytes.fromhex(derived.replace(":", ""))).decode(),
        "salt": b64encode(b"sixteen of bytes").decode(),
        "additionalParameters": {},
    }
    how = {"hashIterations": 2000, "algorithm": algorithm, "additionalParameters": {}}
    kept = await passwords.wrap(read_hash(keycloak(secret, how)))
    assert await passwords.verify(kept, "a password")
    assert not await passwords.verify(kept, "another password")
    passwords.close()


async def test_keycloak_argon2(passwords: Passwords) -> None:
    """What Keycloak makes today is strong enough to stay as it is."""
    strong = Passwords(HashCost(7168, 5, 1), HashingPool(1, 10, patience=60))
    _, _, _, _, salt, value = (await strong.hash("a password")).split("$")
    more = {"hashLength": ["32"], "memory": ["7168"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"]}
    how = {"hashIterations": 5, "algorithm": "argon2", "additionalParameters": more}
    found = read_hash(keycloak({"value": value, "salt": salt}, how))
    assert found.strong
    assert await passwords.verify(await passwords.wrap(found), "a password")
    passwords.close()
    strong.close()


async def test_bcrypt_sha256(passwords: Passwords) -> None:
    """Django's bcrypt of a digest takes all of a long password."""
    import hashlib

    import bcrypt

    password = "p" * 100
    made = bcrypt.hashpw(hashlib.sha256(password.encode()).hexdigest().encode(), bcrypt.gensalt(4)).decode()
    kept = await passwords.wrap(read_hash(f"bcrypt_sha256${made}"))
    assert await passwords.verify(kept, password)
    assert not await passwords.verify(kept, password[:72])
    plain = await passwords.wrap(read_hash("bcrypt$" + bcrypt.hashpw(b"a password", bcrypt.gensalt(4)).decode()))
    assert await passwords.verify(plain, "a password")
    passwords.close()


async def test_normal_forms(passwords: Passwords) -> None:
    """Whether the other side has hashed what was typed or its normal form, both are tried."""
    for form in ("NFC", "NFD"):
        made = openssl("passwd", "-6", "-salt", "abcdefgh", unicodedata.normalize(form, "café au lait"))
        kept = await passwords.wrap(read_hash(made))
        assert await passwords.verify(kept, unicodedata.normalize(form, "café au lait"))
    assert await passwords.verify(await passwords.hash("café"), unicodedata.normalize("NFD", "café"))
    passwords.close()


async def test_nul(passwords: Passwords) -> None:
    """A password with NUL, which some schemes take for a shorter one, is not right."""
    for password, published in (KNOWN["bcrypt"], KNOWN["Django's pbkdf2_sha1"]):
        kept = await passwords.wrap(read_hash(published))
        for other in (f"{password}\0", f"{password}\0{password}"):
            assert not await passwords.verify(kept, other)
    passwords.close()


REFUSED = {
    "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/": "no hash of a kind",
    "5f4dcc3b5aa765d61d8327deb882cf99": "no hash of a kind",
    "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": "no hash of a kind",
    "$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": "its cost is 15: from 4 to 14",
    "pbkdf2_sha256$900000000$salt$8xBlGd3jVgvJ+92hWPxi5ww0uuAuAnKgC45eudxro7c=": "its iterations is 900000000",
    "pbkdf2_sha256$9$salt$8xBl": "too short",
    "pbkdf2_sha256$9$salt$not base 64 at all!": "not in base 64",
    "$scrypt$ln=20,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI": "1024 MiB",
    "$scrypt$ln=16,r=1,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI": "its N is larger",
    "scrypt$16383$salt$8$1$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI": "no power of two",
    "$argon2id$v=19$m=131072,t=9,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc": "131072 KiB of memory 9",
    "$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc": "8 KiB of memory a lane",
    "$argon2id$v=19$m=8,t=1,p=1$c2E$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc": "salt is not as long",
    "$P$AIQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0": "",
    "$P$zIQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0": "its rounds is",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    """What is not known, not whole, or would keep the hashing threads or the memory for too long is refused with the
    reason, which has nothing of the hash."""
    if not REFUSED[text]:
        assert read_hash(text)
        return
    with pytest.raises(ValueError, match=REFUSED[text]) as raised:
        read_hash(text)
    assert text.rpartition("$")[2][:12] not in str(raised.value)


def test_others_that_are_refused() -> None:
    """A Firebase hash of another project, and a Keycloak credential of a scheme or a shape that is not known."""
    with pytest.raises(ValueError, match="not as long as the signer key"):
        firebase("AAAA", "AAAA", signer_key="A" * 88, salt_separator="", rounds=8, mem_cost=14)
    with pytest.raises(ValueError, match="algorithm, bcrypt, is not known"):
        keycloak({"value": "x"}, {"algorithm": "bcrypt"})
    with pytest.raises(ValueError, match="does not say how"):
        keycloak({"value": "x"}, {"algorithm": "argon2", "hashIterations": 5})
    for text in ("bcrypt$12$AAAA$x", "rot13$1$AAAA", "bcrypt$99$AAAA", "bcrypt$12$AAAA", "bcrypt$12,1$AAAA"):
        with pytest.raises(ValueError, match=r".+"):
            Foreign.parse(text)


def test_supabase_has_some_of_firebase() -> None:
    """Supabase's notation of a Firebase hash says the same; the project's key is not kept."""
    signer = "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
    digest = "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
    found = read_hash(f"$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk={signer}$42xEC+ixf3L2lw==${digest}")
    assert found == read_hash(FIREBASE)
    assert "jxspr8Ki" not in str(found.foreign) + FIREBASE


async def test_everybody_costs_as_much(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is told what imported hashes cost, each verification computes as much of every kind: for nobody, for an
    account of our own, and for each imported one, whatever its cost is."""
    hashes = {
        "$2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$06$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "pbkdf2_sha256$100$seasalt$8xBlGd3jVgvJ+92hWPxi5ww0uuAuAnKgC45eudxro7c=",
        "pbkdf2_sha256$390$seasalt$8xBlGd3jVgvJ+92hWPxi5ww0uuAuAnKgC45eudxro7c=",
        "$6$rounds=1000$saltstringsaltst$" + "a" * 86,
        "$P$6IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0",
        "$scrypt$ln=4,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI",
        "$argon2id$v=19$m=7168,t=5,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$argon2i$v=19$m=16,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        # As dear as those that are made here, under one of which it is kept.
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    }
    found = [read_hash(text) for text in hashes]
    passwords.equalise([*(passwords.work(each) for each in found), "a newer version's:7"])
    done: dict[str, int] = {}

    def counted(of: schemes.Scheme) -> object:
        digest = type(of).digest

        def count(*given: object) -> bytes:
            work = of.work(*given[2:])  # type: ignore[arg-type]
            done[work.kind] = done.get(work.kind, 0) + work.cost
            return digest(of, *given)  # type: ignore[arg-type]

        return count

    for scheme in schemes.SCHEMES.values():
        monkeypatch.setattr(scheme, "digest", counted(scheme), raising=False)
    for name in ("sha512_crypt", "phpass"):
        own = getattr(schemes, name)

        def computed(password: bytes, salt: bytes, rounds: int, _own: object = own, _kind: str = name) -> bytes:
            done[f"{_kind} itself"] = done.get(f"{_kind} itself", 0) + rounds
            return _own(password, salt, rounds)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(schemes, name, computed)
    verify = type(passwords._hasher).verify

    def verified(self: object, encoded: str, password: str) -> bool:
        kind = "argon2-" + "-".join(part[2:] for part in encoded.split("$")[3].split(","))
        done[kind] = done.get(kind, 0) + 1
        return verify(passwords._hasher, encoded, password)

    monkeypatch.setattr(type(passwords._hasher), "verify", verified)
    costs = []
    for kept in ["", await passwords.hash("a password"), *[await passwords.wrap(each) for each in found]]:
        done.clear()
        assert not await passwords.verify(kept, "another password")
        costs.append({kind: cost for kind, cost in done.items() if kind not in ("sha512-crypt", "phpass")})
    assert costs == [costs[0]] * len(costs)
    assert costs[0]["bcrypt"] == 64
    assert costs[0]["argon2-8-1-1"] == 2
    assert costs[0]["pbkdf2-sha256"] == 390
    assert costs[0]["phpass itself"] == 256
    done.clear()
    await passwords.verify("", "another password", equal=False)
    assert set(done) == {"argon2-8-1-1"}
    passwords.close()


def test_the_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """What imported hashes add to every sign-in is the dearest of each kind, computed; it ends where it is enough."""
    spent: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr("hydracore.passwords.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("hydracore.passwords.spend", lambda work, password: spent.append(str(work)))
    works = ["bcrypt:16", "", "pbkdf2-sha1:7", "bcrypt:64", "phpass:128"]
    assert price(works, 100) == 4
    assert spent == ["bcrypt:64", "pbkdf2-sha1:7", "phpass:128"]
    spent.clear()
    price(works, 2)
    assert spent == ["bcrypt:64"]


def test_work() -> None:
    """It is written and read; what nobody knows is neither read nor spent."""
    for text in ("bcrypt:1024", "argon2-65536-3-4:1", "pbkdf2-sha256:390000", "scrypt-14-8-1:1", "sha512-crypt:5000"):
        assert str(Work.parse(text)) == text
    for text in ("rot13:1", "scrypt:1", "bcrypt:", "firebase-scrypt:1", ""):
        with pytest.raises(ValueError):
            Work.parse(text)
    with pytest.raises(ValueError, match="nobody knows"):
        spend(Work("rot13", 1), "a password")
