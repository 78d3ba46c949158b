"""Passwords that are known from breaches: a service that is asked for a range, and a list that is searched."""

import asyncio
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hydracore_password_breached.sorted_file import count_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import PASSWORD, Clock, OpenSite, refused, tokens
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from hydracore.plugin import NewPassword, PasswordRefused, StartupError, Unavailable

EMAIL = "ada@example.com"
KNOWN, RARE, GOOD = "correct horse", "pässword von früher 🐍", PASSWORD


def digest(password: str) -> str:
    return sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


def quiet(handler: RequestHandler) -> None:
    """The service's own log is nobody's business."""


class Service:
    """Answers ranges, or misbehaves as ``mood`` says; remembers what it was asked."""

    def __init__(self) -> None:
        self.mood = ""
        self.asked: list[tuple[str, Any]] = []
        self.known = {digest(KNOWN): 3_861_493, digest(RARE): 2}
        service = self

        class Range(RequestHandler):
            async def get(self, prefix: str) -> None:
                service.asked.append((prefix, dict(self.request.headers)))
                await service.answer(self, prefix)

        sockets = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/range/"
        self.server = HTTPServer(Application([("/range/(.*)", Range), ("/elsewhere/(.*)", Range)], log_function=quiet))
        self.server.add_sockets(sockets)

    async def answer(self, handler: RequestHandler, prefix: str) -> None:
        lines = [f"{known[5:]}:{count}" for known, count in self.known.items() if known.startswith(prefix)]
        lines += [f"{number:035X}:{number % 2 and 7}" for number in range(50)]  # Every second one is padding.
        end = "\n" if self.mood == "unix" else "\r\n"
        match self.mood:
            case "hangs":
                await asyncio.sleep(30)
            case "500" | "429" | "404":
                handler.set_status(int(self.mood))
            case "redirects":
                handler.redirect(self.url.replace("range", "elsewhere") + prefix)
            case "a page":
                handler.finish("<html>Sign in to this network</html>")
            case "nothing":
                handler.finish("")
            case "half":
                handler.finish(end.join([*lines, "<html>"]))
            case "bytes":
                handler.finish(b"\xff\xfe\x00" * 100)
            case "huge":
                handler.finish("A" * 3_000_000)
            case "closes":
                handler.request.connection.stream.close()  # type: ignore[union-attr]
            case "padded":
                handler.finish(end.join([*lines, f"{digest(GOOD)[5:]}:0"]))
            case _:
                handler.finish(end.join(lines))


@pytest.fixture
def online(io_loop: Any, make: Any) -> Iterator[Any]:
    """The plugin over a running service."""
    service, clock = io_loop.run_sync(started), Clock()
    plugins: list[Any] = []

    def made(**section: Any) -> Any:
        plugin = make("password_breached", now=clock, **{"url": service.url, "timeout": 0.5, **section})
        plugin.service, plugin.clock = service, clock
        plugins.append(plugin)
        return plugin

    yield made
    service.server.stop()
    io_loop.run_sync(service.server.close_all_connections)


async def started() -> Service:
    return Service()


async def refuses(plugin: Any, password: str) -> bool:
    [policy] = plugin.hydracore_register_password_policies()
    try:
        await policy.judge(NewPassword(password, EMAIL))
    except PasswordRefused as refusal:
        assert "breach" in str(refusal)
        return True
    return False


async def test_known_ones(online: Any) -> None:
    """A password that was seen is refused, one that was not passes; any Unicode, CRLF or LF."""
    plugin = online()
    for mood in ("", "unix"):
        plugin.service.mood = mood
        assert await refuses(plugin, KNOWN)
        assert await refuses(plugin, RARE)
        assert not await refuses(plugin, GOOD)


async def test_what_leaves_the_process(online: Any) -> None:
    """Five characters of the hash, the wish for padding, and nothing else."""
    plugin = online()
    await refuses(plugin, KNOWN)
    [(asked, headers)] = plugin.service.asked
    assert asked == digest(KNOWN)[:5]
    assert headers["Add-Padding"] == "true"
    assert headers["User-Agent"] == "hydracore"
    assert digest(KNOWN)[5:] not in str(headers)


async def test_padding_counts_for_nothing(online: Any) -> None:
    """An entry with a count of 0 is padding: the password was never seen."""
    plugin = online()
    plugin.service.mood = "padded"
    assert not await refuses(plugin, GOOD)


async def test_how_often(online: Any) -> None:
    """min_count lets rarer ones pass."""
    plugin = online(min_count=3)
    assert await refuses(plugin, KNOWN)
    assert not await refuses(plugin, RARE)


MOODS = ["hangs", "500", "429", "404", "redirects", "a page", "nothing", "half", "bytes", "huge", "closes"]


@pytest.mark.parametrize("mood", MOODS)
async def test_a_service_that_fails(online: Any, mood: str, expected_logs: list[str]) -> None:
    """Late, wrong, elsewhere, no range, too large: open lets the password pass and says so, closed answers 503."""
    expected_logs.append("cannot be looked up")
    plugin = online(on_failure="open")
    plugin.service.mood = mood
    assert not await refuses(plugin, KNOWN)
    closed = online(on_failure="closed")
    with pytest.raises(Unavailable):
        await refuses(closed, KNOWN)


async def test_nothing_of_it_is_logged(online: Any, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """The log holds neither the password nor its hash."""
    expected_logs.append("cannot be looked up")
    caplog.set_level("DEBUG")
    plugin = online()
    plugin.service.mood = "500"
    await refuses(plugin, KNOWN)
    text = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("hydracore"))
    assert KNOWN not in text
    assert digest(KNOWN)[:5] not in text


