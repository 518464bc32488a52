"""The verbs of a machine, on real guests."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloudlab import Lab, Machine, MachineError, UsageError
from cloudlab.machines import State, hotplug

pytestmark = pytest.mark.guest


# --- commands ---------------------------------------------------------------------------------------------------


def test_run_gives_output_errors_and_exit_status_apart(n1: Machine) -> None:
    result = n1.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_status) == ("out\n", "err\n", 3)
    assert not result.ok
    assert result.duration_s > 0


def test_a_list_of_words_is_not_touched_by_a_shell(n1: Machine) -> None:
    assert n1.run(["echo", "$HOME", "a  b", "*"]).stdout == "$HOME a  b *\n"


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo plain words", "plain words\n"),
        ("echo  two   spaces", "two spaces\n"),
        ("echo $((6*7))", "42\n"),
        ("echo 'a  b'", "a  b\n"),
        ("A=1 env", "A=1\n"),
        ("cd /etc && pwd", "/etc\n"),
        ("type cd", "cd is a shell builtin\n"),
        ("command -v ls", "/usr/bin/ls\n"),
        ("umask", "0022\n"),
        ("if true; then echo yes; fi", "yes\n"),
        ("echo one\necho two", "one\ntwo\n"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_text_means_what_it_means_to_a_shell(n1: Machine, command: str, output: str) -> None:
    result = n1.run(command)
    assert result.ok, result.stderr
    assert output in result.stdout
    if "env" not in command:
        assert result.stdout == output


def test_what_is_no_program_is_the_shells_to_say(n1: Machine) -> None:
    result = n1.run("no-such-program --at-all")
    assert (result.exit_status, result.stderr) == (127, "sh: 1: no-such-program: not found\n")
    assert n1.run("exit 5").exit_status == 5


def test_every_exit_status_comes_back(n1: Machine) -> None:
    script = "; ".join(f"sh -c 'exit {status}'; echo $?" for status in (0, 1, 2, 126, 127, 255))
    assert n1.succeed(script).split() == ["0", "1", "2", "126", "127", "255"]
    for status in (0, 1, 42, 255):
        assert n1.run(f"exit {status}").exit_status == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_counts_as_128_and_its_number(n1: Machine, number: signal.Signals) -> None:
    result = n1.run(f"kill -{int(number)} $$")
    assert result.exit_status == 128 + number
    assert result.signal is number


def test_a_program_that_is_not_there_is_127_as_in_a_shell(n1: Machine) -> None:
    result = n1.run(["no-such-program"])
    assert result.exit_status == 127
    assert "No such file" in result.stderr


def test_succeed_returns_the_output_or_says_what_failed(n1: Machine) -> None:
    assert n1.succeed("echo yes") == "yes\n"
    with pytest.raises(MachineError) as caught:
        n1.succeed("echo told you >&2; exit 7")
    error = caught.value
    assert (error.machine, error.exit_status, error.command) == (n1.name, 7, "echo told you >&2; exit 7")
    assert "told you" in str(error)
    assert error.log is not None
    assert error.log.exists()


def test_fail_wants_a_failure(n1: Machine) -> None:
    assert "No such file" in n1.fail("cat /nowhere")
    with pytest.raises(MachineError, match="should have failed"):
        n1.fail("true")


def test_test_says_yes_or_no(n1: Machine) -> None:
    assert n1.test("test -d /proc")
    assert not n1.test("test -d /nowhere")


def test_wait_until_succeeds_waits(n1: Machine) -> None:
    n1.run("(sleep 0.5; touch /tmp/there) >/dev/null 2>&1 &")
    n1.wait_until_succeeds("test -e /tmp/there", timeout_s=20)
    with pytest.raises(MachineError, match="did not succeed within 1 s"):
        n1.wait_until_succeeds("echo not yet >&2; false", timeout_s=1)


def test_input_directory_and_environment(n1: Machine) -> None:
    assert n1.succeed("wc -c", input=b"x" * 300_000).strip() == "300000"
    assert n1.succeed("pwd", directory="/etc") == "/etc\n"
    assert n1.succeed("echo $COLOUR", environment={"COLOUR": "green"}) == "green\n"
    assert "cannot go to /nowhere" in n1.run("true", directory="/nowhere").stderr


def test_every_byte_value_passes_both_ways(n1: Machine) -> None:
    every = bytes(range(256)) * 40
    assert n1.run("cat", input=every).stdout_bytes == every


def test_fifty_commands_at_once(n1: Machine) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        outputs = list(pool.map(lambda i: n1.succeed(f"sleep 1; echo {i}"), range(50)))
    assert outputs == [f"{i}\n" for i in range(50)]
    assert time.monotonic() - began < 40, "they ran one after the other"


def test_fifty_megabytes_of_output(n1: Machine) -> None:
    result = n1.run("head -c 50000000 /dev/zero", timeout_s=120)
    assert len(result.stdout_bytes) == 50_000_000
    assert not result.stdout_bytes.strip(b"\0")


def test_output_can_be_followed_while_it_comes(n1: Machine) -> None:
    pieces: list[bytes] = []
    n1.run("for i in 1 2 3; do echo $i; sleep 0.1; done", on_output=pieces.append)
    assert b"".join(pieces) == b"1\n2\n3\n"
    assert len(pieces) >= 2


def test_a_command_that_never_ends_is_killed_at_the_deadline(n1: Machine) -> None:
    with pytest.raises(MachineError) as caught:
        n1.run("echo begun; sleep 1000", timeout_s=1)
    assert "not done within 1 s; it was killed" in str(caught.value)
    assert "begun" in str(caught.value)
    assert n1.succeed("pgrep -c '^sleep$' || true").strip() == "0"


def test_what_a_command_leaves_in_the_background_does_not_hold_it_up(n1: Machine) -> None:
    began = time.monotonic()
    n1.succeed("sleep 30 & echo started")
    assert time.monotonic() - began < 20
    n1.succeed("pkill '^sleep$'")


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 64 << 20])
def test_files_of_any_size_come_back_as_they_went(n1: Machine, size: int) -> None:
    content = os.urandom(1 << 16) * (size // (1 << 16)) + os.urandom(size % (1 << 16))
    n1.put("/root/file", content)
    assert n1.get("/root/file") == content
    n1.succeed("rm /root/file")


def test_put_sets_the_mode_and_replaces_a_running_program(n1: Machine) -> None:
    n1.put("/root/program", "#!/bin/sh\necho one\n", mode=0o755)
    assert n1.succeed("/root/program") == "one\n"
    n1.succeed("cp /usr/bin/sleep /root/running; /root/running 5 >/dev/null 2>&1 &")
    n1.put("/root/running", "new")
    assert n1.get("/root/running") == b"new"
    assert n1.succeed("stat -c %a /root/program") == "755\n"


def test_files_of_the_kernel_can_be_read_and_written(n1: Machine) -> None:
    assert b"Linux version" in n1.get("/proc/version")
    n1.put("/proc/sys/kernel/panic", "7")
    assert n1.get("/proc/sys/kernel/panic") == b"7\n"


def test_a_file_that_is_not_there_is_an_error_with_its_name(n1: Machine) -> None:
    with pytest.raises(MachineError, match="can't read /nowhere: No such file"):
        n1.get("/nowhere")
    with pytest.raises(MachineError, match="can't write /no/where: No such file"):
        n1.put("/no/where", b"x")
    with pytest.raises(MachineError, match="Is a directory"):
        n1.get("/etc")


def test_a_full_disk_in_the_guest_is_an_error(n1: Machine) -> None:
    n1.succeed("mkdir -p /small && mount -t tmpfs -o size=1M small /small")
    with pytest.raises(MachineError, match="No space left"):
        n1.put("/small/file", b"x" * (8 << 20))
    n1.succeed("umount /small")


# --- life -------------------------------------------------------------------------------------------------------


def test_pause_and_resume(fresh: Machine) -> None:
    fresh.pause()
    assert fresh.state is State.PAUSED
    with pytest.raises(MachineError, match="is paused"):
        fresh.run("true")
    fresh.resume()
    assert fresh.succeed("echo on") == "on\n"


def test_power_off_and_start_again(fresh: Machine) -> None:
    fresh.succeed("touch /root/memory-only")
    fresh.power_off()
    assert fresh.state is State.OFF
    with pytest.raises(MachineError, match=r"is powered off: it was powered off(.|\n)*start\(\)"):
        fresh.run("true")
    fresh.start()
    assert not fresh.test("test -e /root/memory-only")


def test_a_guest_that_powers_itself_off_is_off_and_not_crashed(fresh: Machine) -> None:
    fresh.run("poweroff", timeout_s=20)
    assert fresh._running is not None
    fresh._running.child.wait(30)
    assert fresh.state is State.OFF


def test_the_shell_on_the_console_knows_chinese(fresh: Machine) -> None:
    assert fresh.console.enter("touch 云计算 && ls") == "云计算"
    assert fresh.succeed("ls; printf 云计算 | wc -m") == "云计算\n3\n"


def test_after_a_new_start_the_console_is_the_new_one(fresh: Machine) -> None:
    fresh.console.enter("echo first")
    fresh.power_off()
    fresh.start()
    assert fresh.console.enter("echo second") == "second"


def test_crash_pulls_the_plug(fresh: Machine) -> None:
    fresh.crash()
    assert fresh.state is State.CRASHED
    with pytest.raises(MachineError, match="the plug was pulled"):
        fresh.run("true")


def test_reboot_comes_back_with_the_same_identity(fresh: Machine) -> None:
    before = fresh.succeed("cat /proc/sys/kernel/random/boot_id")
    fresh.reboot()
    assert fresh.succeed("hostname").strip() == fresh.name
    assert fresh.succeed("cat /sys/class/net/eth0/address").strip() == fresh.identity.mac
    assert fresh.succeed("cat /proc/sys/kernel/random/boot_id") != before


def test_a_command_running_at_a_reboot_fails_and_says_so(fresh: Machine) -> None:
    with pytest.raises(MachineError, match="reset while it was working"):
        fresh.run("(sleep 0.5; reboot -f) & sleep 60")
    assert fresh.succeed("echo back") == "back\n"


def test_a_kernel_panic_is_told_even_before_the_driver_is_loaded_that_tells_of_it(fresh: Machine) -> None:
    fresh.succeed("modprobe -r pvpanic_pci")
    with pytest.raises(MachineError, match="kernel panicked"):
        fresh.run("echo c > /proc/sysrq-trigger")
    assert fresh.state is State.CRASHED
    fresh.start()
    assert fresh.succeed("echo back") == "back\n"


def test_a_kernel_panic_is_told_with_the_kernels_own_words(fresh: Machine) -> None:
    with pytest.raises(MachineError) as caught:
        fresh.run("echo c > /proc/sysrq-trigger")
    assert "kernel panicked" in str(caught.value)
    assert "Kernel panic - not syncing" in str(caught.value)
    assert caught.value.log is not None
    assert "Kernel panic" in caught.value.log.read_text()
    assert fresh.state is State.CRASHED


def test_a_guest_that_hangs_is_told_apart_from_a_slow_command(fresh: Machine) -> None:
    fresh.put("/root/hang", "echo 1 > /proc/sys/kernel/sysrq; kill -STOP $(pidof cloudlab-agent)")
    with pytest.raises(MachineError, match="does not answer"):
        fresh.run("sh /root/hang; sleep 100", timeout_s=1)


def test_qemu_killed_under_us(fresh: Machine) -> None:
    threading.Timer(0.5, lambda: os.kill(fresh.running.child.pid, signal.SIGKILL)).start()
    with pytest.raises(MachineError) as caught:
        fresh.run("sleep 60")
    assert fresh.name in str(caught.value)
    assert "killed by SIGKILL" in str(caught.value)
    assert fresh.state is State.CRASHED
    fresh.start()
    assert fresh.succeed("echo alive") == "alive\n"


# --- states -----------------------------------------------------------------------------------------------------


def test_restore_undoes_everything_since_save(fresh: Machine) -> None:
    fresh.succeed("echo before > /root/file; sleep 300 >/dev/null 2>&1 &")
    fresh.wait_until_succeeds("test -s /root/file")
    fresh.save("clean")
    assert fresh.succeed("echo still running") == "still running\n"
    fresh.succeed("rm -rf /etc /root/file")
    fresh.restore("clean")
    assert fresh.succeed("cat /root/file") == "before\n"
    assert fresh.succeed("pgrep -c '^sleep$'") == "1\n"
    assert fresh.saved_states == ["clean"]


def test_restore_of_an_unknown_state_loses_nothing(fresh: Machine) -> None:
    fresh.save("one")
    with pytest.raises(UsageError, match=r"no saved state 'two'.*\nAllowed: one"):
        fresh.restore("two")
    assert fresh.succeed("echo fine") == "fine\n"


def test_a_crashed_machine_can_be_restored(fresh: Machine) -> None:
    fresh.succeed("echo kept > /root/file")
    fresh.save("clean")
    fresh.crash()
    fresh.restore("clean")
    assert fresh.succeed("cat /root/file") == "kept\n"


def test_a_clone_has_the_files_and_an_identity_of_its_own(lab: Lab, fresh: Machine) -> None:
    fresh.succeed("echo inherited > /root/file")
    twin = fresh.clone("twin")
    try:
        assert twin.succeed("cat /root/file") == "inherited\n"
        facts = "hostname; cat /sys/class/net/eth0/address /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1"
        ours, theirs = fresh.succeed(facts).split("\n"), twin.succeed(facts).split("\n")
        assert all(a != b for a, b in zip(ours[:4], theirs[:4], strict=True))
        assert twin.succeed("hostname").strip() == "twin"
        twin.succeed("rm /root/file")
        assert fresh.test("test -e /root/file")
    finally:
        twin.close()


def test_copies_of_one_saved_state_share_no_secrets(lab: Lab) -> None:
    facts = "hostname; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid /etc/machine-id /sys/class/net/eth0/address"
    machines = [lab.machine(f"copy{i}") for i in range(61, 65)]
    seen = [machine.succeed(facts).splitlines() for machine in machines]
    for column in zip(*seen, strict=True):
        assert len(set(column)) == len(machines), column
    clocks = [float(machine.succeed("date +%s.%N")) for machine in machines]
    assert all(abs(clock - time.time()) < 20 for clock in clocks)
    for machine in machines:
        machine.close()


def test_a_cold_machine_boots(lab: Lab) -> None:
    machine = lab.machine("cold", cold=True)
    assert "state loaded" not in machine.boot_timing
    assert machine.succeed("hostname") == "cold\n"
    machine.close()


def test_memory_cpus_and_randomised_addresses_are_what_was_asked_for(lab: Lab) -> None:
    machine = lab.machine("big", memory="512M", cpus=2, aslr=True)
    assert machine.succeed("nproc") == "2\n"
    assert 400_000 < int(machine.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) < 520_000
    stacks = {machine.succeed("grep stack /proc/self/maps") for _ in range(4)}
    assert len(stacks) == 4
    machine.close()


# --- hardware ---------------------------------------------------------------------------------------------------


def test_an_empty_disk_is_plugged_used_and_unplugged(fresh: Machine) -> None:
    disk = fresh.plug(disk="64M")
    assert disk.guest_name == "/dev/vda"
    fresh.succeed(
        f"mkfs.ext4 -q {disk.guest_name} && mount {disk.guest_name} /mnt && echo kept > /mnt/file && umount /mnt"
    )
    fresh.unplug(disk)
    assert not fresh.test("test -b /dev/vda")
    assert fresh.devices == {}


def test_a_disk_outlives_a_crash_and_a_restore_brings_it_back_too(fresh: Machine) -> None:
    disk = fresh.plug(disk="64M")
    fresh.succeed(f"mkfs.ext4 -q {disk.guest_name} && mount {disk.guest_name} /mnt && echo one > /mnt/file && sync")
    fresh.save("one")
    fresh.succeed("echo two > /mnt/file && sync")
    fresh.crash()
    fresh.start()
    assert fresh.succeed(f"mount {disk.guest_name} /mnt && cat /mnt/file") == "two\n"
    fresh.restore("one")
    assert fresh.succeed("cat /mnt/file") == "one\n"


def test_a_disk_file_is_used_through_an_overlay(fresh: Machine, tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "一个 disk.raw"
    file.write_bytes(b"original".ljust(4 << 20, b"\0"))
    disk = fresh.plug(disk=file)
    assert fresh.succeed(f"head -c 8 {disk.guest_name}") == "original"
    fresh.succeed(f"printf changed. | dd of={disk.guest_name} conv=notrunc,fsync 2>/dev/null")
    fresh.unplug(disk)
    assert file.read_bytes().startswith(b"original")
    disk = fresh.plug(disk=file, writable=True)
    fresh.succeed(f"printf changed. | dd of={disk.guest_name} conv=notrunc,fsync 2>/dev/null")
    fresh.unplug(disk)
    assert file.read_bytes().startswith(b"changed.")


def test_a_device_that_qemu_refuses_leaves_nothing(fresh: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as taken:
        taken.setattr(hotplug, "_place", lambda slot: {"bus": "pcie.0", "addr": "0x2"})
        for options in ({"disk": "64M"}, {"nic": True}):
            with pytest.raises(MachineError, match="not support hotplugging"):
                fresh.plug(**options)
    assert fresh.devices == {}
    assert fresh.plug(disk="64M").id == "disk1"
    assert fresh.plug(nic=True).id == "nic1"


def test_a_network_card_is_plugged(fresh: Machine) -> None:
    card = fresh.plug(nic=True)
    assert fresh.succeed(f"cat /sys/class/net/{card.guest_name}/address").startswith("52:54:01")
    fresh.unplug(card)
    assert not fresh.test("test -e /sys/class/net/eth1")


def test_memory_is_plugged_and_unplugged(fresh: Machine) -> None:
    before = int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    module = fresh.plug(memory="128M")
    assert int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) - before >= 128 * 1024
    fresh.unplug(module)
    assert int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) == before


def test_a_cpu_is_plugged_and_unplugged(fresh: Machine) -> None:
    fresh.plug(cpu=True)
    assert fresh.succeed("nproc") == "2\n"
    fresh.unplug("cpu1")
    assert fresh.succeed("nproc") == "1\n"
    with pytest.raises(UsageError, match="QEMU would crash"):
        fresh.plug(memory="128M")


def test_a_state_with_plugged_devices_is_restored_with_them(fresh: Machine) -> None:
    fresh.plug(memory="128M")
    fresh.plug(nic=True)
    fresh.save("large")
    fresh.restore("large")
    assert fresh.test("test -e /sys/class/net/eth1")
    assert sorted(fresh.devices) == ["memory1", "nic1"]


def test_the_balloon_takes_memory_and_gives_it_back(fresh: Machine) -> None:
    total = int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert fresh.set_balloon("256M") == 256 << 20
    assert int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) < total - 100_000
    fresh.set_balloon("384M")
    assert int(fresh.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo")) == total


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "takes one device"),
        ({"disk": "1G", "nic": True}, "takes one device"),
        ({"disk": "/nowhere.qcow2"}, "no disk file"),
        ({"memory": "100M"}, "multiples of 128M"),
        ({"disk": "much"}, "is not a size"),
    ],
)
def test_plugging_nonsense_is_explained_and_changes_nothing(n1: Machine, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        n1.plug(**options)  # type: ignore[arg-type]
    assert n1.devices == {}
    assert n1.succeed("echo fine") == "fine\n"


# --- commands that run on ---------------------------------------------------------------------------------------


def test_a_spawned_command_is_talked_to_while_it_runs(n1: Machine) -> None:
    heard: list[bytes] = []
    cat = n1.spawn(["cat"], on_output=heard.append)
    cat.write("one\n")
    assert cat.wait_until_printed(lambda printed: b"one" in printed, 10)
    cat.write(b"two\n")
    assert cat.wait_until_printed(lambda printed: b"two" in printed, 10)
    assert cat.running
    cat.end_input()
    result = cat.wait()
    assert (result.exit_status, result.stdout, b"".join(heard)) == (0, "one\ntwo\n", b"one\ntwo\n")
    assert not cat.running


def test_waiting_for_what_is_never_printed_ends_with_the_command_or_the_time(n1: Machine) -> None:
    short = n1.spawn("echo over")
    assert not short.wait_until_printed(lambda printed: b"more" in printed, 10)
    long = n1.spawn("sleep 1000")
    assert not long.wait_until_printed(bool, 0.2)
    long.kill()
    assert long.wait().exit_status == 137


def test_a_spawned_command_is_signalled_and_its_guest_may_go(fresh: Machine) -> None:
    polite = fresh.spawn("trap 'echo asked; exit 4' TERM; echo ready; while :; do sleep 0.1; done")
    assert polite.wait_until_printed(lambda printed: b"ready" in printed, 10)
    polite.signal(signal.SIGTERM)
    assert (polite.wait().exit_status, polite.stdout) == (4, "ready\nasked\n")
    lost = fresh.spawn("sleep 1000")
    fresh.crash()
    with pytest.raises(MachineError, match="the plug was pulled"):
        lost.wait()
    lost.kill()


# --- to look at -------------------------------------------------------------------------------------------------


def test_the_console_is_a_shell_on_the_serial_line(n1: Machine) -> None:
    assert n1.console.enter("echo $((6*7)); tty") == "42\n/dev/ttyS0"
    n1.console.sendline("hostname")
    n1.console.expect(rf"\r\n{n1.name}\r\n")
    assert "Linux" in n1.console.enter("uname -a")


def test_a_line_typed_while_the_shell_is_still_busy_is_answered_all_the_same(n1: Machine) -> None:
    for round_ in range(40):
        n1.console.sendline(f"sleep 0.0{round_ % 10}; hostname")
        assert n1.console.enter(f"echo $(({round_}+1))") == str(round_ + 1)


def test_the_console_shows_the_boot(lab: Lab) -> None:
    machine = lab.machine("boot", cold=True)
    machine.console.login()
    assert "Please press Enter to activate this console" in machine.console.text
    machine.close()


def test_a_console_full_of_output_does_not_hold_up_the_guest(n1: Machine) -> None:
    n1.console.login()
    n1.succeed("head -c 300000 /dev/zero | tr '\\0' x > /dev/ttyS0", timeout_s=100)


def test_a_screen_can_be_photographed(lab: Lab) -> None:
    machine = lab.machine("tv", screen=True)
    machine.succeed("echo Hello, screen > /dev/tty0")
    picture = machine.screenshot()
    assert picture.png.startswith(b"\x89PNG")
    assert picture.size[0] >= 640
    machine.close()


def test_a_machine_without_a_screen_says_what_to_do(n1: Machine) -> None:
    with pytest.raises(UsageError, match="screen=True"):
        n1.screenshot()


def test_the_command_line_can_be_read(n1: Machine) -> None:
    assert n1.command_line.startswith("/")
    assert "-machine q35" in n1.command_line
    assert "virtserialport" in n1.command_line


def test_stats_tell_what_it_costs(n1: Machine) -> None:
    stats = n1.stats
    assert 0 < stats.cpu_s < 1000
    assert 10 << 20 < stats.memory_pss < 400 << 20
    assert stats.memory_guest == 384 << 20


# --- the lab ----------------------------------------------------------------------------------------------------


def test_the_same_call_returns_the_same_machine(lab: Lab, n1: Machine) -> None:
    assert lab.machine(n1.name) is n1
    with pytest.raises(UsageError, match="another kind of machine"):
        lab.machine(n1.name, memory="512M")


def test_a_name_predicts_the_address(lab: Lab) -> None:
    machine = lab.machine("node300")
    assert machine.identity.address == "10.0.1.44"
    assert "10.0.1.44/16" in machine.succeed("ip -4 -br addr show eth0")
    assert machine.identity.mac == "52:54:00:00:01:2c"
    machine.close()


def test_the_topology_is_what_exists(own_lab: Lab) -> None:
    own_lab.machine("n1")
    own_lab.machine("n2").crash()
    states = {name: data["state"] for name, data in own_lab.topology.nodes(data=True)}
    assert states == {"n1": "running", "n2": "crashed"}


def test_the_budget_refuses_before_the_computer_swaps() -> None:
    with Lab(memory="110M") as lab:
        lab.machine("n1")
        with pytest.raises(UsageError, match=r"n2 needs about 96 MiB; the lab uses(.|\n)*stop a guest first \(n1\)"):
            lab.machine("n2")
        assert list(lab.machines) == list(lab.running) == ["n1"]
        lab.machine("n1").power_off()
        assert lab.machine("n2").succeed("echo fits") == "fits\n"


def test_the_number_of_guests_is_limited() -> None:
    with Lab(guests=1) as lab:
        lab.machine("n1")
        with pytest.raises(UsageError, match="guest number 2; the lab's budget is 1"):
            lab.machine("n2")


def test_two_labs_at_once_do_not_disturb_each_other(own_lab: Lab) -> None:
    with Lab() as other:
        ours, theirs = own_lab.machine("n1"), other.machine("n1")
        ours.succeed("touch /root/ours")
        assert not theirs.test("test -e /root/ours")
        other.close()
        assert ours.succeed("echo still here") == "still here\n"


@pytest.mark.parametrize("name", ["", "N1", "1n", "a_b", "x" * 40, "a b", "-a", None])
def test_a_bad_name_is_explained(lab: Lab, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for a machine"):
        lab.machine(name)
