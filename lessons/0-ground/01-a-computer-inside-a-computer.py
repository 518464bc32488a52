# ---
# jupyter:
#   cloudlab:
#     title: {en: "A computer inside a computer", zh: "计算机里的计算机"}
#     minutes: 30
#     partly: ["2.01", "2.02"]
#     ids: []
#     needs: []
# ---

# %% [markdown] lang="en"
# # A computer inside a computer
#
# In 30 minutes you will have a second computer inside this one, look into it from both sides, stop it, copy it, break it and bring it back.
#
# You need nothing but this notebook: no administrator's rights, no network. Contents: two kernels · a process · hardware that is not there ·
# one instruction · what it costs · time · save and restore · copies · crashes · exercises.

# %% [markdown] lang="zh" of="f9f34fdf"
# # 计算机里的计算机
#
# 三十分钟后，你会在这台计算机里拥有第二台计算机：从内外两侧观察它，暂停它，复制它，弄坏它，再把它救回来。
#
# 只需要这个笔记本：不需要管理员权限，也不需要网络。内容：两个内核 · 一个进程 · 并不存在的硬件 · 一条指令 · 代价 · 时间 · 保存与恢复 · 副本 · 崩溃 · 练习。

# %% [markdown] lang="en"
# **You will do:** start a guest, find its process, write to its hardware with one machine instruction, measure it, and undo its destruction.
#
# **You will learn** the words *host*, *guest*, *virtual machine monitor (VMM)*, *trap and emulate*, *saved state*. Run each cell with Shift-Enter; where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="4e1612e6"
# **你要做的：** 启动一台客户机，找到它的进程，用一条机器指令写它的硬件，测量它，并撤销对它的破坏。
#
# **你会学到** 这些词：*宿主机 (host)*、*客户机 (guest)*、*虚拟机监控器 (VMM)*、*陷入并模拟 (trap and emulate)*、*保存的状态*。用 Shift-Enter 运行每个单元；看到 `...` 的地方，换成你自己的答案。

# %%
import subprocess, time
from pathlib import Path
from cloudlab import Lab, Lesson, MachineError, show_source

lesson = Lesson("0-ground/01-a-computer-inside-a-computer")
lab = Lab()

# %% [markdown] lang="en"
# ```mermaid
# flowchart LR
#   accTitle: Who runs on what
#   accDescr: Your computer, the host, runs QEMU as one process beside your other programs; in it, on imitated hardware, runs the guest with a kernel and programs of its own.
#   subgraph host["host: your computer and its kernel"]
#     other["your other programs"]
#     subgraph qemu["QEMU, the VMM: one process, imitates hardware"]
#       subgraph guest["guest: its own kernel"]
#         programs["its programs"]
#       end
#     end
#   end
# ```
# In words, from the outside in: your computer (the *host*) runs QEMU like any program. QEMU imitates hardware.
# On that hardware, which is not there, a second kernel runs with programs of its own: the *guest*. The lecture calls this the *hosted* architecture.

# %% [markdown] lang="zh" of="b422d364"
# ```mermaid
# flowchart LR
#   accTitle: 谁运行在谁之上
#   accDescr: 你的计算机（宿主机）把 QEMU 当作一个进程，与其他程序并列运行；在其中模拟的硬件上，运行着客户机和它自己的内核与程序。
#   subgraph host["宿主机：你的计算机和它的内核"]
#     other["你的其他程序"]
#     subgraph qemu["QEMU，即 VMM：一个进程，模拟硬件"]
#       subgraph guest["客户机：它自己的内核"]
#         programs["它的程序"]
#       end
#     end
#   end
# ```
# 由外向内地说：你的计算机（*宿主机*）像运行普通程序一样运行 QEMU。QEMU 模拟出硬件。
# 在这并不存在的硬件上，运行着第二个内核和它自己的程序：*客户机*。讲义把这叫做*寄生架构*。