async def test_it_rests(online: Any, expected_logs: list[str]) -> None:
    """After a failure nobody waits for the service for ten seconds; then it is asked again."""
    expected_logs.append("cannot be looked up")
    plugin = online()
    plugin.service.mood = "500"
    for _ in range(20):
        assert not await refuses(plugin, KNOWN)
    assert len(plugin.service.asked) == 1
    plugin.service.mood = ""
    plugin.clock.forward(seconds=11)
    assert await refuses(plugin, KNOWN)


async def test_many_at_once(online: Any) -> None:
    """A hundred at once are all judged rightly."""
    plugin = online(timeout=4)
    verdicts = await asyncio.gather(*(refuses(plugin, (KNOWN, GOOD)[number % 2]) for number in range(100)))
    assert verdicts == [True, False] * 50


# -- the list ----------------------------------------------------------------------------------------


def written(folder: Path, known: dict[str, int], end: str = "\n", *, last: bool = True) -> Path:
    file = folder / "list.txt"
    text = end.join(f"{key}:{count}" for key, count in sorted(known.items()))
    file.write_bytes((text + (end if last and known else "")).encode())
    return file


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.sets(st.integers(0, 2**160 - 1), max_size=600),
    others=st.lists(st.integers(0, 2**160 - 1), max_size=20),
    counts=st.lists(st.sampled_from([1, 9, 10, 12345, 10**9]), min_size=1, max_size=7),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_exactly_the_members(numbers: set[int], others: list[int], counts: list[int], end: str, last: bool) -> None:
    """The search finds exactly what is in the list, first and last lines, each with its count."""
    known = {f"{number:040X}": counts[place % len(counts)] for place, number in enumerate(sorted(numbers))}
    with TemporaryDirectory() as folder:
        file = written(Path(folder), known, end, last=last)
        for key, count in known.items():
            assert count_in(file, key) == count
        for number in [*others, 0, 2**160 - 1, *(each + 1 for each in list(numbers)[:20])]:
            key = f"{number % 2**160:040X}"
            assert count_in(file, key) == known.get(key, 0)


async def test_the_list(make: Any, tmp_path: Path) -> None:
    """With source = "file" the list decides, one that took its place too, and lower case is fine."""
    others = {f"{number * 7919:040X}": number for number in range(1, 20_000)}
    file = written(tmp_path, {**others, digest(KNOWN): 5, digest(RARE): 1})
    plugin = make("password_breached", source="file", file=str(file), min_count=2)
    assert await refuses(plugin, KNOWN)
    assert not await refuses(plugin, RARE)
    assert not await refuses(plugin, GOOD)
    newer = written(tmp_path, {digest(GOOD).lower(): 9})
    assert newer == file
    assert await refuses(plugin, GOOD)
    assert not await refuses(plugin, KNOWN)


async def test_a_list_that_goes(make: Any, tmp_path: Path, expected_logs: list[str]) -> None:
    """When the list is gone or spoiled later, on_failure decides."""
    expected_logs.append("cannot be looked up")
    file = written(tmp_path, {digest(KNOWN): 5})
    plugin = make("password_breached", source="file", file=str(file), on_failure="closed")
    for spoil in (file.unlink, lambda: file.write_text("no list\n")):
        spoil()
        with pytest.raises(Unavailable):
            await refuses(plugin, KNOWN)


@pytest.mark.parametrize(
    "text", ["password\n", f"{digest('a')}\n", f"{'F' * 40}:1\n{'0' * 40}:1\n", "x" * 10_000, "\0" * 99]
)
def test_no_list(make: Any, tmp_path: Path, text: str) -> None:
    """What does not look like such a list stops the start, with the key."""
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(StartupError, match=r"plugins\.password_breached\.file.*begin"):
        make("password_breached", source="file", file=str(tmp_path / "list.txt"))


def test_configuration(make: Any, tmp_path: Path) -> None:
    """A list that is not there, none at all, and a timeout that is too long are told by their keys."""
    for file in ("", str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(StartupError, match=r"plugins\.password_breached\.file.*cannot be read"):
            make("password_breached", source="file", file=file)
    with pytest.raises(StartupError, match=r"plugins\.password_breached\.timeout.*plugins\.timeout"):
        make("password_breached", timeout=5)
    empty = tmp_path / "empty.txt"
    empty.touch()
    make("password_breached", source="file", file=str(empty))


# -- the whole server --------------------------------------------------------------------------------


async def test_in_the_server(open_site: OpenSite, tmp_path: Path, expected_logs: list[str]) -> None:
    """A known password is refused at register and at a reset, by the member's name; without the list it is 503."""
    expected_logs += ["cannot be looked up", "unavailable"]
    file = written(tmp_path, {digest(KNOWN): 5})
    section = {"source": "file", "file": str(file), "on_failure": "closed"}
    site = await open_site(plugins={"enabled": ["password_breached"], "password_breached": section})
    body = {"email": EMAIL, "password": KNOWN}
    [problem] = refused(await site.post("register", body), 422, "validation_failed")
    assert (problem["loc"], "breach" in problem["msg"]) == (["body", "password"], True)
    await site.register()
    await site.post("forgot-password", {"email": EMAIL})
    reset = {"token": await site.box.reset_token(EMAIL), "new_password": KNOWN}
    [problem] = refused(await site.post("reset-password", reset), 422, "validation_failed")
    assert problem["loc"] == ["body", "new_password"]
    file.unlink()
    refused(await site.post("reset-password", {**reset, "new_password": "another new one"}), 503, "unavailable")
    file.write_text("")
    assert (await site.post("reset-password", {**reset, "new_password": "another new one"})).code == 200
    tokens(await site.post("login", {"email": EMAIL, "password": "another new one"}))
