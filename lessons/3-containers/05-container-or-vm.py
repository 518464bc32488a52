# ---
# jupyter:
#   cloudlab:
#     title: {en: "Container or virtual machine?", zh: "容器还是虚拟机"}
#     minutes: 40
#     ids: ["3.04"]
#     needs: ["3-containers/04-container-from-scratch"]
# ---

# %% [markdown] lang="en"
# # Container or virtual machine?
#
# In 40 minutes you will have measured both on your own computer (start-up, memory, density, speed), tried to break the walls of both, and be able to choose with numbers instead of fashion.
#
# You need the four lessons on containers before this one. Contents: two boxes · start-up · memory · density · until it hurts · a shared kernel · a panic · overhead · your table · six decisions · exercises.

# %% [markdown] lang="zh" of="4fa5d10a"
# # 容器还是虚拟机
#
# 四十分钟后，你会在自己的计算机上测出两者的启动时间、内存、密度和速度，试着打破两者的墙，并且能够用数字而不是潮流来做选择。
#
# 需要前面四节关于容器的课。内容：两种盒子 · 启动 · 内存 · 密度 · 直到撑不住 · 共用的内核 · 一次内核崩溃 · 开销 · 你的表格 · 六个决定 · 练习。

# %% [markdown] lang="en"
# **You will do:** race a container against a booting guest, weigh both, fill a guest with containers until something dies, and bring a whole guest down from inside a container.
#
# **You will learn** the words *cold start*, *density*, *overhead*, *noisy neighbour*, *blast radius*, *privileged*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="ba71fad1"
# **你要做的：** 让容器与正在引导的客户机赛跑，称一称两者的重量，把一台客户机塞满容器直到有东西死掉，再从容器里面弄垮整台客户机。
#
# **你会学到** 这些词：*冷启动 (cold start)*、*密度 (density)*、*开销 (overhead)*、*吵闹的邻居 (noisy neighbour)*、*爆炸半径 (blast radius)*、*特权 (privileged)*。看到 `...` 的地方，换成你自己的答案。

# %%
import subprocess
from resource import RUSAGE_CHILDREN, getrusage
from timeit import timeit
import plotly.graph_objects as go
from cloudlab import Lab, Lesson, MachineError, show_source
from cloudlab.containers.specification import configuration
from cloudlab.owner.budget import proportional_memory
from cloudlab.progress import progress
from cloudlab.units import MIB

lesson = Lesson("3-containers/05-container-or-vm")
lab = Lab(accelerator="tcg")

# %% [markdown] lang="en"
# ## Two boxes
#
# From inside they look alike: a name, a process number 1, a root of files. The difference is *below*:
# ```mermaid
# flowchart TB
#   accTitle: Containers beside virtual machines
#   accDescr: Two containers share the kernel of one guest. Two guests each have a kernel of their own and share only the emulator and the kernel of the computer below.
#   subgraph second["two virtual machines"]
#     c["app"] --> k1["a kernel"]
#     d["app"] --> k2["a kernel"]
#     k1 & k2 --> v["emulated hardware"]
#   end
#   subgraph first["two containers"]
#     a["app"] & b["app"] --> k["one kernel"]
#   end
# ```
# A kernel draws a random number when it starts, its `boot_id`. **Predict:** `c1` and `c2` are containers in the guest `n1`; `n2` is another guest. How many different numbers do the four report?

# %% [markdown] lang="zh" of="0ded3eb9"
# ## 两种盒子
#
# 从里面看，两者很像：都有名字、1 号进程、自己的根目录。区别在*下面*：
# ```mermaid
# flowchart TB
#   accTitle: 容器与虚拟机对比
#   accDescr: 两个容器共用一台客户机的内核。两台客户机各有自己的内核，只共用下面的模拟器和计算机的内核。
#   subgraph second["两台虚拟机"]
#     c["应用"] --> k1["一个内核"]
#     d["应用"] --> k2["一个内核"]
#     k1 & k2 --> v["模拟的硬件"]
#   end
#   subgraph first["两个容器"]
#     a["应用"] & b["应用"] --> k["一个内核"]
#   end
# ```
# 内核启动时会抽取一个随机数，即 `boot_id`。**预测：** `c1` 和 `c2` 是客户机 `n1` 里的容器，`n2` 是另一台客户机。这四者一共报出几个不同的数？

# %%
different = ...
lesson.predict(1, different)

