import pytest

from recorder import Recorder
from services import DOMAIN, MUC, Prosody, Usher, until
from xmpp import Focus, Loop, Participant

# Events keep their handlers to themselves, but each handler knows the file it was made in.
COUNT_HOOKS = """
local count = 0;
local function look(events)
	for _, handlers in pairs(events._event_map or {}) do
		for handler in pairs(handlers) do
			if type(handler) == "function" and debug.getinfo(handler, "S").source:find("usher_[%w_.]+lua$") then
				count = count + 1;
			end
		end
	end
end
look(prosody.events);
for _, host in pairs(prosody.hosts) do
	look(host.events);
end
return count;
"""


def settings_of(request, name, **defaults):
    """What the markers of a test say, each more than those of its file."""
    for marker in reversed(list(request.node.iter_markers(name))):
        defaults.update(marker.kwargs)
    return defaults


@pytest.fixture(scope="session")
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def usher(request, tmp_path):
    """usher, answering for booked rooms alone unless the test says otherwise."""
    usher = Usher(tmp_path, settings_of(request, "usher", policy="booked"), settings_of(request, "queue"))
    usher.start()
    yield usher
    usher.stop()


@pytest.fixture
def wire(usher):
    """What Prosody says to usher, and what it is told."""
    recorder = Recorder(usher)
    yield recorder
    recorder.close()


@pytest.fixture
def prosody(request, tmp_path, wire):
    prosody = Prosody(tmp_path, wire.url, settings_of(request, "prosody"))
    prosody.start()
    yield prosody
    errors = prosody.errors()
    # Nothing is asked of Prosody's way to shut down, which takes seconds while clients are just leaving.
    prosody.kill()
    assert errors == []


@pytest.fixture
def focus(loop, prosody):
    focus = Focus(loop, prosody)
    yield focus
    focus.disconnect()


@pytest.fixture
def people(loop, prosody):
    """Makes participants: people(), or people(user={"email": "…"}, group="…", tenant="…")."""
    made = []

    def make(**identity):
        made.append(Participant(loop, prosody, **identity))
        return made[-1]

    yield make
    for participant in made:
        participant.disconnect()


@pytest.fixture
def console(people, wire):
    """A way to look into Prosody."""
    participant = people()

    class Console:
        lua = staticmethod(participant.lua)
        wait_until = staticmethod(until)

        @staticmethod
        def room_exists(address):
            return participant.lua(f"return prosody.hosts['{MUC}'].modules.muc.get_room_from_jid('{address}') ~= nil")

        @staticmethod
        def shim(action, module="usher_reservations"):
            participant.lua(f"assert(require 'core.modulemanager'.{action}('{DOMAIN}', '{module}'))")

        @staticmethod
        def hooks():
            """Handlers of the shim that any event in Prosody still has."""
            return participant.lua(COUNT_HOOKS)

        @staticmethod
        def pending():
            """Requests to usher that are not answered yet."""
            return wire.pending

    return Console


@pytest.fixture
def room():
    return f"room1@{MUC}"
