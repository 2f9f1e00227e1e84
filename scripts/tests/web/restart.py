# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
"""A page that is open when vnetd ends and another begins: restart.py DIRECTORY COMMAND..., to which a socket and
where the page is to be are added."""

import re
import subprocess
import sys
import time

from browser import Browser

directory, *command = sys.argv[1:]


def start(port):
    with open(f"{directory}/restart.log", "w") as log:
        process = subprocess.Popen(
            [*command, "--socket", f"{directory}/restart.sock", "--net", "loopback",
             "--web", f"127.0.0.1:{port}", "--web-token", f"{directory}/restart.token"],
            stderr=log,
        )
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with open(f"{directory}/restart.log") as log:
            found = re.search(r"http://127.0.0.1:(\d+)/\S*/", log.read())
        if found:
            return process, found[0], found[1]
        time.sleep(0.05)
    process.kill()
    raise SystemExit("vnetd does not say where its page is")


state = "document.getElementById('state').className"
process, url, port = start(0)
browser = Browser()
try:
    browser.go(url)
    browser.until("not live", state, lambda kind: kind == "live")
    process.terminate()
    process.wait()
    browser.until("does not notice", state, lambda kind: kind == "lost")
    process, again, _ = start(port)
    assert again == url, (url, again)
    browser.until("does not come back", state, lambda kind: kind == "live")
    assert not browser.complaints, browser.complaints
finally:
    browser.close()
    process.terminate()
    process.wait()
