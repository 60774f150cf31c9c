"""The clients of the gateway under test: they switch, lock and read, and remember what was acknowledged to them."""
import datetime
import http.client
import json
import ssl
import threading
import time
import uuid

from guest import OUTLETS, pdus

GONE = (ConnectionError, http.client.HTTPException, ssl.SSLError, TimeoutError, OSError)


def stamp_ms(text):
    return round(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


class Gateway:
    """One kept-alive connection."""

    def __init__(self, port, place, role):
        tls = ssl.create_default_context(cafile=str(place / "ca.pem"))
        tls.load_cert_chain(str(place / f"{role}.pem"), str(place / f"{role}.key"))
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=60)

    def ask(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text)

    def get(self, path):
        status, body = self.ask("GET", path)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {body}")
        return body


class Known:
    """What was acknowledged, over all rounds: it must be there for ever."""

    def __init__(self):
        self.lock = threading.Lock()
        self.plans = {}      # id -> (key, path, body, outcome)
        self.fresh = []      # those of this round
        self.lines = {}      # audit: seq -> hash
        self.locked = {}     # outlet's path -> True, False, or None while a change is under way
        self.points = {}     # (pdu, at) -> value
        self.refused = 0

    def switched(self, id, *what):
        with self.lock:
            self.plans[id] = what
            self.fresh.append(id)


class Load:
    """Everything that writes while the power is still there. Ends by itself when the gateway is gone."""

    def __init__(self, known, port, place, clock):
        self.known, self.port, self.place, self.clock = known, port, place, clock
        self.stop = threading.Event()
        self.first = threading.Event()
        jobs = [(self.switch, pdu) for pdu in pdus()] + [(self.watch, None), (self.locks, pdus()[0])]
        self.failures = []
        self.threads = [threading.Thread(target=self.run, args=job, daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()

    def run(self, job, about):
        try:
            job(about)
        except GONE as error:
            if not self.stop.is_set():
                self.failures.append(f"{job.__name__}: {error!r}")
        except Exception as error:
            self.failures.append(f"{job.__name__}: {error!r}")

    def end(self):
        """After the cut."""
        for thread in self.threads:
            thread.join(70)
        return self.failures

    def switch(self, pdu):
        gateway, number = Gateway(self.port, self.place, "operator"), 0
        while not self.stop.is_set():
            # The last one is for locks.
            outlet, number = number % (OUTLETS - 1) + 1, number + 1
            path = f"/v1/pdus/{pdu}/outlets/{outlet}/power"
            state = gateway.get(f"/v1/pdus/{pdu}/outlets/{outlet}")["state"]
            body = {"action": "off" if state == "on" else "on", "reason": "power cut rig"}
            key = str(uuid.uuid4())
            status, plan = gateway.ask("POST", path, body, {"idempotency-key": key})
            if status == 200:
                self.known.switched(plan["id"], key, path, body, plan["outcome"])
                self.first.set()
            else:
                with self.known.lock:
                    self.known.refused += 1

    def locks(self, pdu):
        gateway, path = Gateway(self.port, self.place, "admin"), f"/v1/pdus/{pdu}/outlets/{OUTLETS}/lock"
        while not self.stop.is_set():
            wanted = self.known.locked.get(path) is not True
            self.known.locked[path] = None
            status, body = gateway.ask("PUT", path, {"reason": "power cut rig"}) if wanted else gateway.ask("DELETE", path)
            if status != 200:
                raise RuntimeError(f"{path}: {status} {body}")
            self.known.locked[path] = wanted

    def watch(self, _):
        gateway, since = Gateway(self.port, self.place, "operator"), {}
        while not self.stop.is_set():
            for pdu in pdus():
                for point in series(gateway, pdu, since.get(pdu, "-3s"), self.clock):
                    at, value = point
                    since[pdu] = at / 1000
                    with self.known.lock:
                        self.known.points[pdu, at] = value
            audit = gateway.get("/v1/audit?limit=1&cursor=0")
            with self.known.lock:
                self.known.lines[audit["head_seq"]] = audit["head_hash"]


def series(gateway, pdu, start, clock=None):
    """Good points of a PDU's inlet; the answer also tells what time it is there."""
    answer = gateway.get(f"/v1/series?target={pdu}/I1&metric=power_w&start={start}&end=now")
    if clock is not None:
        clock.told(stamp_ms(answer["end"]))
    return [(stamp_ms(point["at"]), point["value"]) for point in answer["points"] if point["quality"] == "good"]


class Clock:
    """The guest's time as seen from here, so that what was lost can be told in seconds before the cut."""

    def __init__(self):
        self.ahead_ms = None

    def told(self, guest_ms):
        ahead = guest_ms - time.monotonic() * 1000
        # The answer was under way for a while: the largest is nearest.
        self.ahead_ms = ahead if self.ahead_ms is None else max(self.ahead_ms, ahead)

    def now(self):
        return round(time.monotonic() * 1000 + self.ahead_ms)
