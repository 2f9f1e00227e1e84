# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""A headless Chromium, driven by its DevTools protocol over a pair of pipes. Python's own library only.

browser.py URL FILE [WIDTH [HEIGHT]] makes a picture of a page."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

PROGRAMS = ("chromium", "chromium-headless-shell", "google-chrome")
PATIENCE = 60  # seconds; each wait ends as soon as what it is for is there


class Browser:
    def __init__(self, width=1200, height=900):
        program = next(filter(None, map(shutil.which, PROGRAMS)))
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()
        for fd in (theirs_in, theirs_out):
            os.set_inheritable(fd, True)
        arguments = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--remote-debugging-pipe",
            f"--user-data-dir={self.home.name}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        # The protocol is spoken on descriptors 3 and 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *arguments],
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": self.home.name},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requested = set()
        self.resize(width, height)

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def message(self):
        """The next one from the browser."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(0, end - time.monotonic()))[0]:
                raise SystemExit("the browser does not answer")
            data = os.read(self.into, 1 << 20)
            if not data:
                raise SystemExit("the browser has ended")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        call = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            call["sessionId"] = self.session
        os.write(self.out, json.dumps(call).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]
            self.event(message)

    def event(self, message):
        """Notes what a page should not have: errors of scripts, and what it fetches."""
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters)[:2000])
        elif message.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            # Servers that are gone, and say no, are part of a test.
            if entry["level"] == "error" and entry["source"] != "network":
                self.complaints.append(entry["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requested.add(parameters["request"]["url"])

    def go(self, url):
        self.call("Page.navigate", url=url)

    def value(self, expression):
        """What an expression of JavaScript comes to."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            return None
        return result["result"].get("value")

    def until(self, what, expression, good=bool):
        """Waits until it is as it should be."""
        end = time.monotonic() + PATIENCE
        while True:
            value = self.value(expression)
            if good(value):
                return value
            if time.monotonic() > end:
                page = self.value("document.body.innerText")
                raise SystemExit(f"{what}: {expression} is {value}; page:\n{page}")
            time.sleep(0.05)

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)})?.textContent")

    def click(self, selector):
        self.until(
            f"{selector} cannot be clicked",
            f"(b => b && !b.disabled && (b.click(), true))(document.querySelector({json.dumps(selector)}))",
        )

    def picture(self, path, whole=False):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.home.cleanup()


if __name__ == "__main__":
    url, path, *size = sys.argv[1:]
    browser = Browser(*map(int, size))
    browser.go(url)
    browser.until("no pictures", "document.getElementById('state').className === 'live'")
    time.sleep(2)
    browser.picture(path)
    browser.close()
