#!/usr/bin/env python3
"""Drives the chat page in a headless Chromium over the DevTools protocol, by keyboard only.

page_test.py --url URL [--locked-url URL --key KEY] [--screenshots FOLDER]

Exit 0: all held; 1: something did not, said in one line; 77: no Chromium found (set $CHROMIUM).
Needs nothing but Python's standard library: the protocol runs over two pipes.
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 60  # of one step; a page that needs a second of it is slow
SKIPPED = 77
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--window-size=1280,860", "--remote-debugging-pipe")


class Failure(Exception):
    pass


class Browser:
    """One Chromium with one page."""

    def __init__(self, program, profile):
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=lambda: self._place(from_us, to_us))
        os.close(from_us)
        os.close(to_us)
        self.write_to, self.read_from = to_browser, from_browser
        self.rest = b""
        self.last_id = 0
        self.session = None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    def _place(read, write):
        """The protocol's pipes are descriptors 3 and 4 of the browser."""
        read, write = os.dup(read), os.dup(write)
        high_read, high_write = os.dup2(read, 63), os.dup2(write, 64)
        os.dup2(high_read, 3)
        os.dup2(high_write, 4)

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(20)
        except (Failure, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def call(self, method, **parameters):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": parameters}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._read(deadline, method)
            if answer.get("id") != self.last_id:
                self.events.append(answer)
            elif "error" in answer:
                raise Failure(f"{method}: {answer['error']['message']}")
            else:
                return answer["result"]

    def _read(self, deadline, what):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read_from], [], [], deadline - time.monotonic())
            if not ready:
                raise Failure(f"no answer to {what} within {PATIENCE_S} s")
            data = os.read(self.read_from, 1 << 20)
            if not data:
                raise Failure(f"the browser ended during {what}")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    # --- what a test says ---

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True)
        if "exceptionDetails" in result:
            raise Failure(f"{expression}: {result['exceptionDetails']['exception']['description']}")
        return result["result"].get("value")

    def wait(self, condition, what):
        """Until a JavaScript condition holds."""
        held = self.value(f"""new Promise((done) => {{
            const until = performance.now() + {PATIENCE_S * 700};
            const look = () => {{
              if ({condition}) return done(true);
              if (performance.now() > until) return done(false);
              setTimeout(look, 10);
            }};
            look();
          }})""")
        if not held:
            raise Failure(f"{what} (waited for: {condition}); the page says: "
                          f"{self.value('document.body.innerText')[:1500]!r}")

    def expect(self, condition, what):
        if not self.value(condition):
            raise Failure(f"{what} (expected: {condition})")

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === "
                  "'complete' && document.getElementById('prompt')", "the page did not load")

    def write(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code=None, text="", shift=False):
        modifiers = 8 if shift else 0
        numbers = {"Enter": 13, "Escape": 27, "Tab": 9}
        common = {"key": key, "code": code or key, "modifiers": modifiers,
                  "windowsVirtualKeyCode": numbers[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, folder, name):
        if folder:
            data = self.call("Page.captureScreenshot")["data"]
            (pathlib.Path(folder) / f"{name}.png").write_bytes(base64.b64decode(data))


def find_browser():
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    print(f"no Chromium found (looked for {named or ', '.join(BROWSERS)}); set $CHROMIUM")
    sys.exit(SKIPPED)


# --- steps --------------------------------------------------------------------------------------

SAID = "document.querySelectorAll('.said.assistant')"
IDLE = "!document.getElementById('send').hidden"


def shows_the_gang(browser):
    browser.wait("document.getElementById('state-text').textContent === 'ready'", "never ready")
    browser.wait("document.querySelectorAll('#ranks li').length === 2", "two ranks are not shown")
    browser.expect("document.getElementById('ranks').textContent.includes('rank 1')", "no rank 1")
    browser.expect("document.getElementById('facts').textContent.includes('Epoch')", "no epoch")
    browser.expect("document.getElementById('model').textContent.length > 0", "no model name")


def answers_by_keyboard(browser):
    browser.wait("document.activeElement.id === 'prompt'", "the message field has no focus")
    browser.write("What is a gang?")
    browser.press("Enter", text="\r", shift=True)
    browser.expect("document.getElementById('prompt').value.includes('\\n')",
                   "Shift+Enter began no line")
    browser.write("Say it briefly.")
    browser.press("Enter", text="\r")
    browser.wait(f"{SAID}.length === 1", "no answer began")
    browser.wait(f"{SAID}[0].querySelector('.foot')", "the answer did not end")
    browser.expect(f"{SAID}[0].querySelector('.text').textContent.length > 20", "no text")
    # The last token may be a part of a character: the answer was cut there.
    browser.expect(f"!{SAID}[0].querySelector('.text').textContent.slice(0, -1)"
                   ".includes('\\ufffd')", "half a character was shown")
    browser.expect(f"{SAID}[0].querySelector('.foot').textContent.includes('512 tokens')",
                   "the foot does not tell the tokens")


def sends_what_is_set(browser):
    browser.value("""(() => {
      window.sent = [];
      const real = window.fetch;
      window.fetch = (url, options) => {
        if (options && options.body) window.sent.push(JSON.parse(options.body));
        return real(url, options);
      };
      document.getElementById('system').value = 'Be brief.';
      document.getElementById('max').value = '7';
      const slider = document.getElementById('temperature');
      slider.value = '1.25';
      slider.dispatchEvent(new Event('input'));
      document.getElementById('prompt').focus();
    })()""")
    browser.write("Again")
    browser.press("Enter", text="\r")
    browser.wait(f"{SAID}.length === 2 && {SAID}[1].querySelector('.foot')", "no second answer")
    body = browser.value("window.sent[0]")
    expected = {"temperature": 1.25, "max_tokens": 7, "stream": True}
    wrong = {name: body.get(name) for name, value in expected.items() if body.get(name) != value}
    roles = [message["role"] for message in body["messages"]]
    if wrong or roles != ["system", "user", "assistant", "user"]:
        raise Failure(f"the request was not what the settings say: {wrong} {roles}")
    browser.expect("document.getElementById('temperature-out').value === '1.25'", "not shown")


def stops(browser):
    browser.value("document.getElementById('max').value = '3000'")
    browser.write("Never end")
    browser.press("Enter", text="\r")
    browser.wait(f"{SAID}.length === 3 && {SAID}[2].querySelector('.text').textContent.length > 5",
                 "no third answer")
    browser.press("Escape")
    browser.wait(f"{IDLE} && {SAID}[2].textContent.includes('stopped')", "Escape did not stop it")
    browser.wait("document.getElementById('facts').textContent.includes('0 / 0')",
                 "the gang still works on it")


def tells_of_a_lost_rank(browser):
    browser.write("Please lose a rank")
    browser.press("Enter", text="\r")
    browser.wait("document.querySelector('.fault')", "no error was shown")
    browser.expect("/rank 1 was lost|A rank was lost/.test("
                   "document.querySelector('.fault').textContent)",
                   "the error does not say that a rank was lost")
    browser.expect("document.querySelector('.fault').getAttribute('role') === 'alert'",
                   "the error is not announced")
    browser.wait("document.getElementById('facts').textContent.includes('Repairs1')",
                 "the repair is not shown")
    browser.wait("document.getElementById('state-text').textContent === 'ready'", "not ready again")
    browser.expect("document.querySelector('.fault button').textContent === 'Try again'",
                   "it cannot be tried again")


def asks_for_a_key(browser, url, key):
    browser.open(url)
    browser.wait("!document.getElementById('key-card').hidden", "no key was asked for")
    browser.wait("document.activeElement.id === 'key'", "the key field has no focus")
    browser.write("a-key-that-is-not-known-here")
    browser.press("Enter", text="\r")
    browser.wait("document.getElementById('key-hint').textContent.includes('not known')",
                 "a wrong key was taken")
    browser.value("document.getElementById('key').focus()")
    browser.write(key)
    browser.press("Enter", text="\r")
    browser.wait("document.getElementById('state-text').textContent === 'ready'",
                 "the right key was not taken")
    browser.expect("document.getElementById('key-card').hidden", "the key is still asked for")
    browser.expect("document.cookie === '' && localStorage.length === 0", "the key was stored")


CONTRAST = """(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$/.test(color) && color !== 'transparent') return color;
    }
    return getComputedStyle(document.documentElement).backgroundColor;
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.classList.contains('skip')) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(element.className + ' ' + element.textContent.slice(0, 20) + ' ' +
                              ratio.toFixed(2));
  }
  return low;
})()"""


def fits_every_screen(browser, screenshots):
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia",
                     features=[{"name": "prefers-color-scheme", "value": scheme}])
        low = browser.value(CONTRAST)
        if low:
            raise Failure(f"too little contrast in {scheme}: {low}")
        for width, height in ((1280, 860), (820, 1180), (390, 844), (320, 568)):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                         deviceScaleFactor=1, mobile=width < 800)
            browser.expect("document.documentElement.scrollWidth <= innerWidth",
                           f"it is wider than a screen of {width}")
            browser.expect("document.getElementById('send').getBoundingClientRect().bottom <= "
                           "innerHeight", f"Send is below a screen of {width} x {height}")
            browser.screenshot(screenshots, f"{scheme}-{width}")
    browser.call("Emulation.clearDeviceMetricsOverride")


