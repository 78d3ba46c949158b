"""The page at /docs, as a browser shows it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright
from support import HOSTS, OpenSite, Site

from hydracore.web.routes import AUTH

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="there is no chromium")
# A browser on a busy machine.
PATIENCE = 120_000


@asynccontextmanager
async def looking_at(url: str) -> AsyncIterator[tuple[Page, list[str], list[str]]]:
    """The page in a browser, with the URLs that it asks for and all that it complains of."""
    asked: list[str] = []
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        complaints.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM)
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        await page.wait_for_selector(".opblock")
        yield page, asked, complaints
        await browser.close()


async def tried(page: Page, operation: str) -> str:
    """The status that a call answers when it is tried out on the page, with the body that it suggests."""
    block = page.locator(f"#operations-auth-{operation}")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".try-out__btn").click()
    await block.locator(".execute").click()
    return (await block.locator(".live-responses-table tbody .response-col_status").first.inner_text()).split()[0]


@needs_chromium
@pytest.mark.gen_test(timeout=300)
@pytest.mark.parametrize("host", ["alone", "mounted"])
async def test_the_page(open_site: OpenSite, host: str) -> None:
    """It shows every call and lets people try them, signed in by cookie; it asks nobody but this server, and neither
    scripts nor styles break its policy."""
    site: Site = await open_site(HOSTS[host])
    root = site.url + ("/auth" if host == "mounted" else "")
    # Whose description is shown is not for an address to say.
    elsewhere = "http://127.0.0.1:9/other.json"
    async with looking_at(f"{root}/docs?url={elsewhere}&configUrl={elsewhere}") as (page, asked, complaints):
        shown = await page.locator(".opblock-summary-path").all_inner_texts()
        assert {f"/auth{path}" for path in AUTH} <= {path.replace("\u200b", "") for path in shown}
        assert await tried(page, "register") == "201"
        assert await tried(page, "get_me") == "200"
    assert complaints == []
    assert [url for url in asked if not url.startswith((f"{root}/", "data:"))] == []
    assert f"{root}/openapi.json" in asked
    assert f"{site.url}/auth/me" in asked