# %% [markdown] lang="en"
# ## Two kernels
#
# **Predict:** with one guest running, how many kernels will be at work in this computer? Write a number in place of `...`.

# %% [markdown] lang="zh" of="8e1472fa"
# ## 两个内核
#
# **预测：** 运行一台客户机时，这台计算机里有几个内核在工作？用一个数字代替 `...`。

# %%
kernels = ...
lesson.predict(1, kernels)

# %% [markdown] lang="en"
# Start the guest. It is restored from a saved state, so it is there in a blink; `accelerator="tcg"` has each of its instructions translated,
# which works on any computer. (The first time ever takes some seconds longer.)

# %% [markdown] lang="zh" of="d3c8b4ad"
# 启动客户机。它由保存的状态恢复而来，所以一眨眼就好；`accelerator="tcg"` 表示它的每条指令都被翻译执行，这在任何计算机上都可行。（第一次会多花几秒。）

# %%
n1 = lab.machine("n1", accelerator="tcg")
n1

# %%
print(n1.succeed("whoami; hostname; ps -o pid,comm 1"))

# %% [markdown] lang="en"
# You are `root` there, and process number 1 is a program that your own computer does not run. Each kernel draws a random number when it boots, its *boot id*. Compare them:

# %% [markdown] lang="zh" of="a643e963"
# 在那里你是 `root`，而且 1 号进程是你自己的计算机并没有运行的程序。每个内核启动时都会抽取一个随机数，即 *boot id*。比较一下：

# %%
boot_id = "/proc/sys/kernel/random/boot_id"
host_id = Path(boot_id).read_text() if Path(boot_id).exists() else "no Linux here"
guest_id = n1.succeed(f"cat {boot_id}")
print("the same kernel:", host_id == guest_id)

# %%
lesson.check(1, kernels)

# %% [markdown] lang="en"
# ## A machine is a process
#
# **Predict:** where on this computer is the whole guest, with its kernel and all its programs? `"kernel"`, `"process"`, `"many processes"` or `"disk"`?

# %% [markdown] lang="zh" of="b5407a86"
# ## 一台机器就是一个进程
#
# **预测：** 整个客户机，连同它的内核和所有程序，在这台计算机的什么地方？`"kernel"`、`"process"`、`"many processes"` 还是 `"disk"`？

# %%
where = ...
lesson.predict(2, where)

# %%
import psutil
process = psutil.Process(n1.pid)
print(Path(process.exe()).name, "| children:", len(process.children()))
n1.run("sleep 60 >/dev/null 2>&1 & sleep 61 >/dev/null 2>&1 &")
print("sleeping in the guest:", n1.succeed("pgrep -c sleep").strip())
print("new children on the host:", len(process.children()))

# %%
lesson.check(2, where)

# %% [markdown] lang="en"
# ## Hardware that is not there
#
# How QEMU was started says which hardware it imitates. Here are the cards on the guest's bus, as QEMU was asked for them…

# %% [markdown] lang="zh" of="c0b2fefd"
# ## 并不存在的硬件
#
# QEMU 的启动命令说明了它模拟哪些硬件。下面是客户机总线上的卡，先看我们向 QEMU 要的……

# %%
for line in n1.command_line.splitlines():
    if "-device virtio" in line and "pci" in line:
        print(line.split("-device ")[1].split(",")[0].rstrip(" \\"))

# %% [markdown] lang="en"
# …and as the guest's drivers have found them. To the guest they are simply there:

# %% [markdown] lang="zh" of="7b9ba3bc"
# ……再看客户机的驱动程序找到的。对客户机来说，它们就在那里：

# %%
print(n1.succeed("ls -d /sys/bus/pci/drivers/virtio-pci/0000:* | cut -d/ -f6,7"))
print(n1.succeed("grep 'model name' /proc/cpuinfo"))