# %%
alone = dict(image="busybox", network="none")
idle = dict(alone, command=["sleep", "10000"])
n1, n2 = lab.machine("n1"), lab.machine("n2")
c1, c2 = n1.container("c1", **idle), n1.container("c2", **idle)
look = ["cat", "/proc/sys/kernel/random/boot_id"]
ids = {place.name: place.run(look).stdout for place in (n1, c1, c2, n2)}
for name, boot_id in ids.items():
    print(name, "runs on the kernel of", next(first for first in ids if ids[first] == boot_id))
print("processes in c1:", c1.stats().pids, "|", " ".join(c1.wishes.command))
print("processes in n2, idle: over 30:", int(n2.succeed("ps -e --no-headers | wc -l")) > 30)
lesson.check(1, different)

# %% [markdown] lang="en"
# A container brings no operating system: nothing in it but its own program.
#
# ## Start-up
#
# **Predict:** a container runs `true`, from our call to its exit. A guest boots *cold*, from power-on until it takes a command. How many times as long does the guest take?

# %% [markdown] lang="zh" of="6aa52e40"
# 容器不带操作系统：里面除了自己的程序什么也没有。
#
# ## 启动
#
# **预测：** 一个容器运行 `true`，从我们发出调用到它退出。一台客户机*冷启动 (cold start)*，从通电到能接受命令。客户机用的时间是容器的多少倍？

# %%
times_as_long = ...
lesson.predict(2, times_as_long)

# %% [markdown] lang="en"
# The fastest of several runs is the fairest number: whatever else your computer does only makes a run slower.

# %% [markdown] lang="zh" of="d0b6a50d"
# 几次中最快的一次最公平：计算机同时在做的其他事只会让某一次变慢。

# %% tags=["nbval-ignore-output"]
runs = []
for _ in range(5):
    racer = dict(alone, command=["true"])
    runs.append(timeit(lambda: n1.container("racer", **racer).wait(), number=1))
    n1.containers["racer"].remove()
container_s = min(runs)
cold_s = timeit(lambda: lab.machine("n3", cold=True).succeed("true"), number=1)
cold_cost = lab["n3"].stats.memory_pss
lab["n3"].close()
print(f"a container {container_s:.2f} s, a guest {cold_s:.2f} s")

# %%
print("the guest takes at least 3 times as long:", cold_s > 3 * container_s)
calls = [step.call.name for step in c1.steps]
print("system calls that made c1: fewer than 500:", len(calls) < 500)
print("among them:", [name for name in ("clone3", "pivot_root", "execve") if name in calls])
lesson.check(2, times_as_long, measured=cold_s / container_s)

# %% [markdown] lang="en"
# To start a container is a list of system calls, made by a kernel that has long been running. To boot is firmware, a kernel, drivers, an init.
#
# But must a guest boot? A cloud can boot one, save its memory, and hand out copies (as services for functions do). `lab.machine` does so when it is not told `cold`.
#
# **Predict:** such a *restored* guest starts in `"under half"` of the time of a cold one, or `"nearly the same"`?

# %% [markdown] lang="zh" of="80db0a84"
# 启动容器只是一串系统调用，由一个早已在运行的内核来执行。而引导要经过固件、内核、驱动和 init。
#
# 可是客户机非引导不可吗？云可以先引导一台，把内存保存下来，再分发副本（函数计算服务就这样做）。`lab.machine` 不加 `cold` 时正是如此。
#
# **预测：** 这样*恢复 (restored)* 出来的客户机，启动时间是冷启动的 `"under half"`（不到一半），还是 `"nearly the same"`（差不多）？

# %%
restored = ...
lesson.predict(3, restored)

# %% tags=["nbval-ignore-output"]
restored_s = timeit(lambda: lab.machine("n3").succeed("true"), number=1)
restored_cost = lab["n3"].stats.memory_pss
print(f"a restored guest: {restored_s:.2f} s")

# %%
print("under half of a cold start:", restored_s < cold_s / 2)
lab["n3"].close()
lesson.check(3, restored)

# %% [markdown] lang="en"
# ## Memory
#
# **Predict:** ten more containers join `c1` and `c2`, each with a program that sleeps. How many MiB of `n1` do the ten take, all together?

# %% [markdown] lang="zh" of="d6311002"
# ## 内存
#
# **预测：** `c1`、`c2` 之外再来十个容器，各运行一个睡眠的程序。这十个一共占用 `n1` 多少 MiB 内存？

# %%
ten_mib = ...
lesson.predict(4, ten_mib)

