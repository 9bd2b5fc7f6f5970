"""Opens the page of a running job in Chromium, by its own protocol, and looks whether it shows what is so."""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import websocket

PROGRAMS = pathlib.Path(os.environ["E2E_PROGRAMS"])
PATIENCE = 60

# Whether all that can be pressed has a name, and all text stands out from what is behind it by 4.5 to 1 (WCAG 2.2 AA).
ACCESSIBLE = """
(() => {
  const wrong = [];
  for (const e of document.querySelectorAll("button, a, input, [role]")) {
    const name = (e.getAttribute("aria-label") || e.textContent || e.title || e.placeholder || "").trim();
    const labelled = e.id && document.querySelector(`label[for="${e.id}"]`) || e.getAttribute("aria-labelledby");
    if (!name && !labelled && e.offsetParent && e.getAttribute("role") !== "presentation") wrong.push("no name: " + e.outerHTML.slice(0, 80));
  }
  const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.offsetParent || e.closest("svg, script, style, [hidden], .banner")) continue;
    const style = getComputedStyle(e), text = rgb(style.color);
    if (text.length === 4 && text[3] < 1 || style.visibility === "hidden") continue;
    const [a, b] = [light(text.slice(0, 3)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) wrong.push(ratio.toFixed(2) + ": " + walker.currentNode.textContent.slice(0, 40));
  }
  return wrong;
})()
"""


