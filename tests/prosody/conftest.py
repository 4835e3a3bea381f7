import pytest

from recorder import Recorder
from services import DOMAIN, MUC, Prosody, Usher, until
from xmpp import Focus, Loop, Participant

# Prosody does not list the handlers of an event by module, but each function knows its source file.
COUNT_HOOKS = """
local count = 0;
local function count_handlers(events)
	for _, handlers in pairs(events._event_map or {}) do
		for handler in pairs(handlers) do
			if type(handler) == "function" and debug.getinfo(handler, "S").source:find("usher_[%w_.]+lua$") then
				count = count + 1;
			end
		end
	end
end
count_handlers(prosody.events);
for _, host in pairs(prosody.hosts) do
	count_handlers(host.events);
end
return count;
"""


def settings_of(request, name, **defaults):
    """The settings of the markers of a test. They override those of its file."""
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
    """A running usher. Its policy is "booked" unless a marker changes it."""
    policy = settings_of(request, "usher", policy="booked")
    usher = Usher(tmp_path, policy, settings_of(request, "queue"), settings_of(request, "protocol"))
    usher.start()
    yield usher
    usher.stop()


@pytest.fixture
def recorder(usher):
    """Records the HTTP exchanges between Prosody and usher."""
    recorder = Recorder(usher)
    yield recorder
    recorder.close()


@pytest.fixture
def prosody(request, tmp_path, recorder):
    prosody = Prosody(tmp_path, recorder.url, settings_of(request, "prosody"))
    prosody.start()
    yield prosody
    errors = prosody.errors()
    # Killed because an orderly stop takes seconds while clients disconnect.
    prosody.kill()
    assert errors == []


@pytest.fixture
def focus(loop, prosody):
    focus = Focus(loop, prosody)
    yield focus
    focus.disconnect()


@pytest.fixture
def new_participant(loop, prosody):
    """Connects participants: new_participant() or new_participant(user={"email": "…"}, group="…", tenant="…")."""
    participants = []

    def make(**identity):
        participants.append(Participant(loop, prosody, **identity))
        return participants[-1]

    yield make
    for participant in participants:
        participant.disconnect()


@pytest.fixture
def console(new_participant, recorder):
    """Access to the inside of Prosody."""
    participant = new_participant()

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
            """The number of event handlers of the shim in Prosody."""
            return participant.lua(COUNT_HOOKS)

        @staticmethod
        def pending():
            """The number of requests to usher without a response."""
            return recorder.pending

    return Console


@pytest.fixture
def room():
    return f"room1@{MUC}"