# %% tags=["nbval-ignore-output"]
def available(machine):
    return int(machine.succeed("awk '/MemAvailable/ {print $2}' /proc/meminfo")) * 1024

before = available(n1)
for number in range(3, 13):
    n1.container(f"c{number}", **idle)
ten = before - available(n1)
print(f"ten containers: {ten / MIB:.1f} MiB less is available in n1")
print(f"the control group of one says {c1.stats().memory / MIB:.2f} MiB")
print(f"one guest: cold {cold_cost / MIB:.0f} MiB, restored {restored_cost / MIB:.0f} MiB")

# %%
print("a control group counts under 1 MiB:", c1.stats().memory < MIB)
print("ten containers take under 20 MiB:", ten < 20 * MIB)
print("ONE restored guest takes more than the ten:", restored_cost > ten)
print("a cold one takes over 100 MiB:", cold_cost > 100 * MIB)
lesson.check(4, ten_mib, measured=ten / MIB)

# %% [markdown] lang="en"
# The guest's number is *PSS*: a page that several processes share counts for each in part. Copies of one saved state share what they have not written; a guest that booted shares next to nothing. Containers share a kernel, and the pages of their image. (Why more than 384 MiB for a cold guest? Its emulator counts too: the translated code, and the image that it booted from.)
#
# ## Density
#
# **Predict:** `n1` is a guest of 384 MiB. How many sleeping containers fit into it until memory is short?

# %% [markdown] lang="zh" of="778ebd7f"
# 客户机的数字是 *PSS*：几个进程共用的内存页，每个进程各摊一部分。同一保存状态的副本共用尚未改写的内存页；自己引导的客户机几乎什么都不共用。容器则共用内核，还有镜像的内存页。（冷启动的客户机为什么超过 384 MiB？因为模拟器也算在内：翻译出来的代码，以及引导用的镜像文件。）
#
# ## 密度
#
# **预测：** `n1` 是一台 384 MiB 的客户机。在内存紧张之前，能装下多少个睡眠的容器？

# %%
fit = ...
lesson.predict(5, fit)

# %% [markdown] lang="en"
# We start 50 more, watch what they cost, and compute the rest: a good engineer finds the edge of a cliff without jumping.

# %% [markdown] lang="zh" of="3c1716ca"
# 我们再启动 50 个，看看它们花了多少，其余的靠计算：好工程师不用跳下去，也能找到悬崖的边缘。

# %% tags=["nbval-ignore-output"]
with progress(50, "containers") as bar:
    for number in range(13, 63):
        n1.container(f"c{number}", **idle)
        bar.update()
        if available(n1) < 48 * MIB:
            break  # a limit: rather stop than hurt
container_cost = (before - available(n1)) / (number - 2)
containers_fit = before / container_cost
print(f"{container_cost / MIB:.2f} MiB each, so about {containers_fit:.0f} fit into n1")

# %%
running = [c for c in n1.containers if c.status == "running"]
print("containers running:", len(running), "| over 100 would fit:", containers_fit > 100)
lesson.check(5, fit, measured=containers_fit)

# %% [markdown] lang="en"
# And guests? The lab's *budget* is the memory of your computer that it may use. What a guest costs it measures by PSS; read how:

# %% [markdown] lang="zh" of="4d7a17ff"
# 那么客户机呢？实验室的*预算 (budget)* 是它在你的计算机上可以使用的内存。它用 PSS 来测量一台客户机的花费；读一读：

# %%
print("a cold guest costs over 20 containers:", cold_cost > 20 * container_cost)
print("a restored one costs over 5:", restored_cost > 5 * container_cost)
show_source(type(lab.budget).per_guest.fget, proportional_memory)

# %% [markdown] lang="en"
# "Thousands on a host" is said of containers that do nothing. Real programs need memory of their own, and *that* is the same in both boxes. How many fit into your budget, if each works with `size` MiB?

# %% [markdown] lang="zh" of="cc2d35ee"
# “一台主机几千个”说的是什么都不干的容器。真实的程序自己也要内存，而*这部分*在两种盒子里是一样的。如果每个程序要用 `size` MiB，你的预算里能装下多少个？

# %%
sizes = [0.1, 1, 10, 100, 1000]
costs = {"container": container_cost, "restored guest": restored_cost, "cold guest": cold_cost}

def fits(cost, size):
    return lab.budget.memory / (cost + size * MIB)

