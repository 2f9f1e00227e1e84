# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""The page of vnetd without a browser: pictures as they come, and commands. Python's own library only."""

import json
import time
import urllib.request

PATIENCE = 30  # seconds; each wait ends as soon as what it is for is there


class Page:
    def __init__(self, url):
        self.url = url

    def pictures(self, card):
        """Pictures of a card, as they come."""
        with urllib.request.urlopen(f"{self.url}events?card={card}", timeout=PATIENCE) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def until(self, card, what, good):
        """The first picture that is as it should be."""
        end = time.monotonic() + PATIENCE
        for picture in self.pictures(card):
            if good(picture["card"]):
                return picture["card"]
            if time.monotonic() > end:
                raise SystemExit(f"{what}: {json.dumps(picture)[:4000]}")
        raise SystemExit(f"{what}: the stream has ended")

    def look(self, card):
        """A picture that was taken after this was called, which the first may not be."""
        pictures = self.pictures(card)
        next(pictures)
        return next(pictures)["card"]

    def command(self, what, card, queue=None):
        """pause, step or resume."""
        arguments = {"card": card} | ({"queue": queue} if queue else {})
        body = json.dumps({"execute": f"card-{what}", "arguments": arguments}).encode()
        with urllib.request.urlopen(f"{self.url}command", body, timeout=PATIENCE) as reply:
            answer = json.load(reply)
        if "error" in answer:
            raise SystemExit(f"{what} {card} {queue}: {answer['error']}")
        return answer["return"]


def queue(card, name):
    return next(queue for queue in card["queues"] if queue["queue"] == name)
