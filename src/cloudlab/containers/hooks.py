"""Hooks: programs that a bundle has called at certain points of a container's life (OCI runtime specification, config.md)."""

from __future__ import annotations

import json
import math

from cloudlab.containers.bundle import Bundle, Hook
from cloudlab.containers.calls import Answer, Call, Calls, Length, Room, Words
from cloudlab.containers.setting import P_PID, SI_STATUS, SIGINFO, WEXITED, Setting


def add_hooks(calls: Calls, bundle: Bundle, setting: Setting, kind: str, init: Call | None) -> None:
    """Run the programs of one kind of hook, each with the container's state on its standard input."""
    status = {"startContainer": "created", "poststart": "running", "poststop": "stopped"}.get(kind, "creating")
    state = {"ociVersion": "1.1.0", "id": setting.name, "status": status, "bundle": setting.directory}
    text = json.dumps(state | {"annotations": dict(bundle.annotations)})
    given = text if init is None else Words('{"pid": %d, ' + text[1:].replace("%", "%%"), init)
    for hook in bundle.hooks.get(kind, ()):
        ended = _add_hook(calls, hook, given, "/" if kind == "startContainer" else setting.directory)
        if kind not in ("poststart", "poststop"):  # these fail alone; of others the container's creation does
            calls.must_be(Answer(ended, SI_STATUS), 0, f"hook {hook.path}")


def _add_hook(calls: Calls, hook: Hook, state: str | Words, directory: str) -> Call:
    memory = calls.call("memfd_create", "state", 0)
    calls.call("write", memory, state, Length())
    child, inside = calls.child()
    inside.call("lseek", memory, 0, 0)
    inside.call("dup2", memory, 0)
    inside.call("chdir", directory)
    if hook.timeout_s:
        inside.call("alarm", math.ceil(hook.timeout_s))  # its signal ends the hook: alarms outlive execve(2)
    inside.call("execve", hook.path, list(hook.args) or [hook.path], list(hook.env))
    ended = calls.call("waitid", P_PID, child, Room(SIGINFO, whole=True), WEXITED, 0)
    calls.call("close", memory)
    return ended