# %% tags=["nbval-ignore-output"]
clear = "rgba(0,0,0,0)"  # figures without a background fit light and dark pages
plain = dict(template="none", paper_bgcolor=clear, plot_bgcolor=clear, font_color="#767676")
looks = zip(costs, ["#0072B2", "#D55E00", "#8A8A8A"], ["circle", "square", "diamond"])
lines = [go.Scatter(x=sizes, y=[fits(costs[name], size) for size in sizes], name=name,
                    marker_size=10, line_color=colour, marker_symbol=symbol)
         for name, colour, symbol in looks]
chart = go.Figure(lines).update_layout(title="How many fit into this computer", height=400, **plain)
chart.update_xaxes(type="log", dtick=1, title="memory that each program needs, MiB")
chart.update_yaxes(type="log", dtick=1, title="how many fit")

# %%
for size in (0.1, 1000):
    ratio = fits(container_cost, size) / fits(restored_cost, size)
    print(f"programs of {size:6} MiB: over 5 times as many containers as guests: {ratio > 5}")

# %% [markdown] lang="en"
# **Exercise.** From which size of a program (in MiB) on do *fewer* than twice as many fit into containers as into restored guests? Compute it from `container_cost` and `restored_cost` (both in bytes; `MIB` converts) with pen and paper, or find it in the chart. The check finds it by trying.

# %% [markdown] lang="zh" of="ef9b2ef8"
# **练习。** 程序从多大（MiB）起，容器能装下的个数*不到*恢复的客户机的两倍？用 `container_cost` 和 `restored_cost`（单位都是字节，用 `MIB` 换算）动笔算，或者在图上找。检查时是逐个试出来的。

# %%
size_mib = ...
edge = next(mib for mib in range(10_000)
            if fits(container_cost, mib) < 2 * fits(restored_cost, mib))
lesson.check(6, size_mib, measured=edge)

# %% [markdown] lang="en"
# ## Until it hurts
#
# Containers in `n2` now hold real memory: `db`, an old and quiet one, 60 MiB; then one small one of 12 MiB after another, without any limit. (`dd` fills its buffer and then waits forever.)
#
# **Predict:** one comes too many. Who pays: `"the newest"`, `"the largest"`, or does the new one get `"an error"`?

# %% [markdown] lang="zh" of="628d398b"
# ## 直到撑不住
#
# 现在 `n2` 里的容器要占用真实的内存：`db` 是个安静的老住户，占 60 MiB；然后一个接一个地来 12 MiB 的小容器，都没有限制。（`dd` 把缓冲区填满，然后一直等下去。）
#
# **预测：** 终于多来了一个。谁来买单：`"the newest"`（最新的那个）、`"the largest"`（最大的那个），还是新来的得到 `"an error"`（一个错误）？

# %%
pays = ...
lesson.predict(7, pays)

# %% tags=["nbval-ignore-output"]
def holds(mib):
    return f"mkfifo /tmp/f; exec dd if=/dev/zero of=/tmp/f bs={mib}M 3<>/tmp/f"

db, small = n2.container("db", **alone, command=holds(60)), []
with progress(30, "small containers") as bar:
    while db.status == "running" and len(small) < 30:
        small.append(n2.container(f"s{len(small)}", **alone, command=holds(12)))
        bar.update()
print(f"it hurts at the {len(small)}th")

# %%
print("db:", db.status, "with exit status", db.exit_status)
print("small ones still running:", all(one.status == "running" for one in small))
print(n2.succeed("dmesg | grep -o 'Out of memory: Killed process' | head -1").strip())
lesson.check(7, pays)

# %% [markdown] lang="en"
# `db` did nothing, and is dead: the kernel's *OOM killer* frees the most with the fewest victims. A neighbour who takes too much from everybody is called *noisy*. Against it, every container should have limits. **Predict:** `leak` wants 100 MiB and may have 32. Which of `db` and `leak` are killed? Write a set.

# %% [markdown] lang="zh" of="ca766de7"
# `db` 什么也没做，却死了：内核的 *OOM killer* 总想用最少的牺牲换回最多的内存。向大家索取过多的邻居叫做*吵闹的邻居 (noisy neighbour)*。对策是每个容器都要有限制。**预测：** `leak` 想要 100 MiB，只准用 32。`db` 和 `leak` 中哪些会被杀掉？写一个集合。

# %%
killed = ...
lesson.predict(8, killed)

# %%
n2.containers.close()
db = n2.container("db", **alone, command=holds(60), memory="96M")
leak = n2.container("leak", **alone, command=holds(100), memory="32M")
print("leak:", leak.wait(), "| db:", db.status)
lesson.check(8, killed)

