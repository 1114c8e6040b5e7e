# SPDX-License-Identifier: BSD-2-Clause
"""The memory screen as `mem` prints it once, read by its columns' titles."""

import re


class MemScreen:
    """vms: name to {title: number} (Y and N as True and False); `text` is what was printed."""

    def __init__(self, text):
        self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
        self.vms = {}
        titles = None
        for line in self.text.splitlines():
            words = line.split()
            if words[:1] == ["NAME"]:
                titles = words[1:]
            elif titles and len(words) == len(titles) + 1:
                row = self.vms.setdefault(words[0], {})
                row.update({t: self._number(w) for t, w in zip(titles, words[1:])})

    @staticmethod
    def _number(word):
        if word in ("Y", "N"):
            return word == "Y"
        return None if word == "-" else float(word)

    def __getitem__(self, name):
        assert name in self.vms, self.text
        return self.vms[name]

    def sum(self, names, title):
        return sum(self[n][title] for n in names)

    def host(self, pattern):
        """The number in a header line."""
        found = re.search(pattern, self.text)
        assert found, self.text
        return float(found.group(1))


def mem(machine):
    return MemScreen(machine.command("mem once"))