# %% [markdown] lang="en"
# A CPU reaches old devices through numbered *ports*. The guest's kernel keeps a list of who answers at which:

# %% [markdown] lang="zh" of="e8d57067"
# CPU 通过带编号的*端口*访问老式设备。客户机内核有一张表，记着哪个端口由谁应答：

# %%
print(n1.succeed("grep -E 'keyboard|rtc|serial|timer' /proc/ioports"))

# %% [markdown] lang="en"
# **Exercise.** At which port does the serial line begin? Write the text as it stands in the list.

# %% [markdown] lang="zh" of="91a92720"
# **练习。** 串口从哪个端口开始？按表中的样子写出来。

# %%
serial_port = ...
lesson.check(3, serial_port)

# %% [markdown] lang="en"
# ## One instruction, trapped and emulated
#
# The serial line is the guest's *console*: what is written to its port comes out here. Let us write one letter with one instruction, `out`
# (the byte `ee`), from a program so small that you can read its machine code. The first function only wraps code into a file that Linux runs (ELF).

# %% [markdown] lang="zh" of="0f9fa663"
# ## 一条指令：陷入并模拟
#
# 串口就是客户机的*控制台*：写到它端口的东西会从这里出来。我们用一条指令 `out`（字节 `ee`）写一个字符，程序小到可以直接读机器码。第一个函数只是把代码包装成 Linux 能运行的文件（ELF）。

# %%
import struct