# %% [markdown] lang="en"
# Memory is not all that can run out. A kernel has room for so many processes (we give `n2` room for 250, so that it's over soon). `forker` starts processes until the kernel refuses: first with a limit of 20, then without one.
#
# **Predict:** in the second case, can the neighbour `web` still run a pipe of eight programs? `True` or `False`?

# %% [markdown] lang="zh" of="85cc5a07"
# 会耗尽的不只有内存。一个内核能容纳的进程数是有限的（我们让 `n2` 只能容纳 250 个，好快点见分晓）。`forker` 不停地启动进程，直到内核拒绝：先限制为 20 个，再不限制。
#
# **预测：** 在第二种情况下，邻居 `web` 还能运行一条由八个程序组成的管道吗？`True` 还是 `False`？

# %%
still_works = ...
lesson.predict(9, still_works)

# %%
n2.succeed("echo 250 > /proc/sys/kernel/threads-max")
web = n2.container("web", **idle)
for limit in (20, None):
    forker = n2.container("forker", **idle, pids=limit)
    forker.run("while :; do sleep 10000 >/dev/null 2>&1 & done")  # ends when no fork succeeds
    pipe = web.run("echo fine" + " | cat" * 7)
    print("limit", limit, "| web says:", pipe.stdout.strip() or pipe.stderr.strip())
    forker.remove()
lesson.check(9, still_works)

# %% [markdown] lang="en"
# A limit is as strong as a wall, but somebody must set it, for *each* thing that is shared. Two guests share no table of processes to begin with.
#
# ## One kernel, one set of settings
#
# A search engine (Elasticsearch) wants `vm.max_map_count` to be 262144, and asks for a *privileged* container to set it. `tuner` in `n2` does so.
#
# **Predict:** who then sees the new number: which of `"n1"`, `"n2"`, `"tuner"`, `"web"` (a container in `n2`)? Write a set.

# %% [markdown] lang="zh" of="d03e1d72"
# 限制和墙一样牢固，但得有人为*每一样*共用的东西去设置。而两台客户机从一开始就没有共用的进程表。
#
# ## 一个内核，一套设置
#
# 有个搜索引擎（Elasticsearch）要求 `vm.max_map_count` 为 262144，还要求用一个*特权 (privileged)* 容器来设置它。`n2` 里的 `tuner` 就这么做。
#
# **预测：** 之后谁会看到新的数：`"n1"`、`"n2"`、`"tuner"`、`"web"`（`n2` 里的容器）中的哪些？写一个集合。

# %%
sees = ...
lesson.predict(10, sees)

# %%
setting = "/proc/sys/vm/max_map_count"
tuner = n2.container("tuner", **idle, privileged=True)
print("web may not:", web.run(f"echo 262144 > {setting}").stderr.strip().split(": ")[-1])
tuner.exec(f"echo 262144 > {setting}")
counts = {place.name: place.run(f"cat {setting}").stdout.strip() for place in (n1, n2, tuner, web)}
print(counts)
lesson.check(10, sees)

# %% [markdown] lang="en"
# `web` has a setting that it never asked for; if it wanted another one, one of the two would be wrong. Only a kernel of one's own helps. And what did the word `privileged` open? Read what it leaves out:

# %% [markdown] lang="zh" of="60ccd042"
# `web` 得到了自己从没要求过的设置；假如它想要另一个值，两者中总有一个不如意。只有拥有自己的内核才能解决。那么 `privileged` 这个词打开了什么？读一读它去掉了哪些东西：

# %%
show_source(configuration)

# %% [markdown] lang="en"
# ## A panic
#
# The file /proc/sysrq-trigger takes commands for the kernel itself; `c` means: crash. From an ordinary container it can't be written.
#
# **Predict:** `tuner`, the privileged container in `n2`, does it. Which of `"tuner"`, `"web"`, `"n2"`, `"n1"`, `"c1"` (a container in `n1`) are still there afterwards? Write a set.

# %% [markdown] lang="zh" of="423d7044"
# ## 一次内核崩溃
#
# /proc/sysrq-trigger 这个文件接受给内核本身的命令；`c` 的意思是：崩溃。普通容器写不了它。
#
# **预测：** `n2` 里的特权容器 `tuner` 动手了。事后 `"tuner"`、`"web"`、`"n2"`、`"n1"`、`"c1"`（`n1` 里的容器）中哪些还在？写一个集合。

# %%
survivors = ...
lesson.predict(11, survivors)

