"""XMPP from outside: a participant, and a stand-in for the focus. Every call blocks until it is answered, or fails."""

import asyncio
import itertools
import json
import threading
import time
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import slixmpp
from slixmpp.componentxmpp import ComponentXMPP

from services import DOMAIN, MUC

TIMEOUT = 10
MUC_NS = "http://jabber.org/protocol/muc"
USER_NS = "http://jabber.org/protocol/muc#user"
FOCUS_NS = "http://jitsi.org/protocol/focus"
STANZA_NS = "urn:ietf:params:xml:ns:xmpp-stanzas"
ids = itertools.count(1)


class Loop:
    """slixmpp lives in a thread of its own, so that tests read from top to bottom."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT)

    def close(self):
        async def cancel_rest():
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.run(cancel_rest())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT)
        self.loop.close()


class Refused(Exception):
    """An error stanza, taken apart."""

    def __init__(self, xml):
        error = next(child for child in xml if child.tag.endswith("}error"))
        self.type = error.get("type")
        self.condition = next(c.tag.split("}")[1] for c in error if c.tag.startswith("{" + STANZA_NS) and not c.tag.endswith("}text"))
        self.text = error.findtext(f"{{{STANZA_NS}}}text")
        reservation = error.find(f"{{{FOCUS_NS}}}reservation-error")
        self.code = None if reservation is None else reservation.get("error-code")
        super().__init__(f"{self.type} {self.condition} {self.code}: {self.text}")


class Heard:
    def __init__(self, xml):
        self.xml, self.at = xml, time.time()
        self.name = xml.tag.split("}")[1]
        self.type, self.id, self.sender = xml.get("type"), xml.get("id"), xml.get("from") or ""

    def child(self, name, xmlns):
        return self.xml.find(f"{{{xmlns}}}{name}")

    def statuses(self):
        x = self.child("x", USER_NS)
        return [] if x is None else [status.get("code") for status in x.findall(f"{{{USER_NS}}}status")]

    @property
    def body(self):
        return next((child.text for child in self.xml if child.tag.endswith("}body")), None)

    @property
    def json_message(self):
        message = self.child("json-message", "http://jitsi.org/jitmeet")
        return None if message is None else json.loads(message.text)

    @property
    def destroyed_because(self):
        """The reason given when the room was destroyed; None if this says nothing of the kind."""
        x = self.child("x", USER_NS)
        destroy = None if x is None else x.find(f"{{{USER_NS}}}destroy")
        if self.type != "unavailable" or destroy is None:
            return None
        return destroy.findtext(f"{{{USER_NS}}}reason") or ""


class Entity:
    """What participants and the focus have in common: they send, and remember all they hear."""

    def __init__(self, loop):
        self.loop, self.heard, self.changed = loop, [], threading.Condition()
        self.connected, self.closing = threading.Event(), False

    def connect(self, make, port):
        async def start():
            self.stream = make()
            self.stream.add_event_handler("session_start", lambda _: self.connected.set())
            self.stream.add_filter("in", self.take)
            if isinstance(self.stream, ComponentXMPP):
                self.stream.connect()
            else:
                self.stream.connect(("127.0.0.1", port), disable_starttls=True, force_starttls=False)

        self.loop.run(start())
        assert self.connected.wait(TIMEOUT), "no XMPP session"
        return self

    def disconnect(self):
        async def stop():
            self.stream.abort()
            # slixmpp leaves this task to the garbage collector, which complains.
            self.stream._run_out_filters.cancel()

        if not self.closing:
            self.closing = True
            self.loop.run(stop())

    def take(self, stanza):
        xml = getattr(stanza, "xml", None)
        if not self.connected.is_set() or xml is None or not xml.tag.endswith(("}iq", "}message", "}presence")):
            return stanza
        heard = Heard(ET.fromstring(ET.tostring(xml)))
        with self.changed:
            self.heard.append(heard)
            self.changed.notify_all()
        self.react(heard)
        return None

    def react(self, heard):
        """Nothing; the focus does more."""

    def send(self, text):
        self.loop.loop.call_soon_threadsafe(self.stream.send_raw, text)

    def wait(self, condition, timeout=TIMEOUT, what="what was waited for"):
        with self.changed:
            found = self.changed.wait_for(lambda: next((h for h in self.heard if condition(h)), None), timeout)
        assert found, f"{what} did not come within {timeout} s; heard: {[ET.tostring(h.xml).decode() for h in self.heard[-5:]]}"
        return found

    def iq(self, payload, to=DOMAIN, timeout=TIMEOUT):
        identifier = f"t{next(ids)}"
        self.send(f"<iq type='set' id='{identifier}' to={quoteattr(to)}>{payload}</iq>")
        answer = self.wait(lambda h: h.name == "iq" and h.id == identifier, timeout, f"an answer to {payload}")
        if answer.type == "error":
            raise Refused(answer.xml)
        return answer

    def join(self, address, nick, password=None, timeout=TIMEOUT, wait=True, sender=None):
        secret = "" if password is None else f"<password>{escape(password)}</password>"
        since = len(self.heard)
        origin = "" if sender is None else f" from={quoteattr(sender)}"
        to = f"{address}/{nick}"
        self.send(f"<presence{origin} to={quoteattr(to)}><x xmlns='{MUC_NS}'>{secret}</x></presence>")

        def is_answer(h):
            mine = h in self.heard[since:] and h.name == "presence" and h.sender in (to, address)
            return mine and (h.type == "error" or h.type is None and "110" in h.statuses())

        if not wait:
            return None
        answer = self.wait(is_answer, timeout, f"an answer to joining {address}")
        if answer.type == "error":
            raise Refused(answer.xml)
        return answer

    def leave(self, address, nick, sender=None):
        origin = "" if sender is None else f" from={quoteattr(sender)}"
        self.send(f"<presence{origin} type='unavailable' to={quoteattr(address + '/' + nick)}/>")

    def wait_end(self, address, timeout=TIMEOUT):
        """Until the room is destroyed: when, and with what reason."""
        def is_end(h):
            return h.name == "presence" and h.sender.startswith(address) and h.destroyed_because is not None

        end = self.wait(is_end, timeout, f"the end of {address}")
        return end.at, end.destroyed_because

    def has_been_thrown_out_of(self, address):
        return any(h.sender.startswith(address) and h.destroyed_because is not None for h in self.heard)


class Participant(Entity):
    """An anonymous XMPP client; with an identity, as if it had presented a verified token."""

    def __init__(self, loop, prosody, **identity):
        super().__init__(loop)
        self.connect(lambda: self.make(), prosody.port)
        if identity:
            self.iq(f"<identity xmlns='urn:usher:test'>{escape(json.dumps(identity))}</identity>")

    @staticmethod
    def make():
        stream = slixmpp.ClientXMPP(DOMAIN, "", sasl_mech="ANONYMOUS")
        return stream

    @property
    def jid(self):
        return self.stream.boundjid.bare

    def request(self, address, timeout=TIMEOUT):
        """Asks the focus for a conference; whether it says that the conference is ready."""
        payload = f"<conference xmlns='{FOCUS_NS}' room={quoteattr(address)} machine-uid='m'/>"
        answer = self.iq(payload, f"focus.{DOMAIN}", timeout)
        return answer.child("conference", FOCUS_NS).get("ready") == "true"

    def start(self, address, nick="someone", password=None):
        """What a Jitsi client does: ask the focus, then join."""
        assert self.request(address)
        self.join(address, nick, password)
        return self

    def lua(self, text):
        """Runs Lua inside Prosody."""
        answer = self.iq(f"<lua xmlns='urn:usher:test'>{escape(text)}</lua>").child("answer", "urn:usher:test")
        answer = json.loads(answer.text)
        assert answer["ok"], answer
        return answer.get("result")


class Focus(Entity):
    """Does what jicofo does, as far as Prosody can see: joins first, and answers when the room is there."""

    jid = f"focus@focus.{DOMAIN}/one"

    def __init__(self, loop, prosody):
        super().__init__(loop)
        self.requests, self.pending = [], {}
        self.connect(lambda: ComponentXMPP(f"focus.{DOMAIN}", "secret", "127.0.0.1", prosody.component_port), None)

    def real(self, address):
        node, host = address.lower().split("@")
        if host == MUC or not host.startswith("conference."):
            return f"{node}@{host}"
        tenant = host.removeprefix("conference.").removesuffix(f".{DOMAIN}")
        return f"[{tenant}]{node}@{MUC}"

    def react(self, heard):
        conference = heard.child("conference", FOCUS_NS)
        if heard.name == "iq" and heard.type == "set" and conference is not None:
            address = conference.get("room")
            self.requests.append(address)
            if self.is_parked(heard):
                self.answer(heard.sender, heard.id, address, False)
                return
            self.pending.setdefault(self.real(address), []).append((heard.sender, heard.id, address))
            self.enter(self.real(address))
        elif heard.name == "presence" and (heard.type == "error" or "110" in heard.statuses()):
            for sender, identifier, address in self.pending.pop(heard.sender.split("/")[0], []):
                self.answer(sender, identifier, address, heard.type is None)

    def is_parked(self, heard):
        """With enable-live-room, jicofo sends a visitor to the queue without making a room."""
        return heard.child("conference", FOCUS_NS).get("room") in self.parked

    parked = ()

    def answer(self, to, identifier, address, ready):
        payload = f"<conference xmlns='{FOCUS_NS}' room={quoteattr(address)} ready='{str(ready).lower()}'/>"
        self.send(f"<iq type='result' from='focus.{DOMAIN}' to={quoteattr(to)} id={quoteattr(identifier)}>{payload}</iq>")

    def enter(self, address):
        self.join(address, "focus", sender=self.jid, wait=False)

    def create(self, address):
        """As on a conference request over HTTP: Prosody sees no more than this join."""
        return self.join(address, "focus", sender=self.jid)

    def go(self, address):
        self.leave(address, "focus", sender=self.jid)