def loads_only_from_here(browser, urls):
    """And nothing went wrong that only the console tells of; 401 and 503 are asked for above."""
    for event in browser.events:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith((*urls, "data:", "about:")):
                raise Failure(f"the page asked for {url}")
        elif event["method"] == "Runtime.exceptionThrown":
            raise Failure(f"an exception: {parameters['exceptionDetails']}")
        elif event["method"] == "Log.entryAdded":
            text = parameters["entry"]["text"]
            if parameters["entry"]["level"] == "error" and "status of" not in text \
                    and "ERR_INCOMPLETE_CHUNKED" not in text:
                raise Failure(f"the console says: {text}")


def run(arguments, browser):
    browser.open(arguments.url)
    shows_the_gang(browser)
    answers_by_keyboard(browser)
    sends_what_is_set(browser)
    stops(browser)
    tells_of_a_lost_rank(browser)
    fits_every_screen(browser, arguments.screenshots)
    urls = [arguments.url]
    if arguments.locked_url:
        asks_for_a_key(browser, arguments.locked_url, arguments.key)
        urls.append(arguments.locked_url)
    loads_only_from_here(browser, urls)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--locked-url")
    parser.add_argument("--key", default="")
    parser.add_argument("--screenshots")
    arguments = parser.parse_args()
    program = find_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            run(arguments, browser)
        except Failure as failure:
            browser.screenshot(arguments.screenshots, "failure")
            print(f"page_test: {failure}")
            return 1
        finally:
            browser.close()
    print("page_test: all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