# %%
def attempt(place, command):
    try:
        return place.run(command).stderr.strip() or "fine"
    except MachineError as error:
        return str(error).splitlines()[0]

for place in (web, tuner):
    print(place.name, "->", attempt(place, "echo c > /proc/sysrq-trigger"))
print({place.name: attempt(place, "true") == "fine" for place in (tuner, web, n2, n1, c1)})
lesson.check(11, survivors)

# %% [markdown] lang="en"
# How far the damage reaches is called the *blast radius*: of a container with a hole, all on its kernel; of a guest, itself. `n1` did not even notice. A hole in the *kernel* needs no `privileged` at all; that is why clouds don't put strangers on one kernel.
#
# ## Overhead
#
# `dd` with blocks of one byte makes 200,000 system calls of each kind, and nothing else. **Predict:** how much CPU time does it take in a container, compared with the guest itself: `"the same"`, `"twice"` or `"ten times"`?

# %% [markdown] lang="zh" of="ba6307c0"
# 损害波及的范围叫*爆炸半径 (blast radius)*：有漏洞的容器会波及同一内核上的所有人；客户机只波及自己。`n1` 甚至毫无察觉。如果漏洞在*内核*里，连 `privileged` 都不需要；所以云不会把互不相识的人放在同一个内核上。
#
# ## 开销 (overhead)
#
# 一字节一块的 `dd` 会发出 20 万次读和 20 万次写的系统调用，别的什么也不做。**预测：** 与直接在客户机里相比，它在容器里要用多少 CPU 时间：`"the same"`（一样）、`"twice"`（两倍）还是 `"ten times"`（十倍）？

# %%
share = ...
lesson.predict(12, share)

# %% tags=["nbval-ignore-output"]
def cpu_s(place, command):
    before = n1.stats.cpu_s  # what the guest's process has used, as your computer counts
    place.run(command)
    return n1.stats.cpu_s - before

bare = n1.container("bare", **idle, seccomp=None)
dd = "busybox dd if=/dev/zero of=/dev/null bs=1 count=200000"
cost = {place.name: min(cpu_s(place, dd) for _ in range(3)) for place in (n1, bare, c1)}
print({name: f"{value:.2f} s" for name, value in cost.items()})

# %%
print("without a filter of calls, within a third:", abs(cost["bare"] / cost["n1"] - 1) < 1 / 3)
print("with it, under twice:", cost["c1"] < 2 * cost["n1"])
lesson.check(12, share)

# %% [markdown] lang="en"
# A namespace is a pointer in the kernel's books, not a layer to pass through: it costs next to nothing. Only the filter (*seccomp*), which looks at each call, may show a little.
#
# **Predict:** the checksum of 32 MiB is computed in the guest, and by your computer itself (and once more in a container). How many times as much CPU time does the guest take?

# %% [markdown] lang="zh" of="5949197e"
# 命名空间只是内核账本里的一个指针，不是要穿过的一层，所以几乎不花时间。只有逐个检查调用的过滤器 (*seccomp*) 可能留下一点痕迹。
#
# **预测：** 32 MiB 数据的校验和，在客户机里算一次，再由你的计算机直接算一次（也在容器里算一次）。客户机用的 CPU 时间是后者的多少倍？

# %%
times_the_cpu = ...
lesson.predict(13, times_the_cpu)

# %% tags=["nbval-ignore-output"]
def own_cpu_s(command):
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, shell=True, check=True, capture_output=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
checksum = "head -c 33554432 /dev/zero | sha256sum"
guest_cpu = min(cpu_s(n1, checksum) for _ in range(2))
own_cpu = min(own_cpu_s(checksum) for _ in range(2))
same = "busybox dd if=/dev/zero bs=64k count=512 2>/dev/null | busybox sha256sum"
boxed, unboxed = (min(cpu_s(place, same) for _ in range(2)) for place in (bare, n1))
print(f"sha256sum: guest {guest_cpu:.2f} s, your computer {own_cpu:.2f} s")
print(f"busybox:   container {boxed:.2f} s, guest {unboxed:.2f} s")

# %%
print("guest: over twice the CPU time of the computer below:", guest_cpu > 2 * own_cpu)
print("container: within a third of the guest below:", abs(boxed / unboxed - 1) < 1 / 3)
lesson.check(13, times_the_cpu, measured=guest_cpu / own_cpu)

