"""A crowd that uses the servers, and a ledger of all that was acknowledged to it.

Each person signs up and goes on: signs in and out, refreshes, proves the address, sets a new password, shows an old
refresh token as a thief would. What is answered 503, or not at all, is asked again until there is an answer, as a
client would; both outcomes are allowed until then. Afterwards :meth:`Ledger.check` holds the servers to every answer
that they gave.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from typing import Any

from post import HOST, Letters

CODE = r"^([0-9]{6})\s*$"
TOKEN = r"#token=([\w-]{43})\s"
CHANGED = "(changed)"
_PAUSE = 0.15
_PATIENCE = 30
_STEPS = 10

Answer = tuple[int, Any]


class _Over(Exception):
    """The crowd goes home."""


@dataclass
class Person:
    """What the servers have acknowledged to someone."""

    email: str
    password: str
    home: int
    registered: bool = False
    verified: bool = False
    grant: dict[str, Any] | None = None
    older: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """Refresh tokens of sessions that were ended; the last one while that has no answer, too."""
    former: list[str] = field(default_factory=list)
    reset: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """How often each call was sent: a mail may come for every time, and for no more."""
    unsure: str = ""
    """The last thing asked, while it has no answer: both outcomes are allowed."""

    @property
    def access(self) -> str:
        return str((self.grant or {}).get("access_token", ""))

    @property
    def refresh(self) -> str:
        return str((self.grant or {}).get("refresh_token", ""))


class Client:
    """Asks any of the servers, or the one that the person is at home with, over connections that are kept."""

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self._connections: dict[int, HTTPConnection] = {}
        self.times: list[tuple[float, float]] = []
        """When there was an answer, and since when it was asked for."""
        self._since = 0.0

    def ask(self, person: Person, method: str, call: str, body: Any = None, token: str = "") -> Answer:
        """Status and body; (0, None) where there is no answer."""
        ports = self._ledger.ports()
        port = ports[person.home % len(ports)] if self._ledger.loyal else random.choice(ports)  # noqa: S311  # any
        connection = self._connections.setdefault(port, HTTPConnection(HOST, port, timeout=45))
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        person.asked[call] += 1
        self._since = self._since or time.monotonic()
        try:
            connection.request(method, f"/auth/{call}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException) as error:
            self._connections.pop(port).close()
            self._ledger.note(0, f"{call}: {type(error).__name__}")
            return 0, None
        if answer.status == 503 and not answer.headers["Retry-After"]:
            self._ledger.blame(f"{call}: 503 without Retry-After")
        self._ledger.note(answer.status, f"{call}: {answer.status} {text[:200]!r}")
        if answer.status == 503:
            self._ledger.refused(json.loads(text)["code"])
        else:
            self.times.append((time.monotonic(), self._since))
            self._since = 0.0
        return answer.status, json.loads(text) if text else None

    def sure(self, person: Person, *how: Any) -> Answer:
        """The answer, asked for again where there is none: a 503 loses nothing."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self.ask(person, *how)
            if answer[0] not in (0, 503) or time.monotonic() > deadline:
                return answer
            time.sleep(_PAUSE)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Ledger:
    """``ports`` are those of the servers; with ``loyal`` each person keeps to one of them. ``cut`` says that
    connections may break, because processes are killed; ``repeats`` that a mail may be written twice, and come late;
    ``jumps`` that clocks do, and with them access tokens' ends."""

    def __init__(
        self,
        name: str,
        ports: Callable[[], Sequence[int]],
        letters: Letters,
        *,
        cut: bool = False,
        loyal: bool = False,
        repeats: bool = False,
        jumps: bool = False,
    ) -> None:
        self.name, self.ports, self.letters, self.loyal = name, ports, letters, loyal
        self._cut, self._repeats, self._jumps = cut, repeats, jumps
        self.people: list[Person] = []
        self.wrong: list[str] = []
        self.answers: Counter[int] = Counter()
        self.broken: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        """The codes of the 503s."""
        self._clients: list[Client] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    # -- the crowd -----------------------------------------------------------------------------

    def start(self, people: int) -> None:
        self._clients = [Client(self) for _ in range(people)]
        self._threads = [threading.Thread(target=self._crowd, args=(one,), daemon=True) for one in self._clients]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "an answer never came"

    @property
    def acknowledged(self) -> int:
        return sum(count for status, count in self.answers.items() if 200 <= status < 300)

    @property
    def unknown(self) -> int:
        return self.answers[0] + self.answers[503]

    def first_after(self, moment: float) -> float:
        """The longest that one of the crowd waited for an answer that was none of 503, counted from ``moment``."""

        def waited(client: Client) -> float:
            return next((at - max(moment, since) for at, since in client.times if at > moment), float("inf"))

        return max(map(waited, self._clients))

    def longest_gap(self) -> float:
        """The longest that all of the crowd together went without an answer."""
        times = sorted(at for one in self._clients for at, _ in one.times)
        return max((later - at for at, later in pairwise(times)), default=0.0)

    def note(self, status: int, what: str) -> None:
        with self._lock:
            self.answers[status] += 1
            if status == 0:
                self.broken[what.partition(": ")[2]] += 1
        if (status >= 500 and status != 503) or (status == 0 and not self._cut):
            self.blame(what)

    def refused(self, code: str) -> None:
        with self._lock:
            self.refusals[code] += 1

    def blame(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def _crowd(self, client: Client) -> None:
        while not self._over.is_set():
            with self._lock:
                number = len(self.people)
                person = Person(f"p{number}@{self.name}.example", f"long password {number}", number)
                self.people.append(person)
            try:
                self._live(client, person)
            except _Over:
                break
            except Exception as error:  # Nobody else would see it: this is a thread.
                self.blame(f"{person.email}: {error!r}")
        client.close()

    def _live(self, client: Client, person: Person) -> None:
        self._register(client, person)
        often = [self._refresh] * 4 + [self._me] * 2 + [self._out_and_in] * 2
        for _ in range(_STEPS):
            random.choice([*often, self._verify, self._set_new, self._steal])(client, person)  # noqa: S311  # a crowd

    def _answered(self, client: Client, person: Person, *how: Any) -> tuple[int, Any, bool]:
        """The answer, asked for until there is one, and whether it was asked for more than once."""
        again = False
        person.unsure = how[1]
        while True:
            status, body = client.ask(person, *how)
            if status not in (0, 503):
                person.unsure = ""
                return status, body, again
            again = True
            if self._over.is_set():
                raise _Over
            time.sleep(_PAUSE)

    def _register(self, client: Client, person: Person) -> None:
        body = {"email": person.email, "password": person.password}
        status, grant, again = self._answered(client, person, "POST", "register", body)
        if status == 201:
            person.grant = grant
        elif not (again and status == 409):
            raise AssertionError(f"register: {status} {grant}")
        person.registered = True
        if person.grant is None:
            self._login(client, person)

    def _login(self, client: Client, person: Person) -> None:
        person.grant, person.older = None, []
        body = {"email": person.email, "password": person.password}
        status, grant, _ = self._answered(client, person, "POST", "login", body)
        if status == 200:
            person.grant = grant
        else:
            self.blame(f"login: {status} {grant}")

    def _me(self, client: Client, person: Person) -> None:
        status, body, _ = self._answered(client, person, "GET", "me", None, person.access)
        if status == 401 and self._jumps:
            self._refresh(client, person)
            status, body, _ = self._answered(client, person, "GET", "me", None, person.access)
        if status != 200:
            self.blame(f"me: {status} {body}")
        elif body["email_verified"] != person.verified:
            self.blame(f"me: verified is {body['email_verified']}")

    def _refresh(self, client: Client, person: Person) -> None:
        token = person.refresh
        status, grant, _ = self._answered(client, person, "POST", "refresh", {"refresh_token": token})
        if status == 200:
            person.grant = grant
            person.older.append(token)
        else:
            self.blame(f"refresh: {status} {grant}")

    def _out_and_in(self, client: Client, person: Person) -> None:
        person.dead.append(person.refresh)
        status, body, _ = self._answered(client, person, "POST", "logout", {"refresh_token": person.refresh})
        if status != 204:
            self.blame(f"logout: {status} {body}")
        self._login(client, person)

    def _verify(self, client: Client, person: Person) -> None:
        if person.verified:
            return
        codes = 0
        while code := self.letters.find(person.email, CODE, 3 if codes else 0.5, after=codes):
            codes = len(self.letters.all(person.email, CODE))
            body = {"email": person.email, "code": code}
            status, grant, again = self._answered(client, person, "POST", "verify-email", body, person.access)
            if status == 200:
                person.verified, person.grant, person.older = True, grant, []
                return
            if again and status == 400:
                person.verified = True
                return
            # A registration that was sent twice is mailed two codes, of which the later one counts.
            if status != 400 or (person.asked["register"] == 1 and not self._repeats):
                self.blame(f"verify: {status} {grant}")
                return

    def _set_new(self, client: Client, person: Person) -> None:
        before = len(self.letters.all(person.email, TOKEN))
        status, body, _ = self._answered(client, person, "POST", "forgot-password", {"email": person.email})
        if status != 200:
            self.blame(f"forgot: {status} {body}")
        token = self.letters.find(person.email, TOKEN, 0.5, after=before)
        if not token:
            return
        person.dead.append(person.refresh)
        person.former.append(person.password)
        person.password = f"{person.password} again"[-100:]
        asked = {"token": token, "new_password": person.password}
        status, body, again = self._answered(client, person, "POST", "reset-password", asked)
        if status == 200 or (again and status == 400):
            person.verified = True
            person.reset += 1
        elif status == 400 and (self._repeats or person.asked["forgot-password"] > before + 1):
            # Links of before that were still on their way are written now, in any order: the last one counts.
            person.password = person.former.pop()
            person.dead.pop()
        else:
            self.blame(f"reset: {status} {body}")
        self._login(client, person)

    def _steal(self, client: Client, person: Person) -> None:
        if len(person.older) < 2:
            return
        stolen = {"refresh_token": person.older[-2]}
        person.dead.append(person.refresh)
        status, body, _ = self._answered(client, person, "POST", "refresh", stolen)
        if status != 401:
            self.blame(f"a stolen token: {status} {body}")
        self._login(client, person)

    # -- afterwards ------------------------------------------------------------------------------

    def check(self, *, mail_within: float) -> list[str]:
        """What was acknowledged and does not hold. Every mail is there within ``mail_within`` seconds."""
        shares = [self.people[start::8] for start in range(8)]

        def look(share: list[Person]) -> list[str]:
            client = Client(self)
            found = [f"{person.email}: {problem}" for person in share for problem in self._held(client, person)]
            client.close()
            return found

        with ThreadPoolExecutor(8) as pool:
            lost = [problem for found in pool.map(look, shares) for problem in found]
        deadline = time.monotonic() + mail_within
        for person in self.people:
            lost += [f"{person.email}: {problem}" for problem in self._mailed(person, deadline)]
        return lost

    def _held(self, client: Client, person: Person) -> list[str]:
        credentials = {"email": person.email, "password": person.password}
        if not person.registered:
            # Nobody has said so: it may be there or not, and asking again does no harm.
            status = client.sure(person, "POST", "register", credentials)[0]
            person.registered = True
            if status not in (201, 409):
                return [f"registering again: {status}"]
        lost = self._sessions(client, person)
        status, grant = client.sure(person, "POST", "login", credentials)
        if person.former:
            former = client.sure(person, "POST", "login", {**credentials, "password": person.former[-1]})
            if status != 200 and person.unsure == "reset-password":
                status, grant = former  # The reset that nobody acknowledged was none.
            elif former[0] != 401:
                lost.append("a former password is taken")
        if status != 200:
            return [*lost, f"cannot sign in: {status} {grant}"]
        status, user = client.sure(person, "GET", "me", None, grant["access_token"])
        if status != 200 or (person.verified and not user["email_verified"]):
            lost.append(f"verified, and me says {status} {user}")
        return [*lost, *self._only(client, person)]

    def _only(self, client: Client, person: Person) -> list[str]:
        """It is the only account of that address."""
        asked = person.asked["register"]
        status, _ = client.sure(person, "POST", "register", {"email": person.email, "password": person.password})
        person.asked["register"] = asked  # What is refused mails nobody: no more codes are owed for it.
        return [] if status == 409 else [f"registered a second time: {status}"]

    def _sessions(self, client: Client, person: Person) -> list[str]:
        def renew(token: str) -> Answer:
            return client.sure(person, "POST", "refresh", {"refresh_token": token})

        undecided = bool(person.unsure) and person.dead[-1:] == [person.refresh]
        dead = person.dead[-5:-1] if undecided else person.dead[-4:]
        lost = [f"a dead session lives: {status}" for status in (renew(token)[0] for token in dead) if status != 401]
        if person.grant is None or undecided:
            return lost
        status, grant = renew(person.refresh)
        if status != 200:
            lost.append(f"a live session is dead: {status} {grant}")
        elif client.sure(person, "GET", "me", None, grant["access_token"])[0] != 200:
            lost.append("a new access token is none")
        return lost

    def _mailed(self, person: Person, deadline: float) -> list[str]:
        lost = []
        for what, pattern, least in (("code", CODE, 1), ("notice of a new password", CHANGED, person.reset)):
            # None is owed to whom a reset has proven before the code was sent.
            if what == "code" and person.verified:
                continue
            if least and not self.letters.find(person.email, pattern, deadline - time.monotonic(), after=least - 1):
                lost.append(f"no {what} came")
        if self._repeats:
            return lost
        for what, pattern, call in (("codes", CODE, "register"), ("links", TOKEN, "forgot-password")):
            if (came := len(set(self.letters.all(person.email, pattern)))) > person.asked[call]:
                lost.append(f"{came} {what} for {person.asked[call]} times asked")
        return lost
