# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""What the page tells of a card while a guest uses it: checks.py URL CHECK. Says what is wrong and fails."""

import sys
import urllib.error
import urllib.request

from page import Page, queue

CARD = "nic0"


def token(page):
    """Nobody gets anything with another token."""
    base, secret = page.url[:-1].rsplit("/", 1)
    for wrong in ("", "x" * len(secret), secret[:-1]):
        for name in ("", "page.js", "events", "command"):
            try:
                urllib.request.urlopen(f"{base}/{wrong}/{name}", timeout=10)
                raise SystemExit(f"{wrong}/{name} was answered")
            except urllib.error.HTTPError as e:
                assert e.code == 404, e
    print(urllib.request.urlopen(page.url, timeout=10).status)


def moves(page):
    """Under traffic everything moves, and frames are told with their way."""
    first = page.look(CARD)
    kinds = set()

    def moved(card):
        for frame in card["frames"]:
            kinds.add((frame["queue"][:2], frame["text"].split(" ")[0]))
            # In order, as far as they were.
            stages = frame["stages"]
            times = [stages[name] for name in ("backend", "done", "used", "interrupt")]
            times = [0] + [time for time in times if time is not None]
            assert times == sorted(times), frame
        waiting.clear()
        for name in ("rx0", "tx0"):
            old, new = queue(first, name), queue(card, name)
            for index in ("avail", "used", "next-avail"):
                if new["ring"][index] == old["ring"][index]:
                    waiting.append((name, index))
            for count in ("frames", "bytes", "interrupts" if name == "rx0" else "doorbells"):
                if new[count] <= old[count]:
                    waiting.append((name, count))
        waiting.extend({("rx", "TCP"), ("tx", "TCP")} - kinds)
        return not waiting

    waiting = []
    try:
        page.until(CARD, "does not move", moved)
    finally:
        print(sorted(kinds), waiting)


def at_rest(page):
    """The card has nearly all receive buffers, and nothing to send."""

    def rest(card):
        owned = [sum(n for _, n in queue(card, name)["ring"]["owned"]) for name in ("rx0", "tx0")]
        size = queue(card, "rx0")["ring"]["size"]
        return owned[0] > size // 2 and owned[1] == 0

    page.until(CARD, "not at rest", rest)


def paused(page):
    page.command("pause", CARD)
    page.until(CARD, "not paused", lambda card: all(queue["paused"] for queue in card["queues"]))


def walk(page):
    """A frame goes out step by step: each does what it says, no more, and what was announced."""
    page.until(
        CARD,
        "nothing to send",
        lambda card: queue(card, "tx0")["ring"]["avail"] != queue(card, "tx0")["ring"]["used"],
    )
    way = []
    before = page.look(CARD)
    for _ in range(30):
        announced = {q["queue"]: q["next"]["step"] for q in before["queues"] if q["next"]}
        told = page.command("step", CARD, "tx0")
        did = told["did"]
        assert did["step"] == announced["tx0"], (did, announced)
        assert did["section"].startswith("docs/datasheet.md#"), did
        after = page.look(CARD)
        for name in ("rx0", "tx0"):
            old, new = queue(before, name), queue(after, name)
            step = did["step"] if name == "tx0" else None
            used = (new["ring"]["used"] - old["ring"]["used"]) & 0xFFFF
            assert used == (1 if step == "use" else 0), (name, did, old, new)
            raised = new["interrupts"] - old["interrupts"]
            assert raised == (1 if step == "signal" else 0), (name, did, old, new)
            assert new["paused"], new
        if did["step"] == "use":
            assert did["values"]["new"] == queue(after, "tx0")["ring"]["used"], did
        way.append(did["step"])
        before = after
        if did["step"] in ("decide", "signal") and "use" in way:
            break
    print(way)
    assert way[:4] == ["fetch", "read", "hand", "use"], way


def resumed(page):
    page.command("resume", CARD)
    page.until(CARD, "not resumed", lambda card: not any(queue["paused"] for queue in card["queues"]))


def two(page):
    """Both cards are there, and each is shown for itself."""
    for name in ("nic0", "nic1"):
        picture = next(page.pictures(name))
        assert [card["name"] for card in picture["cards"]] == ["nic0", "nic1"], picture
        assert picture["card"]["name"] == name, picture
        assert queue(picture["card"], "rx0")["ring"], picture


if __name__ == "__main__":
    globals()[sys.argv[2]](Page(sys.argv[1]))