def program(code: bytes) -> bytes:
    size = 120 + len(code)
    kind = (2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)  # a program for x86-64
    header = struct.pack("<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, *kind)
    where = struct.pack("<2I6Q", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return header + where + code

# %%
allow = "b8ad000000 bff8030000 be08000000 ba01000000 0f05"  # ioperm(0x3f8, 8, 1)
write = "66baf803 b021 ee"                                  # dx = 0x3f8; al = '!'; out dx, al
leave = "b83c000000 31ff 0f05"                              # exit(0)
n1.put("/root/out", program(bytes.fromhex(allow + write + leave)), mode=0o755)

# %%
before = len(n1.console.text)
n1.succeed("/root/out")
print("the console now says:", n1.console.text[before:])

# %% [markdown] lang="en"
# No serial chip was involved. The `out` made the imitated CPU leave the guest's code (a *trap*); QEMU looked up who owns port 3f8, ran its
# imitation of the chip in C, and wrote the letter to a socket of your computer. Then the guest went on. QEMU can show who owns which port:

# %% [markdown] lang="zh" of="829febf6"
# 并没有串口芯片参与。`out` 使被模拟的 CPU 离开客户机代码（*陷入*）；QEMU 查出 3f8 端口属于谁，运行它用 C 写的芯片模拟，把字符写进你计算机上的一个套接字，然后客户机继续执行。QEMU 可以显示各端口的主人：

# %%
ports = n1.monitor("info mtree")
print([line.split(": ")[1] for line in ports.splitlines() if "00000000000003f8-" in line][0])

# %% [markdown] lang="en"
# The console is also a shell. `enter` types a line, as you would at a keyboard, and shows what comes back (`terminal` programs: `cloudlab boot`):

# %% [markdown] lang="zh" of="b51303b1"
# 控制台也是一个 shell。`enter` 像在键盘上那样输入一行，并显示返回的内容（在终端里可以用 `cloudlab boot`）：

# %%
print(n1.console.enter("tty; echo I am $USER on $(hostname)"))

# %% [markdown] lang="en"
# An idle computer executes `hlt`: wait for something to happen. That instruction traps too, and QEMU then lets your CPU do other things.
# `HLT=1` says that the guest is waiting (we look 20 times); what it costs meanwhile is next to nothing:

# %% [markdown] lang="zh" of="61899162"
# 空闲的计算机执行 `hlt`：等待事情发生。这条指令同样会陷入，QEMU 便让你的 CPU 去做别的事。`HLT=1` 表示客户机在等待（我们看 20 次）；这期间它几乎没有开销：

# %% tags=["sleep-ok"]
n1.succeed("pkill sleep")
time.sleep(1)
used = n1.stats.cpu_s
time.sleep(2)
used = n1.stats.cpu_s - used
looks = ["HLT=1" in n1.monitor("info registers") for _ in range(20)]
print("found waiting, most of the time:", sum(looks) > 10)
print("less than 5 % of a CPU:", used < 0.1)

# %% [markdown] lang="en"
# ## What emulation costs
#
# **Predict:** a loop of pure computation in the guest takes how many times as long as the very same program on the host?

# %% [markdown] lang="zh" of="1de3280f"
# ## 模拟的代价
#
# **预测：** 一段纯计算的循环，在客户机里花的时间是同一个程序在宿主机上的多少倍？

# %%
times_slower = ...
lesson.predict(4, times_slower)

# %% [markdown] lang="en"
# The very same program: we take the guest's `busybox`, which needs no libraries, and run it here too (on a computer that is no x86-64 Linux, Python counts instead).

# %% [markdown] lang="zh" of="32297388"
# 同一个程序：我们取出客户机的 `busybox`（它不需要任何库），在这里也运行它（如果这台计算机不是 x86-64 Linux，就由 Python 来数）。

# %%
busybox = lab.path("busybox")
busybox.write_bytes(n1.get("/usr/bin/busybox"))
busybox.chmod(0o755)
count = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"

# %%
began = time.monotonic()
try:
    subprocess.run([busybox, "sh", "-c", count], check=True)
except OSError:
    exec("i = 0\nwhile i < 1_000_000: i += 1")
host_s = time.monotonic() - began
guest_s = n1.run(["busybox", "sh", "-c", count]).duration_s
print("slower in the guest:", guest_s > 2 * host_s)

# %%
lesson.check(4, times_slower, measured=guest_s / host_s)

# %% [markdown] lang="en"
# ## Time can stop
#
# The guest's CPU is a thread of QEMU. If it stops between two instructions, the guest can't notice. **Predict:** the guest is stopped for 2 seconds; by how many seconds will its clock be late?

# %% [markdown] lang="zh" of="9b333b62"
# ## 时间可以停住
#
# 客户机的 CPU 是 QEMU 的一个线程。它停在两条指令之间，客户机察觉不到。**预测：** 让客户机停 2 秒，它的时钟会慢几秒？

# %%
late = ...
lesson.predict(5, late)

# %% tags=["sleep-ok"]
def clock_difference() -> float:
    return time.time() - float(n1.succeed("date +%s.%N"))

before = clock_difference()
n1.pause()
time.sleep(2)
n1.resume()
print("late by", round(clock_difference() - before), "seconds")

# %%
lesson.check(5, late)

# %% [markdown] lang="en"
# ## Save, destroy, restore
#
# A program that counts runs in the guest. We save *everything* (the memory, the CPU's registers, the devices), then destroy the guest from inside.
# **Predict:** after `restore`, does the program still run under the same process number? `True` or `False`?

# %% [markdown] lang="zh" of="43543679"
# ## 保存、毁坏、恢复
#
# 客户机里运行着一个计数程序。我们保存*一切*（内存、CPU 寄存器、设备状态），然后从内部毁掉客户机。**预测：** `restore` 之后，那个程序还以同样的进程号在运行吗？`True` 还是 `False`？

# %%
still_runs = ...
lesson.predict(6, still_runs)

# %%
counter = "#!/bin/sh\nwhile sleep 0.1; do i=$((i+1)); echo $i > /tmp/count; done\n"
n1.put("/root/counter", counter, mode=0o755)
n1.run("/root/counter >/dev/null 2>&1 &")
n1.wait_until_succeeds("test -s /tmp/count")
pid = n1.succeed("pgrep counter")
n1.save("clean")

# %%
n1.run("rm -rf /usr /etc /root; killall5")
n1.run("ls /").exit_status

# %% [markdown] lang="en"
# 127: the shell itself is gone; on your own computer this would be a very bad day. Here it is one call:

# %% [markdown] lang="zh" of="0a0f13e0"
# 127：连 shell 都没有了；在你自己的计算机上，这会是糟糕透顶的一天。在这里只需一次调用：

# %%
n1.restore("clean")
print(n1.succeed("ls /"))
print("the same process:", n1.succeed("pgrep counter") == pid)

# %%
lesson.check(6, still_runs)

# %% [markdown] lang="en"
# ## Copies, and what must differ
#
# A saved state can be started twice: that is a *clone*, and how a cloud starts a thousand machines from one image. The program goes on counting in both.

# %% [markdown] lang="zh" of="c2b22106"
# ## 副本，以及必须不同的东西
#
# 一个保存的状态可以启动两次：这就是*克隆*，云正是这样从一个镜像启动成千上万台机器。那个程序在两边都继续计数。

# %%
n2 = n1.clone("n2")
address = "ip -4 -o addr show eth0 | cut -d' ' -f7"
for machine in (n1, n2):
    facts = machine.succeed(f"hostname; cat /sys/class/net/eth0/address; {address}")
    print(facts.split(), "counting:", machine.test("pgrep counter"))

# %% [markdown] lang="en"
# **Exercise.** A perfect copy would be a dangerous one. Which of these did `clone` have to change? Answer with a set.
# `"host name"`, `"MAC address"`, `"kernel version"`, `"machine id"`, `"random numbers"`, `"files in /root"`

# %% [markdown] lang="zh" of="64107e5f"
# **练习。** 完美的副本是危险的副本。`clone` 必须改变下面哪些？用一个集合回答。
# `"host name"`（主机名）、`"MAC address"`（MAC 地址）、`"kernel version"`（内核版本）、`"machine id"`（机器标识）、`"random numbers"`（随机数）、`"files in /root"`（/root 里的文件）

# %%
questions = ["hostname", "cat /sys/class/net/eth0/address", "uname -r",
             "cat /etc/machine-id", "od -An -N8 -tx1 /dev/urandom", "ls /root"]
for question in questions:
    same = n1.succeed(question) == n2.succeed(question)
    print(f"{question:35}", "is the same" if same else "differs")

# %%
must_differ = ...
lesson.check(7, must_differ)

# %% [markdown] lang="en"
# ## Break it
#
# Pull the plug of a machine that has a disk. One file was written to memory, one to the disk. **Predict** which will be there afterwards: `"memory"`, `"disk"`, `"both"` or `"none"`?

# %% [markdown] lang="zh" of="125bdaa6"
# ## 弄坏它
#
# 给一台带磁盘的机器拔掉电源。一个文件写在内存里，一个写在磁盘上。**预测** 之后哪个还在：`"memory"`、`"disk"`、`"both"` 还是 `"none"`？

# %%
survives = ...
lesson.predict(8, survives)

# %%
disk = n2.plug(disk="64M")
n2.succeed(f"mkfs.ext4 -q {disk.guest_name} && mount {disk.guest_name} /mnt")
n2.succeed("echo precious > /mnt/file; echo precious > /root/file; sync")
n2.crash()
n2

# %%
n2.start()
n2.succeed(f"mount {disk.guest_name} /mnt")
print("disk:  ", n2.run("cat /mnt/file").stdout.strip() or "gone")
print("memory:", n2.run("cat /root/file").stdout.strip() or "gone")

# %%
lesson.check(8, survives)

# %% [markdown] lang="en"
# And if the guest's kernel itself fails? We ask it to. Your computer goes on; an error tells which machine it was, and what its kernel said last:

# %% [markdown] lang="zh" of="7499cb6e"
# 如果客户机的内核自己出了故障呢？我们让它出一次。你的计算机照常运行；错误信息会说明是哪台机器，以及它的内核最后说了什么：

# %%
try:
    n2.run("echo c > /proc/sysrq-trigger")
except MachineError as error:
    print(error.problem)
    print([line for line in error.output.splitlines() if "not syncing" in line][0].split("] ")[-1])

# %%
print(n1.succeed("echo n1 has not noticed"))

# %% [markdown] lang="en"
# How is the plug pulled? In this course every mechanism is code that you can read:

# %% [markdown] lang="zh" of="788974cf"
# 电源是怎么拔掉的？在这门课里，每个机制都是你能读的代码：

# %%
show_source(type(n1).crash)

# %% [markdown] lang="en"
# ## Exercises
#
# 1. Make a machine `n3` with two CPUs and 512 MiB (`cpus=2, memory="512M"`) and find out inside it, with `nproc`, how many CPUs it sees.
# 2. Which option of QEMU (in `n3.command_line`) says how much memory the guest gets?

# %% [markdown] lang="zh" of="6f344c8c"
# ## 练习
#
# 1. 做一台有两个 CPU、512 MiB 内存的机器 `n3`（`cpus=2, memory="512M"`），并在里面用 `nproc` 查出它看到几个 CPU。
# 2. QEMU 的哪个选项（见 `n3.command_line`）决定客户机有多少内存？

# %%
seen = ...
lesson.check(9, seen)

# %%
memory_option = ...
lesson.check(10, memory_option)

# %% [markdown] lang="en"
# ## Summary
#
# A virtual machine is a process that imitates hardware well enough for a kernel to run on it. What touches hardware *traps* and is *emulated*;
# the rest is translated. Because all of the machine is data in a process, it can be stopped, saved, copied and thrown away: on this a cloud is built.
#
# **Ask yourself:** what is the VMM here? Who owns the real hardware? Why must two clones not share random numbers?

# %% [markdown] lang="zh" of="b0e43d0c"
# ## 小结
#
# 虚拟机是一个进程，它把硬件模拟得足够好，使内核能在上面运行。碰到硬件的指令会*陷入*并被*模拟*，其余的被翻译执行。
# 因为整台机器都是进程里的数据，所以能停、能存、能复制、能丢弃：云就建立在这之上。
#
# **问问自己：** 这里的 VMM 是谁？真实硬件归谁所有？为什么两个克隆不能有相同的随机数？

# %% [markdown] lang="en"
# How far did you get?

# %% [markdown] lang="zh" of="270a965f"
# 你做到了多少？

# %%
lesson.progress()

# %% [markdown] lang="en"
# ## Solutions
#
# One for each question, in order. Try first; then open a cell by clicking its dots, and run it.

# %% [markdown] lang="zh" of="50e31517"
# ## 参考答案
#
# 每题一个，按顺序排列。先自己试；然后点击单元的圆点打开它，再运行。

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(1, 2)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, "process")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, "03f8")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, guest_s / host_s, measured=guest_s / host_s)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, 2)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, True)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, {"host name", "MAC address", "machine id", "random numbers"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, "disk")

# %% tags=["solution"]
# A solution · 参考答案
n3 = lab.machine("n3", accelerator="tcg", cpus=2, memory="512M")
lesson.check(9, int(n3.succeed("nproc")))

# %% tags=["solution"]
# A solution · 参考答案
print([line.split(",")[0] for line in n3.command_line.splitlines() if " -m " in line])
lesson.check(10, "-m")

# %% [markdown] lang="en"
# Nothing stays behind: closing the lab ends every guest and removes its files. (So does the end of this notebook's kernel, however it comes.)

# %% [markdown] lang="zh" of="e642d56f"
# 什么都不会留下：关闭实验室会结束每台客户机并删除它的文件。（这个笔记本的内核以任何方式结束时也一样。）

# %%
print("stopped:", ", ".join(lab.close()))
