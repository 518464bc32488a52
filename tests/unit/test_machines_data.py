"""What a guest is made of, as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudlab.errors import UsageError
from cloudlab.machines import hotplug, qemu
from cloudlab.machines.result import Result
from cloudlab.machines.spec import Identity, Spec, check_name

SPEC = Spec(Path("/image/vmlinux"), Path("/image/initrd"), "console=ttyS0 quiet norandmaps")
PLACES = qemu.Places(console_log="/lab/n1.log", network="/lab/n1.net0", mac="52:54:00:00:00:01", ram="/lab/ram")


def option(words: list[str], name: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == name]


def test_the_command_line_says_what_the_spec_says() -> None:
    words = qemu.arguments(replace(SPEC, memory=512 << 20, cpus=2), PLACES)
    assert option(words, "-m") == ["512M,slots=4,maxmem=2048M"]
    assert option(words, "-smp") == ["2,maxcpus=4"]
    assert option(words, "-kernel") == ["/image/vmlinux"]
    assert option(words, "-append") == ["console=ttyS0 quiet norandmaps"]
    assert "-incoming" not in words


def test_a_copy_keeps_its_changes_to_itself_and_a_template_writes_them() -> None:
    (own,) = [word for word in qemu.arguments(SPEC, PLACES) if "memory-backend-file" in word]
    (shared,) = [word for word in qemu.arguments(SPEC, replace(PLACES, shared=True)) if "memory-backend-file" in word]
    assert own.endswith("share=off")
    assert shared.endswith("share=on")


def test_a_comma_in_a_path_is_doubled() -> None:
    words = qemu.arguments(SPEC, replace(PLACES, network="/a,b/net", ram="/a,b/ram", console_log="/a,b/log"))
    text = " ".join(words)
    assert "addr.path=/a,,b/net" in text
    assert "mem-path=/a,,b/ram" in text
    assert "logfile=/a,,b/log" in text


def test_a_screen_and_randomised_addresses_change_the_kernels_parameters() -> None:
    assert replace(SPEC, aslr=True).kernel_parameters == "console=ttyS0 quiet"
    assert replace(SPEC, screen=True).kernel_parameters == "console=tty0 console=ttyS0 norandmaps"
    assert "VGA,id=screen" in " ".join(qemu.arguments(replace(SPEC, screen=True), PLACES))


def test_a_command_line_is_printed_one_option_a_line_and_can_be_pasted() -> None:
    assert qemu.printable(["/usr/bin/qemu", "-m", "64M", "-nodefaults", "-append", "a b"]) == (
        "/usr/bin/qemu \\\n  -m 64M \\\n  -nodefaults \\\n  -append 'a b'"
    )


@pytest.mark.parametrize(("field", "value"), [("memory", 1 << 20), ("memory", 1 << 50), ("cpus", 0), ("cpus", 99)])
def test_impossible_hardware_is_explained(field: str, value: int) -> None:
    with pytest.raises(UsageError, match="Allowed"):
        replace(SPEC, **{field: value})


@pytest.mark.parametrize(
    ("number", "mac", "address"),
    [
        (2, "52:54:00:00:00:02", "10.0.0.2"),
        (300, "52:54:00:00:01:2c", "10.0.1.44"),
        (65534, "52:54:00:00:ff:fe", "10.0.255.254"),
    ],
)
def test_a_number_predicts_the_addresses(number: int, mac: str, address: str) -> None:
    identity = Identity("n", number)
    assert (identity.mac, identity.address) == (mac, address)


@pytest.mark.parametrize("name", ["n1", "web-server", "a", "x" * 32])
def test_host_names_are_names(name: str) -> None:
    assert check_name(name) == name


def test_devices_take_the_first_free_slot_and_name() -> None:
    devices = {
        "disk1": hotplug.Device("disk1", "disk", (), slot=1),
        "disk3": hotplug.Device("disk3", "disk", (), slot=3),
    }
    assert hotplug.free_slot(devices) == 2
    assert hotplug.next_id("disk", devices) == "disk2"
    full = {f"disk{n}": hotplug.Device(f"disk{n}", "disk", (), slot=n) for n in range(1, 16)}
    with pytest.raises(UsageError, match="All 15 slots are taken"):
        hotplug.free_slot(full)


def test_a_plugged_device_can_be_given_at_the_start_too() -> None:
    card = hotplug.nic("nic1", 2, Path("/lab"), Identity("n7", 7))
    words = card.arguments()
    assert words[0::2] == ("-netdev", "-device")
    assert '"mac": "52:54:01:00:00:07"' in words[3]
    assert '"addr": "0x2"' in words[3]


def test_the_next_cpu_goes_into_the_first_empty_socket() -> None:
    slots = [
        {"props": {"core-id": 0, "socket-id": 1}, "type": "cpu"},
        {"props": {"core-id": 0, "socket-id": 0}, "type": "cpu", "qom-path": "/machine/x"},
        {"props": {"core-id": 0, "socket-id": 2}, "type": "cpu"},
    ]
    (command,) = hotplug.cpu(slots, "cpu1").commands
    assert command == ("device_add", {"driver": "cpu", "id": "cpu1", "core-id": 0, "socket-id": 1})
    with pytest.raises(UsageError, match="All 1 CPU sockets are taken"):
        hotplug.cpu(slots[1:2], "cpu1")


def test_a_result_tells_signals_from_exit_statuses() -> None:
    assert Result("x", 137, b"", b"").signal == 9
    assert Result("x", 1, b"", b"").signal is None
    assert Result("x", 255, b"", b"").signal is None
    assert Result("x", 0, "é".encode() + b"\xff", b"").stdout == "é\ufffd"
