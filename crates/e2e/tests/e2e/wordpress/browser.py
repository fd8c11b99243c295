"""Headless Chromium, led through WordPress as a person would lead it: by clicks and keys.

Usage: browser.py DIRECTORY URL install TITLE    installs, and writes a post of that title
       browser.py DIRECTORY URL read TITLE       finds the post on the front page, and reads it
DIRECTORY is for the browser's own files and for a picture of the page when something fails.
"""
import base64, json, os, subprocess, sys, time

PATIENCE_S = 60
PASSWORD = "a-long-pass-word-42"


class Browser:
    """One page, over the DevTools protocol on two pipes: what goes in is read from 3, what comes
    out is written to 4, each message ends with a zero byte."""

    def __init__(self, directory):
        self.directory = directory
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()

        def arrange():
            # Out of the way first: one of them may be 3 or 4 itself.
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3), os.dup2(b, 4)

        log = open(f"{directory}/chromium.log", "w")
        self.process = subprocess.Popen(
            ["chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--window-size=1280,1000", f"--user-data-dir={directory}/profile", "about:blank"],
            close_fds=False, preexec_fn=arrange, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=dict(os.environ, HOME=directory))
        os.close(theirs_in), os.close(theirs_out)
        self.rest, self.number, self.session = b"", 0, None
        page = self.until("a page", lambda: next(
            (t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"), None))
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if answer.get("method") == "Page.javascriptDialogOpening":
                raise RuntimeError(f"a dialog: {answer['params']}")

    def read(self):
        while b"\0" not in self.rest:
            piece = os.read(self.back, 1 << 16)
            if not piece:
                raise RuntimeError("the browser is gone")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def until(self, what, look):
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited for {what}")
            time.sleep(0.05)
        return found

    def see(self, expression):
        """The value of an expression; None while the page is being replaced."""
        try:
            result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        except RuntimeError as error:
            if "context" in str(error) or "navigated" in str(error):
                return None
            raise
        return result["result"].get("value")

    def go(self, url):
        failure = self.call("Page.navigate", url=url).get("errorText")
        if failure:
            raise RuntimeError(f"{url}: {failure}")
        self.until(f"{url} to be loaded", lambda: self.see("document.readyState") == "complete")

    def place(self, selector):
        """The middle of an element that is there, at rest and not covered by another."""
        return self.see("""(() => {
            const element = document.querySelector(%s);
            if (!element || element.disabled || element.getAttribute('aria-disabled') === 'true') return null;
            element.scrollIntoView({block: 'center', behavior: 'instant'});
            const box = element.getBoundingClientRect();
            const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
            const top = document.elementFromPoint(x, y);
            return box.width && top && (element.contains(top) || top.contains(element)) ? [x, y] : null;
        })()""" % json.dumps(selector))

    def click(self, selector):
        x, y = self.until(f"{selector} to be clicked", lambda: self.place(selector))
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, selector, done):
        """Clicks until it shows: a page that is still being put together does not listen yet."""
        def pressed():
            if not self.see(done) and self.place(selector):
                self.click(selector)
                time.sleep(0.2)
            return self.see(done)
        self.until(f"{done}, from clicks on {selector}", pressed)

    def fill(self, fields):
        """Writes until all is as wanted: a script may take the focus to another field meanwhile, as
        the installation's does."""
        def filled():
            wrong = [field for field, text in fields.items() if self.see(
                f"(e => e && (e.value ?? e.innerText))(document.querySelector({json.dumps(field)}))") != text]
            for field in wrong:
                self.press(field, f"document.activeElement?.matches({json.dumps(field)})")
                self.see("document.execCommand('selectAll')")
                self.call("Input.insertText", text=fields[field])
            return not wrong
        self.until(f"the fields {fields}", filled)

    def picture(self):
        data = self.call("Page.captureScreenshot")["data"]
        path = f"{self.directory}/failure.png"
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
        return path

    def end(self):
        self.process.kill()
        self.process.wait()


def install(page, url, title):
    page.go(url)
    page.until("the installation", lambda: page.see("location.pathname") == "/wp-admin/install.php")
    page.fill({"#weblog_title": "A classic pair", "#user_login": "writer", "#pass1": PASSWORD,
               "#admin_email": "writer@example.org"})
    page.click("#submit")
    page.until("success", lambda: page.see("document.body.innerText.includes('WordPress has been installed')"))
    page.go(f"{url}wp-login.php")
    page.fill({"#user_login": "writer", "#user_pass": PASSWORD})
    page.click("#wp-submit")
    page.until("the dashboard", lambda: page.see("location.pathname") == "/wp-admin/")
    page.go(f"{url}wp-admin/post-new.php")
    # The editor greets who comes for the first time.
    close, panel = ".components-modal__header button", ".editor-post-publish-panel__header-publish-button button"
    page.until("the greeting", lambda: page.place(close))
    page.press(close, f"!document.querySelector('{close}')")
    page.fill({".editor-post-title__input": title})
    page.press(".editor-post-publish-button__button", f"!!document.querySelector('{panel}')")
    page.press(panel, "!!document.querySelector('.post-publish-panel__postpublish')")


def read(page, url, title):
    page.go(url)
    link = "[...document.querySelectorAll('h2 a')].find(a => a.innerText === %s)" % json.dumps(title)
    page.until("the post on the front page", lambda: page.see(f"!!{link}"))
    page.go(page.see(f"{link}.href"))
    page.until("the post", lambda: page.see("document.querySelector('h1')?.innerText") == title)


def main(directory, url, verb, title):
    page = Browser(directory)
    try:
        {"install": install, "read": read}[verb](page, url, title)
        print("done")
    except Exception:
        print("the page:", page.see("document.body.innerText"), page.picture(), file=sys.stderr)
        raise
    finally:
        page.end()


main(*sys.argv[1:])
