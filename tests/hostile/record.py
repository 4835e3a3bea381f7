"""The log of an act: events in the order of their arrival."""

import json

from wire import now


class Record:
    def __init__(self):
        self.events = []

    def add(self, event, /, **fields):
        self.events.append({"e": event, "t": now(), **fields})

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            for event in self.events:
                file.write(json.dumps(event) + "\n")

    @staticmethod
    def load(path):
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
