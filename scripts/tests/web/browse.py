# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""The page in a browser, while a guest uses the cards nic0 and nic1: browse.py URL. Checks print one line
each, as those of scripts/lib/check.sh do."""

import json
import sys
import time

from browser import Browser
from page import Page, queue

CARD = "nic0"


def field(name, key):
    return f"""document.querySelector('[data-queue={name}] [data-field="{key}"]').textContent"""


def shows(browser, page):
    """The page shows the rings of both queues, and they move."""
    browser.go(page.url)
    browser.until("not live", "document.getElementById('state').className === 'live'")
    for name in ("rx0", "tx0"):
        used = browser.until("no index", field(name, "used"), lambda text: text not in (None, "–"))
        browser.until("does not move", field(name, "used"), lambda text: text != used)
        turned = f"document.querySelector('[data-queue={name}] .hand.used').style.transform"
        hand = browser.value(turned)
        browser.until("the hand does not turn", turned, lambda now: now != hand)
        browser.until("no rate", field(name, "rate"), lambda text: text not in (None, "0"))
    size = queue(page.look(CARD), "rx0")["ring"]["size"]
    track = "document.querySelector('[data-queue=rx0] circle.device').getAttribute('pathLength')"
    assert browser.value(track) == str(size)
    browser.until("no frames", "document.querySelectorAll('#frames tbody tr').length", lambda n: n > 5)
    browser.until(
        "no way", "[...document.querySelectorAll('.way')].some(w => /fetch.*used.*interrupt/.test(w.textContent))"
    )


def own_things_only(browser, page):
    """Nothing is fetched from elsewhere, and no script complains."""
    strangers = [url for url in browser.requested if not url.startswith((page.url, "data:", "about:"))]
    assert not strangers, strangers
    assert not browser.complaints, browser.complaints


def pauses(browser, page):
    """A button pauses the card, another lets one of its queues go on, and the page says so."""
    browser.click("#pause")
    browser.until("not paused", field("tx0", "state"), lambda text: text == "paused")
    assert all(queue["paused"] for queue in page.look(CARD)["queues"])
    # A driver resets a card whose transmit queue stands still; nobody minds a receive queue that does.
    browser.click("[data-queue=tx0] [data-command=resume]")
    browser.until("paused", field("tx0", "state"), lambda text: text == "transmit")
    assert [queue["paused"] for queue in page.look(CARD)["queues"]] == [True, False]


def steps(browser, page):
    """The button advances one step, the one that was announced, which is told with a link."""
    for _ in range(3):
        before = queue(page.look(CARD), "rx0")
        browser.value("delete document.getElementById('words').dataset.step")
        browser.click("[data-queue=rx0] [data-command=step]")
        step = browser.until("no step", "document.getElementById('words').dataset.step")
        after = queue(page.look(CARD), "rx0")
        assert step == before["next"]["step"], (step, before)
        moved = (after["ring"]["used"] - before["ring"]["used"]) & 0xFFFF
        assert (moved > 0) == (step == "use"), (step, before, after)
        raised = after["interrupts"] - before["interrupts"]
        assert raised == (1 if step == "signal" else 0), (step, before, after)
        next_told = "document.querySelector('[data-queue=rx0] p.next').textContent"
        browser.until("what is next", next_told, lambda text: after["next"]["text"] in text)
    link = browser.value("document.querySelector('#words a').href")
    assert link.startswith(f"{page.url}datasheet#"), link
    anchor = json.dumps(link.split("#")[1])
    fetched = f"fetch({json.dumps(link)}).then(r => r.text()).then(t => t.includes('id=' + JSON.stringify({anchor})))"
    assert browser.value(fetched), link


def survives_reload(browser, page):
    """After a reload it shows the same card, paused as it was."""
    browser.call("Page.reload")
    time.sleep(0.2)
    browser.until("not paused", field("rx0", "state"), lambda text: text == "paused")
    browser.until("nothing is next", "document.querySelector('[data-queue=rx0] p.next').textContent")


def resumes(browser, page):
    """The button lets the card run again."""
    browser.click("#resume")
    browser.until("paused", field("rx0", "state"), lambda text: text == "receive")
    assert not any(queue["paused"] for queue in page.look(CARD)["queues"])


def two_cards(browser, page):
    """The other card is a click away, and a reload stays with it."""
    browser.click("[data-card=nic1]")
    shown = "document.querySelector('nav .shown').dataset.card"
    browser.until("not shown", shown, lambda name: name == "nic1")
    browser.call("Page.reload")
    time.sleep(0.2)
    browser.until("not shown", shown, lambda name: name == "nic1")
    browser.click("[data-card=nic0]")
    browser.until("not shown", shown, lambda name: name == "nic0")


def narrow(browser, page):
    """In a narrow window nothing is cut off."""
    browser.resize(380, 800)
    browser.until("not live", "document.getElementById('state').className === 'live'")
    wide = "document.documentElement.scrollWidth"
    browser.until("too wide", wide, lambda width: width <= 380)
    browser.resize(1200, 900)


def main():
    page = Page(sys.argv[1])
    browser = Browser()
    failed = False
    for check in (shows, own_things_only, pauses, steps, survives_reload, resumes, two_cards, narrow, own_things_only):
        try:
            check(browser, page)
            print(f"ok {check.__doc__}")
        except (AssertionError, SystemExit) as e:
            failed = True
            print(f"not ok {check.__doc__}\n    {e}")
    browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