class Tab:
    """A tab of a browser."""

    def __init__(self, url):
        self.socket = websocket.create_connection(url, timeout=PATIENCE, suppress_origin=True)
        self.count = 0
        self.errors = []

    def command(self, method, **params):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message)[:600])
            if message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                # A server that is gone is one of the things that are tried.
                if entry["level"] == "error" and entry["source"] != "network":
                    self.errors.append(entry["text"])
            if message.get("id") == self.count:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]

    def js(self, text):
        result = self.command("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def open(self, url, width=1280, dark=False):
        for domain in ["Runtime", "Page", "Log"]:
            self.command(f"{domain}.enable")
        self.size(width, dark)
        self.command("Page.navigate", url=url)

    def size(self, width, dark):
        mobile = width < 600
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def text(self, name):
        return self.js(f"document.getElementById({json.dumps(name)})?.textContent ?? ''")

    def shot(self, path):
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser():
    folder = tempfile.mkdtemp()
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
        "--remote-allow-origins=*", "--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}",
    ]
    process = subprocess.Popen(
        ["chromium", *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        said = pathlib.Path(folder, "DevToolsActivePort")
        wait("the browser is up", lambda: said.exists() and said.read_text().strip())
        port = said.read_text().split()[0]
        ask = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(ask, timeout=PATIENCE) as answer:
            yield Tab(json.load(answer)["webSocketDebuggerUrl"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"FAILED  waited {PATIENCE} s for: {what}")
        time.sleep(0.1)
    print(f"ok      {what}", flush=True)


def ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return found


class Job:
    """A job whose tasks end when there is a file with their number."""

    def __init__(self, folder):
        self.folder = folder
        self.tasks, self.receipts, self.results, self.http = ports(4)
        self.processes = {}
        (folder / "in").write_text("".join(f"{n}\n" for n in range(400)))
        (folder / "task.sh").write_text(
            'while [ ! -e "go-$(($1 / 100))" ]; do sleep 0.05; done; sleep "$2"\n'
            '[ "$1" != 13 ] || { echo "no such picture: 13.png" >&2; exit 2; }\n'
        )

    def start(self, name, program, *flags):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [PROGRAMS / program, *flags], cwd=self.folder, stdout=log, stderr=log,
                env={**os.environ, "TRADEWIND_INSECURE": "true"},
            )

    def ventilator(self):
        at = "tcp://127.0.0.1:"
        self.start(
            "ventilator", "ventilator", "--job", "thumbnails", "--input", "in", "--resume", "--resume-wait", "0s",
            "--tasks", f"{at}{self.tasks}", "--receipts", f"{at}{self.receipts}", "--sink", f"{at}{self.results}",
            "--http", f"127.0.0.1:{self.http}",
        )

    def sink(self):
        at = "tcp://127.0.0.1:"
        self.start(
            "sink", "sink", "--listen", f"{at}{self.results}", "--ventilator", f"{at}{self.receipts}",
            "--output", "out.jsonl",
        )

    def worker(self, name, nap):
        at = "tcp://127.0.0.1:"
        self.start(
            name, "worker", "--ventilator", f"{at}{self.tasks}", "--sink", f"{at}{self.results}", "--name", name,
            "--slots", "2", "--exit-when-done", "--", "sh", "task.sh", "{}", nap,
        )

    def go(self, part):
        (self.folder / f"go-{part}").touch()

    def end(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shots", type=pathlib.Path)
    shots = parser.parse_args().shots
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as tab:
        job = Job(pathlib.Path(folder))
        try:
            play(job, tab, shots)
        finally:
            job.end()
    print("\nthe page shows what is so")


def play(job, tab, shots):
    def shot(name, width=1280, dark=False):
        wrong = tab.js(ACCESSIBLE)
        if wrong:
            raise SystemExit(f"FAILED  {name}: {wrong}")
        over = tab.js("document.documentElement.scrollWidth - innerWidth")
        if over > 0:
            raise SystemExit(f"FAILED  {name} is {over} px too wide")
        if shots:
            tab.shot(shots / f"{name}.png")
        print(f"ok      {name}: names, contrast, width", flush=True)

    job.ventilator()
    url = f"http://127.0.0.1:{job.http}/"
    wait("the ventilator answers", lambda: answers(url))
    tab.open(url)
    wait("the page is there", lambda: tab.text("line"))
    tab.js("document.getElementById('line').style.color = '#ccc'")
    wait("what is hard to read would be found", lambda: tab.js(ACCESSIBLE))
    tab.js("document.getElementById('line').style.color = ''")
    wait("the sink is missed", lambda: "Waiting for the sink" in tab.text("line"))
    shot("1-no-sink")
    job.sink()
    wait("workers are missed", lambda: "Waiting for workers" in tab.text("line"))
    shot("2-no-workers")
    job.worker("atlas.1", "0.02")
    job.worker("atlas.2", "0.02")
    job.worker("nas.1", "0.4")
    wait("all slots are busy", lambda: tab.text("line") == "Workers limit: all 6 slots are busy.")
    job.go(0)
    wait("numbers move", lambda: stored(tab) >= 40)
    shot("3-running")
    job.go(1)
    wait("the slow worker is named with its reason", lambda: "slow: " in tab.text("workers"))
    shot("4-slow-worker")
    tab.js("ask('399')")
    wait("a task says what it waits for", lambda: "waits to be handed out" in tab.text("t-line"))
    shot("5-one-task")
    tab.js("document.getElementById('task').close()")
    before = stored(tab)
    job.processes["ventilator"].kill()
    wait("the page says that nobody answers", lambda: "does not answer" in tab.text("banner"))
    shot("6-no-answer")
    job.ventilator()
    wait("and goes on by itself", lambda: tab.text("livetext") == "live" and stored(tab) >= before)
    for part in [2, 3]:
        job.go(part)
    tab.size(390, True)
    wait("on a phone it goes on", lambda: stored(tab) >= 300)
    shot("7-phone-dark")
    tab.size(1280, False)
    wait("the end is told", lambda: "all 400 tasks have their record, 1 of them not ok" in tab.text("line"))
    shot("8-finished")
    if tab.errors:
        raise SystemExit(f"FAILED  errors in the console: {tab.errors}")
    print("ok      no error in the console")


def stored(tab):
    text = tab.text("pct-of").split(" ")[0].replace(",", "")
    return int(text) if text.isdigit() else 0


def answers(url):
    try:
        with urllib.request.urlopen(url + "healthz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()
