"""A real browser, driven by playwright."""

import http.server
import threading

import pytest
from playwright.sync_api import expect

PAGE = b"""<!doctype html>
<title>before</title>
<button onclick="document.title = 'after'">change</button>
"""


class OnePage(http.server.BaseHTTPRequestHandler):
    """Answers every request with PAGE."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_args):
        pass


@pytest.fixture
def served_page():
    """The URL of PAGE, served on loopback while the test runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OnePage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_browser_runs_a_page(page, served_page):
    page.goto(served_page)
    expect(page).to_have_title("before")
    page.get_by_role("button", name="change").click()
    expect(page).to_have_title("after")


def test_log_in_and_see_the_repository(page, instance, repository):
    # Not "load": what is looked at is in the document, and pictures and scripts may take their
    # time on a busy machine.
    def goto(url):
        return page.goto(url, wait_until="domcontentloaded")

    assert goto(repository.page).status == 404, "a private repository is seen by a stranger"
    goto(f"{instance.url}/user/login")
    page.locator("#user_name").fill(instance.user)
    page.locator("#password").fill(instance.password)
    page.locator("#password").press("Enter", no_wait_after=True)
    # Until the next page is parsed, not only until the form is gone: a page that is left while one
    # of its scripts shows an alert() hangs chromium. Gitea alerts when it lacks a script of its own.
    page.wait_for_url(lambda url: not url.endswith("/user/login"), wait_until="domcontentloaded")

    assert goto(repository.page).status == 200
    path = f"/{instance.user}/{repository.name}"
    expect(page.locator(f"a[href$='{path}']").first).to_be_visible(timeout=30_000)
