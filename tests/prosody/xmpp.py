"""XMPP clients: a participant and a simulated focus. Each call blocks until its response or fails."""

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
    """Runs slixmpp in its own thread so that tests can be synchronous."""

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


class StanzaError(Exception):
    """A received error stanza."""

    def __init__(self, xml):
        error = next(child for child in xml if child.tag.endswith("}error"))
        self.type = error.get("type")
        self.condition = next(c.tag.split("}")[1] for c in error if c.tag.startswith("{" + STANZA_NS) and not c.tag.endswith("}text"))
        self.text = error.findtext(f"{{{STANZA_NS}}}text")
        reservation = error.find(f"{{{FOCUS_NS}}}reservation-error")
        self.code = None if reservation is None else reservation.get("error-code")
        super().__init__(f"{self.type} {self.condition} {self.code}: {self.text}")


class Stanza:
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
    def destroy_reason(self):
        """The reason in a notification that the room was destroyed; None for other stanzas."""
        x = self.child("x", USER_NS)
        destroy = None if x is None else x.find(f"{{{USER_NS}}}destroy")
        if self.type != "unavailable" or destroy is None:
            return None
        return destroy.findtext(f"{{{USER_NS}}}reason") or ""


class Entity:
    """Common base of participants and the focus: sends stanzas and records those received."""

    def __init__(self, loop):
        self.loop, self.stanzas, self.changed = loop, [], threading.Condition()
        self.connected, self.closing = threading.Event(), False

    def connect(self, make, port):
        async def start():
            self.stream = make()
            self.stream.add_event_handler("session_start", lambda _: self.connected.set())
            self.stream.add_filter("in", self.receive)
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
            # slixmpp never cancels this task, which causes a warning of the garbage collector.
            self.stream._run_out_filters.cancel()

        if not self.closing:
            self.closing = True
            self.loop.run(stop())

    def receive(self, element):
        xml = getattr(element, "xml", None)
        if not self.connected.is_set() or xml is None or not xml.tag.endswith(("}iq", "}message", "}presence")):
            return element
        stanza = Stanza(ET.fromstring(ET.tostring(xml)))
        with self.changed:
            self.stanzas.append(stanza)
            self.changed.notify_all()
        self.handle(stanza)
        return None

    def handle(self, stanza):
        """Overridden by the focus."""

    def send(self, text):
        self.loop.loop.call_soon_threadsafe(self.stream.send_raw, text)

    def wait(self, condition, timeout=TIMEOUT, description="the stanza"):
        with self.changed:
            found = self.changed.wait_for(lambda: next((h for h in self.stanzas if condition(h)), None), timeout)
        assert found, f"{description} was not received within {timeout} s; received: {[ET.tostring(h.xml).decode() for h in self.stanzas[-5:]]}"
        return found

    def iq(self, payload, to=DOMAIN, timeout=TIMEOUT):
        identifier = f"t{next(ids)}"
        self.send(f"<iq type='set' id='{identifier}' to={quoteattr(to)}>{payload}</iq>")
        response = self.wait(lambda h: h.name == "iq" and h.id == identifier, timeout, f"a response to {payload}")
        if response.type == "error":
            raise StanzaError(response.xml)
        return response

    def join(self, address, nick, password=None, timeout=TIMEOUT, wait=True, sender=None):
        secret = "" if password is None else f"<password>{escape(password)}</password>"
        since = len(self.stanzas)
        origin = "" if sender is None else f" from={quoteattr(sender)}"
        to = f"{address}/{nick}"
        self.send(f"<presence{origin} to={quoteattr(to)}><x xmlns='{MUC_NS}'>{secret}</x></presence>")

        def is_response(h):
            matches = h in self.stanzas[since:] and h.name == "presence" and h.sender in (to, address)
            return matches and (h.type == "error" or h.type is None and "110" in h.statuses())

        if not wait:
            return None
        response = self.wait(is_response, timeout, f"a response to joining {address}")
        if response.type == "error":
            raise StanzaError(response.xml)
        return response

    def leave(self, address, nick, sender=None):
        origin = "" if sender is None else f" from={quoteattr(sender)}"
        self.send(f"<presence{origin} type='unavailable' to={quoteattr(address + '/' + nick)}/>")

    def wait_end(self, address, timeout=TIMEOUT):
        """Waits until the room is destroyed. Returns the time and the reason."""
        def is_end(h):
            return h.name == "presence" and h.sender.startswith(address) and h.destroy_reason is not None

        end = self.wait(is_end, timeout, f"the end of {address}")
        return end.at, end.destroy_reason

    def was_removed_from(self, address):
        return any(h.sender.startswith(address) and h.destroy_reason is not None for h in self.stanzas)