# %% [markdown] lang="en"
# This is the price of *emulation*: each instruction is translated. With the processor's help (KVM) a guest computes nearly at full speed, and that is what clouds use; our lessons translate, so that they run anywhere. The prices of start-up, memory and density remain.
#
# ## Your table
#
# All that you have measured, side by side:

# %% [markdown] lang="zh" of="ed309717"
# 这是*模拟 (emulation)* 的代价：每条指令都要翻译。有处理器的帮助 (KVM)，客户机几乎全速运行，云用的就是它；我们的课程用翻译，这样在哪里都能运行。启动、内存和密度的代价则依然存在。
#
# ## 你的表格
#
# 你测到的一切，并排放在一起：

# %% tags=["nbval-ignore-output"]
slower = guest_cpu / own_cpu
table = {
    "start, s": (container_s, restored_s, cold_s),
    "memory, MiB": (container_cost / MIB, restored_cost / MIB, cold_cost / MIB),
    "computing, times the CPU below": (boxed / unboxed, slower, slower),
    "density, programs of 10 MiB": tuple(fits(cost, 10) for cost in costs.values()),
}
print(f"{'':32}" + "".join(f"{name:>16}" for name in costs))
for row, values in table.items():
    print(f"{row:32}" + "".join(f"{value:16,.2f}" for value in values))

# %% tags=["nbval-ignore-output"]
def bars(column, colour, pattern):
    ratios = [row[column] / row[0] for row in table.values()]
    ratios[-1] = 1 / ratios[-1]  # of density, more is better
    return go.Bar(x=ratios, y=[row.split(",")[0] for row in table], name=list(costs)[column],
                  text=[f"{ratio:.0f} times" for ratio in ratios], orientation="h",
                  textposition="outside", marker_color=colour, marker_pattern_shape=pattern)

picture = go.Figure([bars(1, "#D55E00", ""), bars(2, "#8A8A8A", "/")]).update_layout(**plain)
picture.update_layout(title="How many times better a container is", height=320, margin_l=100)
picture.update_xaxes(type="log", dtick=1, range=[0, 3.3]).update_yaxes(autorange="reversed")

# %% [markdown] lang="en"
# **Exercise.** Complete the table with the rows that have no number. Who is better, `"container"` or `"guest"`: at start-up, in memory, in idle density, with a neighbour whose kernel panics, with kernel settings of one's own? A list of five.

# %% [markdown] lang="zh" of="ced2c82d"
# **练习。** 把没有数字的几行也补上。谁更好，`"container"`（容器）还是 `"guest"`（客户机）：启动、内存、空闲时的密度、邻居内核崩溃时、需要自己的内核设置时？写一个五项的列表。

# %%
better = [..., ..., ..., ..., ...]
lesson.check(14, better)

# %% [markdown] lang="en"
# ## Six decisions
#
# `"container"`, `"vm"`, or `"both"` (containers inside virtual machines)?
#
# - **A** Your company's own shop: 200 copies of one service on your own servers, their number following the load.
# - **B** A firm needs an old Windows program on its Linux servers.
# - **C** A cloud sells Kubernetes to a thousand customers who don't trust each other.
# - **D** A student develops a kernel driver that often panics.
# - **E** Each commit of your team's own code is tested in a clean environment that lives for 20 seconds.
# - **F** A bank runs its many small services on rented machines; each department must stay apart, and inside a department density counts.
#
# **Exercise.** Write a list of six, in this order.

# %% [markdown] lang="zh" of="c169cbc7"
# ## 六个决定
#
# `"container"`（容器）、`"vm"`（虚拟机），还是 `"both"`（虚拟机里的容器）？
#
# - **A** 你们公司自己的网店：同一个服务在自己的服务器上跑 200 份，份数跟随负载。
# - **B** 一家公司要在 Linux 服务器上使用一个老的 Windows 程序。
# - **C** 一家云厂商把 Kubernetes 卖给一千个互不信任的客户。
# - **D** 一名学生在开发内核驱动，常常导致内核崩溃。
# - **E** 团队自己的代码每次提交，都要在一个只存在 20 秒的干净环境里测试。
# - **F** 一家银行在租来的机器上运行许多小服务；各部门必须隔开，而部门内部看重密度。
#
# **练习。** 按此顺序写一个六项的列表。

# %%
choices = [..., ..., ..., ..., ..., ...]
lesson.check(15, choices)

# %% [markdown] lang="en"
# **Exercise: both, in numbers.** Ten customers have five programs each; a program needs 20 MiB, a container 1 MiB more, a guest 100 MiB more. 50 guests need 50 × 120 = 6000 MiB; 50 containers on one kernel 1050 MiB, with no wall between customers. How many MiB do ten guests need, one for each customer, with their five containers in it?

