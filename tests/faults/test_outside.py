"""What is around the servers fails: the mail server, a mail API, the counters of the limits, and clients."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest
from figures import Bounds, Suffer, calm
from findings import keep
from post import Api, PostOffice
from processes import LOGIN, Server, until
from rig import Mongo, Nodes, Operator
from valkeys import Valkey

# -- the mail server -------------------------------------------------------------------------------


def test_mail_server_down(mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer) -> None:
    """Nobody listens at the mail server for eight seconds: no request notices, and all mail has come, each once, within
    a minute of its return."""

    def fault() -> None:
        office.vanish()
        time.sleep(8)
        office.open()

    assert suffer([nodes(mongo.uri)], fault, Bounds(within=5)).unknown == 0


def test_mail_server_slow(mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer) -> None:
    """The mail server takes two seconds over each message for eight seconds: no request notices, and all mail has
    come, each once, within a minute."""

    def fault() -> None:
        office.delay = 2
        time.sleep(8)
        office.delay = 0

    assert suffer([nodes(mongo.uri)], fault, Bounds(within=5)).unknown == 0


def test_mail_server_puts_off(mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer) -> None:
    """The mail server answers each message with 451 for eight seconds: no request notices, and all mail has come, each
    once, within a minute of its change of mind."""

    def fault() -> None:
        office.answer = "451 4.3.0 later"
        time.sleep(8)
        office.answer = ""

    assert suffer([nodes(mongo.uri)], fault, Bounds(within=5)).unknown == 0


def test_mail_server_refuses(
    mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer, operator: Operator
) -> None:
    """The mail server refuses each message with 554 for four seconds: no request notices; what was refused is kept, and
    listed, and after ``hydracore mail retry --all`` all mail has come, each once."""

    def fault() -> None:
        office.answer = "554 5.7.1 no"
        time.sleep(4)
        office.answer = ""

    def mend() -> None:
        assert '"dead"' in operator(mongo.uri, "mail", "list", "--json")
        assert not operator(mongo.uri, "mail", "retry", "--all").startswith("0 ")

    assert suffer([nodes(mongo.uri)], fault, Bounds(within=5), mend=mend).unknown == 0


def test_mail_server_hangs_up(mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer) -> None:
    """The mail server hangs up in the middle of each message for eight seconds: no request notices, and all mail has
    come, each once, within a minute."""

    def fault() -> None:
        office.cut = True
        time.sleep(8)
        office.cut = False

    assert suffer([nodes(mongo.uri)], fault, Bounds(within=5)).unknown == 0


def test_mail_server_takes_and_hangs_up(mongo: Mongo, nodes: Nodes, office: PostOffice, suffer: Suffer) -> None:
    """For two seconds the mail server takes each message and hangs up before it says so. Nobody can know that it has
    it: such a message comes once more, and not a third time."""

    def fault() -> None:
        office.deaf = True
        time.sleep(2)
        office.deaf = False

    ledger = suffer([nodes(mongo.uri)], fault, Bounds(within=5, twice=1000))
    assert ledger.unknown == 0
    assert office.most == 2
    assert 0 < office.twice < len(office.taken)


@pytest.fixture
def api() -> Iterator[Api]:
    opened = Api()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("status", "delay", "late"),
    [(429, 0.0, False), (500, 0.0, True), (200, 4.0, True)],
    ids=["429", "500-after-taking-it", "time-out-after-taking-it"],
)
def test_mail_api(
    mongo: Mongo, nodes: Nodes, api: Api, request: pytest.FixtureRequest, status: int, delay: float, late: bool
) -> None:
    """The mail API answers 429, or fails after it has taken the message, or takes longer than anyone waits, for six
    seconds: no request notices, and all mail has come within a minute, each once, for a repeated message has the same
    idempotency key."""
    resend = {
        "HYDRACORE_MAIL__TRANSPORT": "resend",
        "HYDRACORE_PLUGINS__MAIL_RESEND__API_KEY": "re_key",
        "HYDRACORE_PLUGINS__MAIL_RESEND__API_URL": api.url,
        "HYDRACORE_PLUGINS__MAIL_RESEND__TIMEOUT": "1",
    }

    def fault() -> None:
        api.answer, api.delay, api.late = status, delay, late
        api.headers = {"Retry-After": "2"} if status == 429 else {}
        time.sleep(6)
        api.answer, api.delay, api.late, api.headers = 0, 0.0, False, {}

    suffer = Suffer(f"mail-api-{request.node.callspec.id}", api, partial(keep, request.node))
    assert suffer([nodes(mongo.uri, **resend)], fault, Bounds(within=5)).unknown == 0
    assert api.changed == 0
    if late:
        assert max(api.asked.values()) > 1


# -- the counters of the limits ----------------------------------------------------------------------


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    opened = Valkey(tcp=True)
    yield opened
    opened.stop()


TRIES = ("LOGIN_ADDRESS", "LOGIN_NETWORK", "VERIFY_ADDRESS", "VERIFY_NETWORK", "RESET_NETWORK", "REGISTER_NETWORK")
MAILS = ("MAIL_ADDRESS", "MAIL_ADDRESS_HOURLY", "MAIL_NETWORK")


@pytest.mark.short
def test_limit_backend_killed(mongo: Mongo, nodes: Nodes, valkey: Valkey, suffer: Suffer) -> None:
    """The Valkey that counts for the limits is killed under load, and comes back four seconds later: nobody is refused
    for it, limits hold meanwhile in each process, and after its return they are counted there again."""
    wide = {f"HYDRACORE_LIMITS__{name}": "1000000/3600" for name in (*TRIES, *MAILS)}
    settings = {
        **wide,
        "HYDRACORE_LIMITS__ENABLED": "true",
        "HYDRACORE_LIMITS__BACKEND": "redis",
        "HYDRACORE_PLUGINS__LIMITS_REDIS__URL": f"redis://127.0.0.1:{valkey.port}/0",
        # The one that is tested.
        "HYDRACORE_LIMITS__LOGIN_ADDRESS_NETWORK": "5/300",
    }
    server = nodes(mongo.uri, **settings)

    def guesses(email: str) -> list[int]:
        return [server.post("login", {"email": email, "password": "a wrong guess"})[0] for _ in range(7)]

    def fault() -> None:
        assert guesses("before@example.com") == [401] * 5 + [429] * 2
        valkey.kill()
        time.sleep(1)
        assert guesses("meanwhile@example.com") == [401] * 5 + [429] * 2
        time.sleep(3)
        valkey.start()

    assert suffer([server], fault, Bounds(within=5)).unknown == 0
    assert until(lambda: server.post("register", {**LOGIN, "email": f"x{time.monotonic()}@example.com"})[0] == 201)
    assert until(lambda: valkey.judge.dbsize() > 0, 40)


# -- clients -----------------------------------------------------------------------------------------

LONGEST = 60
MANY = 650  # More than server.max_requests.
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(server: Server, *, small: bool = False) -> socket.socket:
    client = socket.socket()
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(LONGEST)
    client.connect(("127.0.0.1", server.port))
    return client


def hung_up_on(clients: list[socket.socket], send: bytes) -> bool:
    """Whether the server closes all connections within a minute, while ``send`` trickles in: a byte every second."""
    left, ends = list(clients), time.monotonic() + LONGEST
    for client in left:
        client.setblocking(False)
    while left and time.monotonic() < ends:
        left = [client for client in left if _still_there(client, send)]
        time.sleep(1)
    return not left


def _still_there(client: socket.socket, send: bytes) -> bool:
    try:
        client.sendall(send)
        return bool(client.recv(65536))
    except BlockingIOError:
        return True
    except OSError:
        return False


def others_are_served(server: Server, suffer: Suffer, clients: list[socket.socket], send: bytes) -> None:
    """While the clients do what they do, a crowd notices nothing; then they are hung up on."""
    ledger = suffer([server], lambda: time.sleep(1), Bounds(within=5), before=1, after=2)
    assert ledger.unknown == 0
    assert hung_up_on(clients, send)


def test_heads_that_never_end(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """More clients than a worker answers at once never finish the head of their request, however steadily it trickles
    in: others are served meanwhile, and those are hung up on within a minute."""
    server = nodes(mongo.uri)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(MANY)]
        for client in clients:
            client.sendall(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        others_are_served(server, suffer, clients, b"x")
    calm(server)


@pytest.mark.short
def test_bodies_that_never_end(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """More clients than a worker answers at once never finish the body of their request, however steadily it trickles
    in: others are served meanwhile, and those are hung up on within a minute."""
    server = nodes(mongo.uri)
    head = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(MANY)]
        for client in clients:
            client.sendall(head)
        others_are_served(server, suffer, clients, b" ")
    calm(server)


def test_answers_that_nobody_reads(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """Ten clients ask and ask and never read an answer: others are served meanwhile, and those are hung up on within
    a minute of the last that was taken from them."""
    server = nodes(mongo.uri)
    over = threading.Event()
    stuck: list[float] = []

    def ask(client: socket.socket) -> None:
        client.settimeout(1)
        moved, left = time.monotonic(), b""
        while not over.is_set():
            try:
                left = left or LIVE * 200
                left = left[client.send(left) :]
                moved = time.monotonic()
            except TimeoutError:
                continue  # Its answers are stuck.
            except OSError:
                stuck.append(time.monotonic() - moved)
                return

    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server, small=True))) for _ in range(10)]
        asking = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in asking:
            thread.start()
        try:
            suffer([server], lambda: time.sleep(1), Bounds(within=5), before=2, after=3)
            # The system holds some thousand answers for each: a slow machine needs its time to give so many.
            assert until(lambda: len(stuck) == len(clients), 3 * LONGEST)
        finally:
            over.set()
            for thread in asking:
                thread.join()
    assert max(stuck) < LONGEST
    calm(server)


@pytest.mark.short
def test_a_thousand_idle_connections(mongo: Mongo, nodes: Nodes, suffer: Suffer) -> None:
    """A thousand connections are open on which nothing comes: others are served meanwhile, and so are those when they
    ask at last."""
    server = nodes(mongo.uri)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server))) for _ in range(1000)]
        ledger = suffer([server], lambda: time.sleep(1), Bounds(within=5), before=1, after=2)
        assert ledger.unknown == 0
        for client in clients:
            client.sendall(LIVE)
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
    calm(server)
