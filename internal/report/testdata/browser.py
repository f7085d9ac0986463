"""Look at reports with a real browser, and print what is wrong, a line each.

Called as: browser.py AXE TOLD REPORT HOSTILE [SHOTS]. AXE is the file of axe-core, TOLD what the index of REPORT must
say, as JSON. Of HOSTILE, nothing may be executed or loaded. SHOTS is a directory for two pictures.
"""

import json
import pathlib
import sys

from playwright.sync_api import sync_playwright

WIDTHS = (390, 1600)
SCHEMES = ("light", "dark")

# What could load or execute something, and is on no page.
FORBIDDEN = "script, img, iframe, object, embed, form, input, button, base, video, audio, source, [style], [onclick], [onload], [onerror]"

FOCUSABLE = "a[href], summary, [tabindex]:not([tabindex='-1'])"

# How the element with the focus looks; null at the page's end.
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {
    index: [...document.querySelectorAll("a[href], summary, [tabindex]:not([tabindex='-1'])")].indexOf(e),
    text: e.textContent.slice(0, 60),
    seen: box.width > 0 && box.height > 0 && box.left >= 0 && box.right <= innerWidth && box.top < innerHeight && box.bottom > 0,
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
  };
}"""

faults = []


def fault(*words):
    faults.append(" ".join(str(word) for word in words))


def watched(context, where):
    """Open a page of which everything is a fault that a report must not do."""
    page = context.new_page()
    page.on("dialog", lambda dialog: (fault(where(), "opens a dialog:", dialog.message), dialog.dismiss()))
    page.on("console", lambda message: fault(where(), "says on the console:", message.text))
    page.on("pageerror", lambda error: fault(where(), "has an error:", error))
    page.on("popup", lambda _: fault(where(), "opens a window"))
    page.on("download", lambda _: fault(where(), "downloads something"))

    def request(r):
        if r.url.split("#")[0] != where() and not r.url.startswith("data:image/svg+xml,"):
            fault(where(), "requests", r.url[:200])

    page.on("request", request)
    return page


def check_index(page, told):
    """The headline and the groups are what was made."""
    headline = page.locator("h1").inner_text()
    if headline != told["headline"]:
        fault("the headline is", headline)
    groups = {}
    for section in page.locator("main > section").all():
        group = section.locator("h2").evaluate("h => h.firstChild.textContent").strip()
        groups[group] = section.locator(".rows a.name").all_inner_texts()
    if groups != told["groups"]:
        fault("the groups are", groups)


def check_keyboard(page, name):
    """The Tab key reaches each link once, in order, and one sees where it is."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    total = page.locator(FOCUSABLE).evaluate_all("list => list.filter(e => e.checkVisibility()).length")
    reached = []
    for _ in range(total):
        page.keyboard.press("Tab")
        now = page.evaluate(FOCUSED)
        if now is None:
            break
        reached.append(now["index"])
        if not now["seen"] or not now["outline"]:
            fault(name, "keyboard: the focus is not seen on", now)
    if len(reached) != total or reached != sorted(set(reached)):
        fault(name, "keyboard:", total, "elements, and the Tab key reaches", reached)


def check_axe(page, name, axe):
    page.evaluate(axe)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    for v in result["violations"]:
        for node in v["nodes"]:
            fault(name, "axe:", v["id"], v["help"], node["html"][:200], node["failureSummary"][:300])


def look(browser, folder, axe=None, told=None, shots=None):
    pages = sorted(path.name for path in folder.iterdir())
    if not pages:
        fault("no page in", folder)
    links = set()
    for scheme in SCHEMES:
        for width in WIDTHS:
            if told is None and (scheme == "light") != (width == 390):
                continue  # of many pages, half of the ways
            now = [""]
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
            page = watched(context, lambda: now[0])  # noqa: B023
            grounds = set()
            for file in pages:
                name = f"{file[:60]}, {scheme}, {width} px:"
                now[0] = (folder / file).as_uri()
                page.goto(now[0])
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    fault(name, "scrolls sideways:", wide)
                if page.locator(FORBIDDEN).count():
                    fault(name, "has", page.locator(FORBIDDEN).first.evaluate("e => e.outerHTML"))
                grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
                if told is None:
                    continue
                links.update(
                    page.locator("a[href^='r-'], a[href^='env-'], a[href$='.html']").evaluate_all(
                        "list => list.map(a => a.href)"
                    )
                )
                if file == "index.html":
                    check_index(page, told)
                    if shots and width == 1600:
                        page.set_viewport_size({"width": 1200, "height": 926})
                        page.screenshot(path=shots / f"report-{scheme}.png")
                        page.set_viewport_size({"width": width, "height": 900})
                if scheme == "light" and width == 1600:
                    check_keyboard(page, name)
                if file in told["axe"]:
                    check_axe(page, name, axe)
            light = {int(part) > 128 for ground in grounds for part in ground[4:-1].split(",")}
            if light != {scheme == "light"}:
                fault("in the scheme", scheme, "the ground is", grounds)
            context.close()
    for url in sorted(links):
        path = pathlib.Path(browser_path(url))
        if not path.is_file():
            fault("the link", url, "leads nowhere")


def browser_path(url):
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path)


def plain(browser, folder):
    """Without scripts at all, the index says the same."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "index.html").as_uri())
    text = page.locator("h1").text_content()
    context.close()
    return text


def main():
    axe, told, report, hostile, *shots = sys.argv[1:]
    told = json.loads(told)
    with sync_playwright() as playwright, playwright.chromium.launch() as browser:
        look(
            browser,
            pathlib.Path(report),
            pathlib.Path(axe).read_text(),
            told,
            pathlib.Path(shots[0]) if shots else None,
        )
        look(browser, pathlib.Path(hostile))
        if plain(browser, pathlib.Path(report)) != told["headline"]:
            fault("without scripts, the index says something else")
    print("\n".join(faults))


main()