# %% [markdown] lang="zh" of="b618a418"
# **练习：用数字看“两者都用”。** 十个客户各有五个程序；一个程序要 20 MiB，一个容器另加 1 MiB，一台客户机另加 100 MiB。50 台客户机需要 50 × 120 = 6000 MiB；同一内核上的 50 个容器需要 1050 MiB，但客户之间没有墙。如果每个客户一台客户机，共十台，里面各放五个容器，一共需要多少 MiB？

# %%
both_mib = ...
lesson.check(16, both_mib)

# %% [markdown] lang="en"
# ## Summary
#
# A container starts nearly as fast as a process and weighs little more, because it is one. A virtual machine pays for a kernel of its own, in seconds and memory, and gets what only that gives: own settings, own crashes, a wall one dares to put strangers behind. Limits make neighbours bearable, not separate. So clouds run containers *in* virtual machines, as you have all along in this course.
#
# **Ask yourself:** why does a restored guest narrow the gap in time, and cost memory later? Which of your numbers would KVM change, and which not? What would you put into one guest together with your bank's programs?

# %% [markdown] lang="zh" of="e844f8fd"
# ## 小结
#
# 容器启动几乎和进程一样快，也重不了多少，因为它就是进程。虚拟机用时间和内存为自己的内核付费，换来只有内核才能给的东西：自己的设置、自己的崩溃，以及一堵敢把陌生人放在后面的墙。限制能让邻居变得可以忍受，却不能把他们分开。所以云把容器放*进*虚拟机里运行，你在这门课里也一直是这样做的。
#
# **问问自己：** 为什么恢复的客户机能缩小时间上的差距，却在之后付出内存？KVM 会改变你的哪些数字，不会改变哪些？你愿意把什么和银行的程序放进同一台客户机？

# %% [markdown] lang="en"
# **Terms.** cold start 冷启动 · restored 恢复的 · density 密度 · overhead 开销 · noisy neighbour 吵闹的邻居 · limit 限制 · blast radius 爆炸半径 · privileged 特权 · kernel panic 内核崩溃 · isolation 隔离 · emulation 模拟 · proportional set size (PSS) 按比例分摊的内存
#
# **Further reading:** Felter and others, *An Updated Performance Comparison of Virtual Machines and Linux Containers*, ISPASS (2015); Agache and others, *Firecracker: Lightweight Virtualization for Serverless Applications*, NSDI (2020); Manco and others, *My VM is Lighter (and Safer) than your Container*, SOSP (2017).
#
# How far did you get?

# %% [markdown] lang="zh" of="6a12693d"
# **术语。** 冷启动 cold start · 恢复的 restored · 密度 density · 开销 overhead · 吵闹的邻居 noisy neighbour · 限制 limit · 爆炸半径 blast radius · 特权 privileged · 内核崩溃 kernel panic · 隔离 isolation · 模拟 emulation · 按比例分摊的内存 proportional set size (PSS)
#
# **延伸阅读：** Felter 等，*An Updated Performance Comparison of Virtual Machines and Linux Containers*，ISPASS (2015)；Agache 等，*Firecracker: Lightweight Virtualization for Serverless Applications*，NSDI (2020)；Manco 等，*My VM is Lighter (and Safer) than your Container*，SOSP (2017)。
#
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
lesson.check(1, len(set(ids.values())))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, cold_s / container_s, measured=cold_s / container_s)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, "under half")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, ten / MIB, measured=ten / MIB)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, containers_fit, measured=containers_fit)

# %% tags=["solution"]
# A solution · 参考答案
# memory / (container + size) < 2 * memory / (guest + size), so size > guest - 2 * container
lesson.check(6, (restored_cost - 2 * container_cost) / MIB, measured=edge)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, "the largest")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, {"leak"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, False)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, {name for name, value in counts.items() if value == "262144"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, {"n1", "c1"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, "the same")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, guest_cpu / own_cpu, measured=guest_cpu / own_cpu)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(14, ["container"] * 3 + ["guest"] * 2)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(15, ["container", "vm", "both", "vm", "container", "both"])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(16, 10 * (100 + 5 * (20 + 1)))

# %% [markdown] lang="en"
# Closing the lab ends the guests, and with each of them its containers.

# %% [markdown] lang="zh" of="ba3c36e1"
# 关闭实验室会结束各台客户机，连同其中的容器。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