class Participant(Entity):
    """An anonymous XMPP client. An identity stands for the claims of a verified token."""

    def __init__(self, loop, prosody, domain=DOMAIN, **identity):
        super().__init__(loop)
        self.connect(lambda: self.make(domain), prosody.port)
        if identity:
            self.iq(f"<identity xmlns='urn:usher:test'>{escape(json.dumps(identity))}</identity>")

    @staticmethod
    def make(domain):
        stream = slixmpp.ClientXMPP(domain, "", sasl_mech="ANONYMOUS")
        return stream

    @property
    def jid(self):
        return self.stream.boundjid.bare

    def request(self, address, timeout=TIMEOUT):
        """Sends a conference request to the focus. Returns whether the conference is ready."""
        payload = f"<conference xmlns='{FOCUS_NS}' room={quoteattr(address)} machine-uid='m'/>"
        answer = self.iq(payload, f"focus.{DOMAIN}", timeout)
        return answer.child("conference", FOCUS_NS).get("ready") == "true"

    def start(self, address, nick="participant", password=None):
        """Sends the conference request and joins the room, as a Jitsi client does."""
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
    """Behaves like jicofo towards Prosody: joins the room first and answers the request when the room exists."""

    jid = f"focus@focus.{DOMAIN}/one"

    def __init__(self, loop, prosody):
        super().__init__(loop)
        self.requests, self.pending = [], {}
        self.connect(lambda: ComponentXMPP(f"focus.{DOMAIN}", "secret", "127.0.0.1", prosody.component_port), None)

    def room_jid(self, address):
        node, host = address.lower().split("@")
        if host == MUC or not host.startswith("conference."):
            return f"{node}@{host}"
        tenant = host.removeprefix("conference.").removesuffix(f".{DOMAIN}")
        return f"[{tenant}]{node}@{MUC}"

    def handle(self, stanza):
        conference = stanza.child("conference", FOCUS_NS)
        if stanza.name == "iq" and stanza.type == "set" and conference is not None:
            address = conference.get("room")
            self.requests.append(address)
            if self.is_redirected(stanza):
                self.answer(stanza.sender, stanza.id, address, False)
                return
            self.pending.setdefault(self.room_jid(address), []).append((stanza.sender, stanza.id, address))
            self.send_join(self.room_jid(address))
        elif stanza.name == "presence" and (stanza.type == "error" or "110" in stanza.statuses()):
            for sender, identifier, address in self.pending.pop(stanza.sender.split("/")[0], []):
                self.answer(sender, identifier, address, stanza.type is None)

    def is_redirected(self, stanza):
        """With enable-live-room, jicofo redirects a visitor to the queue and creates no room."""
        return stanza.child("conference", FOCUS_NS).get("room") in self.redirected

    redirected = ()

    def answer(self, to, identifier, address, ready):
        payload = f"<conference xmlns='{FOCUS_NS}' room={quoteattr(address)} ready='{str(ready).lower()}'/>"
        self.send(f"<iq type='result' from='focus.{DOMAIN}' to={quoteattr(to)} id={quoteattr(identifier)}>{payload}</iq>")

    def send_join(self, address):
        self.join(address, "focus", sender=self.jid, wait=False)

    def create(self, address):
        """As after a conference request over HTTP, of which Prosody sees this join only."""
        return self.join(address, "focus", sender=self.jid)

    def leave_room(self, address):
        self.leave(address, "focus", sender=self.jid)
