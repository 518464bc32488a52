# ---
# jupyter:
#   cloudlab:
#     title: {en: "Control groups: what a process can use", zh: "CGroups：进程能用多少"}
#     minutes: 40
#     ids: ["3.06", "3.07"]
#     needs: ["0-ground/01-a-computer-inside-a-computer"]
# ---

# %% [markdown] lang="en"
# # Control groups: what a process can use
#
# In 40 minutes you will have given a program a fifth of a CPU, 32 MiB of memory, 20 processes and 1 MiB a second of a disk, by writing numbers into files; a bomb will have gone off, and nobody else will have noticed.
#
# You need the first lesson's words *host* and *guest*. Contents: a directory is a group · controllers · a CPU quota, live · weights · standing still · the library · memory · a fork bomb · a slow disk · a tree · the older version · exercises.

# %% [markdown] lang="zh" of="5689c79a"
# # CGroups：进程能用多少
#
# 四十分钟后，你只靠往文件里写数字，就能让一个程序只用五分之一个 CPU、32 MiB 内存、20 个进程，每秒只能写 1 MiB 磁盘；你还会引爆一颗“炸弹”，而旁人毫无察觉。
#
# 需要第一课里的两个词：*宿主机 (host)* 和 *客户机 (guest)*。内容：目录就是族群 · 控制器 · 实时看 CPU 配额 · 权重 · 冻结 · 函数库 · 内存 · fork 炸弹 · 变慢的磁盘 · 一棵树 · 旧版本 · 练习。

# %% [markdown] lang="en"
# **You will do:** limit CPU, memory, processes and disk by hand in the kernel's files, then with a library that writes the same files; meet the OOM killer; be refused by the kernel three times and find out why; repeat an experiment in both versions of control groups.
#
# **You will learn** the words *task*, *control group*, *hierarchy*, *subsystem* (*controller*), *quota*, *weight*, *throttling*, *OOM kill*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="ae39efb3"
# **你要做的：** 先在内核的文件里动手限制 CPU、内存、进程数和磁盘，再用写同样文件的函数库；见识 OOM killer；被内核拒绝三次，并弄清原因；在两个版本的 cgroup 里重复同一个实验。
#
# **你会学到** 这些词：*任务 (task)*、*控制族群 (control group)*、*层级 (hierarchy)*、*子系统 (subsystem)*（又称*控制器 (controller)*）、*配额 (quota)*、*权重 (weight)*、*节流 (throttling)*、*OOM kill*。看到 `...` 的地方，换成你自己的答案。

# %%
from statistics import median
from cloudlab import Cgroup, Lab, Lesson, MachineError, meters, show_source
from cloudlab.containers.cgroups import hierarchies
from cloudlab.containers.limits import parse_limits, settings

lesson = Lesson("3-containers/02-cgroups")
lab = Lab(accelerator="tcg")
n1 = lab.machine("n1", cpus=2)
print(n1.succeed("nproc").strip(), "CPUs;",
      "/sys/fs/cgroup is of type", n1.succeed("stat -fc %T /sys/fs/cgroup").strip())

# %% [markdown] lang="en"
# ## A directory is a group
#
# The whole interface is a file system. Make a directory under `/sys/fs/cgroup`, and the kernel makes a *control group*. It is never empty, not even for a moment:

# %% [markdown] lang="zh" of="db300654"
# ## 目录就是族群
#
# 全部接口就是一个文件系统。在 `/sys/fs/cgroup` 下建一个目录，内核就建立一个*控制族群 (control group)*。这个目录一刻也不会是空的：

# %%
print(n1.succeed("mkdir /sys/fs/cgroup/web; ls -C -w 90 /sys/fs/cgroup/web").rstrip())

# %% [markdown] lang="en"
# `cgroup.procs` holds the numbers of the processes in the group. Write a process's number there, and it moves in. The root group has all others. A process's own file, `/proc/PID/cgroup`, says where it is; `$$` is the shell's number, and `cat` is the shell's child:

# %% [markdown] lang="zh" of="6720099e"
# `cgroup.procs` 列出族群里的进程号。把一个进程号写进去，进程就搬进来。其余进程都在根族群里。进程自己的文件 `/proc/PID/cgroup` 说明它在哪里；`$$` 是 shell 的进程号，而 `cat` 是 shell 的子进程：

# %%
print("before:", n1.succeed("cat /proc/self/cgroup").strip())
move = "echo $$ > /sys/fs/cgroup/web/cgroup.procs"
print("after: ", n1.succeed(f"{move}; cat /proc/self/cgroup").strip())
print("its child's child:", n1.succeed(f"{move}; sh -c 'sh -c \"cat /proc/self/cgroup\"'").strip())

# %% [markdown] lang="en"
# Only the shell moved, and its children were born where it was then: **a child inherits its parent's group.** So a limit can't be escaped by starting more processes.
#
# **Predict:** now the child is born *first*, and its parent moves to `/web` afterwards. Where is the child: `"in /"` or `"in /web"`?

# %% [markdown] lang="zh" of="c6a38694"
# 搬家的只有 shell，它的子进程出生时，shell 在哪里，它们就在哪里：**子进程继承父进程的族群。** 所以靠多开进程是逃不出限制的。
#
# **预测：** 这次子进程*先*出生，父进程随后才搬到 `/web`。子进程在哪里：`"in /"` 还是 `"in /web"`？

# %%
child_is = ...
lesson.predict(1, child_is)

# %%
print(n1.succeed(f"sleep 100 & {move}; cat /proc/$!/cgroup; kill $!").strip())
lesson.check(1, child_is)

# %% [markdown] lang="en"
# ## Controllers are handed down
#
# Now the limit: `cpu.max` is the file for CPU time. Can we write it?

# %% [markdown] lang="zh" of="aa1c0e9c"
# ## 控制器要逐级下放
#
# 现在来设限制：管 CPU 时间的文件是 `cpu.max`。写得进去吗？

# %%
print(n1.fail("echo 20000 100000 > /sys/fs/cgroup/web/cpu.max").strip())
print("the root has:", n1.succeed("cat /sys/fs/cgroup/cgroup.controllers").strip())
print("web has:", n1.succeed("cat /sys/fs/cgroup/web/cgroup.controllers").strip() or "nothing")

# %% [markdown] lang="en"
# A *controller* (the lecture says *subsystem*) limits and counts one resource. A group has those that its parent hands down, by writing `+cpu` into the parent's `cgroup.subtree_control`:
# ```mermaid
# flowchart LR
#   accTitle: The four terms
#   accDescr: The hierarchy is the tree of groups. The root group hands the controllers cpu, memory, pids and io down to the groups web and batch. Tasks are in the groups.
#   subgraph hierarchy["hierarchy: one tree of groups"]
#     root["/ (control group)"] -->|"subsystems: cpu, memory, pids, io"| web["/web (control group)"]
#     root -->|"the same"| batch["/batch (control group)"]
#   end
#   web --- t1(["task"]) & t2(["task"])
#   batch --- t3(["task"])
# ```

# %% [markdown] lang="zh" of="3c0a7132"
# *控制器 (controller)*（讲义称*子系统 (subsystem)*）限制并统计一种资源。族群有哪些控制器，要看上一级下放了哪些：把 `+cpu` 写进上一级的 `cgroup.subtree_control`：
# ```mermaid
# flowchart LR
#   accTitle: 四个术语
#   accDescr: 层级是由族群组成的树。根族群把 cpu、memory、pids、io 控制器下放给族群 web 和 batch。任务在族群里。
#   subgraph hierarchy["层级：一棵由族群组成的树"]
#     root["/（控制族群）"] -->|"子系统：cpu、memory、pids、io"| web["/web（控制族群）"]
#     root -->|"同样的子系统"| batch["/batch（控制族群）"]
#   end
#   web --- t1(["任务"]) & t2(["任务"])
#   batch --- t3(["任务"])
# ```

# %%
n1.succeed("echo +cpu +cpuset +io +memory +pids > /sys/fs/cgroup/cgroup.subtree_control")
files = n1.succeed("ls /sys/fs/cgroup/web").split()
print("files of:", sorted({file.partition(".")[0] for file in files}))
print(n1.succeed("cd /sys/fs/cgroup/web; grep . cpu.max cpu.weight memory.max pids.max").strip())

# %% [markdown] lang="en"
# ## A CPU quota
#
# Now there are no limits (`max`). `20000 100000` in `cpu.max` means: of each period of 100,000 µs, all tasks of the group together may use 20,000 µs. The kernel itself counts what they have used, in `cpu.stat`.
#
# **Predict:** a program that never rests (`sha256sum /dev/zero`) runs in the group for three seconds. How many milliseconds of CPU time does it get?

# %% [markdown] lang="zh" of="fcd2b16b"
# ## CPU 配额
#
# 现在还没有限制（`max`）。在 `cpu.max` 里写 `20000 100000` 的意思是：每 100,000 µs 一个周期，族群里所有任务加起来可以用 20,000 µs。它们用了多少，内核自己记在 `cpu.stat` 里。
#
# **预测：** 一个从不休息的程序（`sha256sum /dev/zero`）在族群里跑三秒。它得到多少毫秒的 CPU 时间？

# %%
cpu_ms = ...
lesson.predict(2, cpu_ms)

# %%
def join(group, command):
    return n1.spawn(f"echo $$ > /sys/fs/cgroup/{group}/cgroup.procs; exec {command}")

def cpus_used(group):
    """CPU seconds per second, over three seconds."""
    look = f"cat /proc/uptime /sys/fs/cgroup/{group}/cpu.stat"  # UPTIME IDLE usage_usec USED …
    words = n1.succeed(f"{look}; sleep 3; {look}").split()
    before, after = words[:len(words) // 2], words[len(words) // 2:]
    return (int(after[3]) - int(before[3])) / 1e6 / (float(after[0]) - float(before[0]))

# %%
n1.succeed("echo 20000 100000 > /sys/fs/cgroup/web/cpu.max")
busy = join("web", "sha256sum /dev/zero")
print("within 15 % of the quota:", abs(cpus_used("web") / 0.2 - 1) < 0.15)
lesson.check(2, cpu_ms)

# %% [markdown] lang="en"
# In every period it runs until its quota is used up, and waits for the next. This is *throttling*, and the kernel counts the periods in which it happened:

# %% [markdown] lang="zh" of="02e24cb7"
# 每个周期里，它一直跑到配额用完，然后等下一个周期。这叫*节流 (throttling)*，发生过节流的周期，内核也记了数：

# %%
words = n1.succeed("cat /sys/fs/cgroup/web/cpu.stat").split()
counted = dict(zip(words[::2], map(int, words[1::2])))
print("throttled in nearly all periods:", counted["nr_throttled"] > 0.8 * counted["nr_periods"])
print("waited longer than it ran:", counted["throttled_usec"] > counted["usage_usec"])

# %% [markdown] lang="en"
# The same file, read once a second and drawn. Run this cell and the next one, and watch the CPU curve of `n1/web` go down two stairs:

# %% [markdown] lang="zh" of="6cb8001f"
# 每秒读一次同样的文件并画出来。运行这个单元和下一个，看 `n1/web` 的 CPU 曲线走下两级台阶：

# %% tags=["nbval-ignore-output"]
graph = meters(Cgroup(n1, "/web"), seconds=30)
graph

# %%
for quota, percent in (("max", 100), (50000, 50), (20000, 20)):
    n1.succeed(f"echo {quota} 100000 > /sys/fs/cgroup/web/cpu.max; sleep 4")
    stair = median(sample.cpu for sample in graph.samples[-3:])
    print(f"{quota:>5} of 100000: about {percent} %:", abs(stair - percent) < 15)
graph.stop()

# %% [markdown] lang="en"
# ## Weights, and a CPU of one's own
#
# A quota binds even when the CPU has nothing else to do. A *weight* (`cpu.weight`, usually 100) only says how neighbours share. We put two groups on the same CPU with `cpuset.cpus`, and give them the weights 300 and 100.
#
# **Predict:** how many percent of that CPU does `web`, with 300, get?

# %% [markdown] lang="zh" of="4b7ae560"
# ## 权重，以及固定的 CPU
#
# 就算 CPU 闲着没事，配额也照样生效。*权重 (weight)*（`cpu.weight`，通常是 100）只规定邻居之间怎么分。我们用 `cpuset.cpus` 把两个族群放到同一个 CPU 上，权重分别是 300 和 100。
#
# **预测：** 权重 300 的 `web` 得到这个 CPU 的百分之几？

# %%
percent = ...
lesson.predict(3, percent)

# %%
for group, weight in (("web", 300), ("batch", 100)):
    n1.succeed(f"mkdir -p /sys/fs/cgroup/{group}; cd /sys/fs/cgroup/{group};"
               f"echo 1 > cpuset.cpus; echo {weight} > cpu.weight; echo max > cpu.max")
neighbour = join("batch", "sha256sum /dev/zero")
web_gets, batch_gets = cpus_used("web"), cpus_used("batch")
print("web has three times as much, within 15 %:", abs(web_gets / batch_gets / 3 - 1) < 0.15)
print("CPUs that web may use:", n1.succeed(f"{move}; nproc").strip())
lesson.check(3, percent)

# %% [markdown] lang="en"
# ## Standing still
#
# Writing 1 into `cgroup.freeze` stops all tasks of a group, as a pause button does. They don't notice.
#
# **Predict:** `batch` is frozen. How much of their CPU does `web` get now, with its weight of 300: `"75 %"`, `"100 %"` or `"25 %"`?

# %% [markdown] lang="zh" of="422cd6a6"
# ## 冻结
#
# 把 1 写进 `cgroup.freeze`，族群里的所有任务就都停住，像按了暂停键。它们自己并不知道。
#
# **预测：** `batch` 被冻结了。权重 300 的 `web` 现在得到这个 CPU 的多少：`"75 %"`、`"100 %"` 还是 `"25 %"`？

# %%
alone = ...
lesson.predict(4, alone)

# %%
n1.succeed("echo 1 > /sys/fs/cgroup/batch/cgroup.freeze")
n1.wait_until_succeeds("grep 'frozen 1' /sys/fs/cgroup/batch/cgroup.events")
print(f"CPUs used: batch {cpus_used('batch'):.0f}, web {cpus_used('web'):.0f}")
n1.succeed("echo 0 > /sys/fs/cgroup/batch/cgroup.freeze")
print(f"thawed, batch goes on: {cpus_used('batch') > 0.2}")
lesson.check(4, alone)

# %% [markdown] lang="en"
# How does a group end? A group with processes can't be removed: the kernel's first refusal. `cgroup.kill` ends all that is in it, and `cgroup.events` says when it is empty:

# %% [markdown] lang="zh" of="c5e79b04"
# 族群怎么结束？里面还有进程的族群不能删：这是内核的第一次拒绝。`cgroup.kill` 结束里面的一切，`cgroup.events` 说明它何时变空：

# %%
print(n1.fail("rmdir /sys/fs/cgroup/web").strip())
for group in ("web", "batch"):
    n1.succeed(f"echo 1 > /sys/fs/cgroup/{group}/cgroup.kill")
    n1.wait_until_succeeds(f"grep 'populated 0' /sys/fs/cgroup/{group}/cgroup.events")
    n1.succeed(f"rmdir /sys/fs/cgroup/{group}")
print("groups left:", n1.succeed("cd /sys/fs/cgroup; find . -mindepth 1 -type d").split())

# %% [markdown] lang="en"
# ## The library writes the same files
#
# You know all that our class `Cgroup` does. `create` is `mkdir` and `subtree_control`, and `limit` is this:

# %% [markdown] lang="zh" of="55436ee2"
# ## 函数库写的是同样的文件
#
# 我们的 `Cgroup` 类所做的，你已经全知道了。`create` 就是 `mkdir` 加 `subtree_control`，而 `limit` 是这样的：

# %%
web = Cgroup(n1, "/web").create(memory="32M", pids=20)
for file in ("memory.max", "pids.max", "cpu.max"):
    print(f"{file:10} {web.files()[file]}")
show_source(Cgroup.limit, Cgroup.add)

# %% [markdown] lang="en"
# ## Too much memory
#
# `web` may have 32 MiB. `dd bs=64M` wants 64 MiB in one piece, and gets it everywhere else.
#
# **Predict:** with which exit status does it end in `web`? (A shell reports 128 + N for a program that was ended by signal N; `SIGKILL` is 9.)

# %% [markdown] lang="zh" of="b410c051"
# ## 内存太多
#
# `web` 可以用 32 MiB。`dd bs=64M` 一次就要 64 MiB，在别处都能得到。
#
# **预测：** 它在 `web` 里结束时的退出码是多少？（程序被 N 号信号结束时，shell 报告 128 + N；`SIGKILL` 是 9 号。）

# %%
exit_status = ...
lesson.predict(5, exit_status)

# %%
TAKES_64M = "dd if=/dev/zero of=/dev/null bs=64M count=1"
print("outside:", n1.run(TAKES_64M).exit_status, "| in web:", web.run(TAKES_64M).exit_status)
print("oom_kill in memory.events:", web.stats().memory_events["oom_kill"])
print(n1.succeed("dmesg | grep -o 'oom-kill:.*task=dd' | tail -1 | tr , ' '").strip())
lesson.check(5, exit_status)

# %% [markdown] lang="en"
# *OOM* is "out of memory". The guest had plenty: it was the *group* (`oom_memcg=/web`) that had none. A gentler limit is `memory.high`.
#
# **Predict:** `web` gets no `memory.max`, but a `memory.high` of 16 MiB, and a program takes 17 MiB. Is it `"killed"`, `"slowed"` or `"left alone"`?

# %% [markdown] lang="zh" of="745f3a23"
# *OOM* 即“内存耗尽 (out of memory)”。客户机的内存还多得很：没有内存的是这个*族群*（`oom_memcg=/web`）。更温和的限制是 `memory.high`。
#
# **预测：** `web` 不设 `memory.max`，但 `memory.high` 为 16 MiB，有个程序要用 17 MiB。它会被 `"killed"`（杀死）、`"slowed"`（拖慢）还是 `"left alone"`（不受影响）？

# %%
fate = ...
lesson.predict(6, fate)

# %%
takes_17m = "dd if=/dev/zero of=/dev/null bs=17M count=1"
web.limit(memory="max")
free = web.run(takes_17m)
web.limit(memory_high="16M")
bound = web.run(takes_17m)
print("exit status without and with:", free.exit_status, bound.exit_status)
print("took a second more:", bound.duration_s > free.duration_s + 1,
      "| counted in memory.events:", web.stats().memory_events["high"] > 0)
lesson.check(6, fate)

# %% [markdown] lang="en"
# ## A fork bomb fizzles
#
# `bomb` is a function that starts two of itself in the background, each of which starts two… On a computer without limits, that is the end: nobody can start even a `kill` any more.
#
# **Predict:** `pids.max` of `web` is 20. How many processes does the group have when the bomb is at its largest?

# %% [markdown] lang="zh" of="636e63f4"
# ## 哑火的 fork 炸弹
#
# `bomb` 是一个函数，在后台启动两个自己，每一个又启动两个……在没有限制的计算机上，这就完了：谁也再启动不了哪怕一个 `kill`。
#
# **预测：** `web` 的 `pids.max` 是 20。炸弹最盛时，族群里有多少个进程？

# %%
largest = ...
lesson.predict(7, largest)

# %%
bomb = web.spawn("bomb() { bomb | bomb & }; bomb; sleep 100")
n1.wait_until_succeeds("grep 'max [1-9]' /sys/fs/cgroup/web/pids.events")
print("at most:", web.files()["pids.peak"], "| forks refused:", web.stats().pids_refused > 0)
print("the bomb says that it can't fork:", "Cannot fork" in bomb.stderr)
print("the rest of the guest:", n1.succeed("echo as if nothing had happened").strip())
web.kill()
print("left after web.kill():", web.processes)
n1.wait_until_succeeds("grep -x 0 /sys/fs/cgroup/web/pids.current")  # init buries the dead
lesson.check(7, largest)

# %% [markdown] lang="en"
# ## A slow disk
#
# We plug a disk into the running guest. `io.max` takes the disk's numbers and, among others, `wbps`: bytes written per second. `oflag=direct` makes `dd` write to the disk itself, not to memory.
#
# **Predict:** how many seconds do 4 MiB take at 1 MiB a second?

# %% [markdown] lang="zh" of="77198097"
# ## 变慢的磁盘
#
# 我们给运行中的客户机插上一块磁盘。`io.max` 里写磁盘的设备号和速率，例如 `wbps`：每秒写入的字节数。`oflag=direct` 让 `dd` 直接写磁盘，而不是写到内存里。
#
# **预测：** 以每秒 1 MiB 的速率，4 MiB 要写几秒？

# %%
seconds = ...
lesson.predict(8, seconds)

# %%
disk = n1.plug(disk="64M").guest_name
device = n1.succeed(f"lsblk -dno MAJ:MIN {disk}").strip()
writes = f"dd if=/dev/zero of={disk} bs=64k count=64 oflag=direct"
fast = web.run(writes).duration_s
n1.succeed(f"echo {device} wbps={1 << 20} > /sys/fs/cgroup/web/io.max")
slow = web.run(writes).duration_s
print(device, "| without a limit, under a second:", fast < 1, "| about 4 s with:", 3.2 < slow < 4.8)
print("io.stat of both runs:", web.stats().io[device].written_bytes >> 20, "MiB written")
lesson.check(8, seconds)

# %% [markdown] lang="en"
# ## Groups in groups
#
# The groups of a hierarchy are a tree. A process works in `web`; now `web` shall have a part of its own, `web/php`, with a memory limit.
#
# **Predict:** does the kernel hand `memory` down from a group that has processes itself: `True` or `False`?

# %% [markdown] lang="zh" of="98b2133e"
# ## 族群里的族群
#
# 一个层级里的族群构成一棵树。有个进程在 `web` 里工作；现在要给 `web` 分出一部分 `web/php`，单独限制内存。
#
# **预测：** 一个自己有进程的族群，内核允许它把 `memory` 下放吗：`True` 还是 `False`？

# %%
allowed = ...
lesson.predict(9, allowed)

# %%
worker = web.spawn("exec sleep 1000")
print(n1.fail("/bin/echo +memory > /sys/fs/cgroup/web/cgroup.subtree_control").strip())
try:
    web.child("php").create(memory="16M")
except MachineError as error:
    print(error)
lesson.check(9, allowed)

# %% [markdown] lang="en"
# This second refusal is the *no internal processes* rule of v2: processes live in the leaves, so that a group never competes with its own parts. We start again, with leaves only. What is used below is counted above:

# %% [markdown] lang="zh" of="d8acb228"
# 第二次拒绝来自 v2 的*内部节点无进程 (no internal processes)* 规则：进程都住在叶子上，这样族群就不会和自己的下级竞争。我们重新来，只把进程放在叶子里。下面用掉的，都计在上面：

# %%
web.remove()
web = Cgroup(n1, "/web").create(memory="64M")
php, sql = (web.child(name).create(memory="128M") for name in ("php", "sql"))
for group, mib in ((php, 4), (sql, 8)):
    group.run(f"head -c {mib}M /dev/zero | sha256sum")
below = php.stats().cpu_s + sql.stats().cpu_s
print("both have used some:", min(php.stats().cpu_s, sql.stats().cpu_s) > 0,
      "| web's count is their sum:", abs(web.stats().cpu_s - below) < 0.02)

# %% [markdown] lang="en"
# **Predict:** `web` may have 64 MiB, and its part `php`, so its own file says, 128 MiB. How many MiB can a program in `php` really have?

# %% [markdown] lang="zh" of="f30d0cc8"
# **预测：** `web` 可以用 64 MiB；它的下级 `php`，按自己的文件所说，可以用 128 MiB。`php` 里的程序实际最多能用多少 MiB？

# %%
really = ...
lesson.predict(10, really)

# %%
for mib in (40, 100):
    result = php.run(f"dd if=/dev/zero of=/dev/null bs={mib}M count=1")
    print(f"{mib} MiB in php:", "killed" if result.exit_status == 137 else "fine")
for node in web.tree():
    print(f"{node.path:9} limit {node.limits.memory >> 20:3} MiB, OOM kills {node.stats.oom_kills}")
lesson.check(10, really)

# %% [markdown] lang="en"
# ## The older version
#
# All of this was version 2 (2016). The lecture, and many a server, shows version 1 (2008). A guest can be started in it.
#
# **Predict:** v2 has one hierarchy for all subsystems. How many has v1: `"one"`, `"two"` or `"one for each subsystem"`?

# %% [markdown] lang="zh" of="9938aaac"
# ## 旧版本
#
# 以上都是第 2 版（2016 年）。讲义以及许多服务器用的是第 1 版（2008 年）。客户机也可以用第 1 版启动。
#
# **预测：** v2 的所有子系统共用一个层级。v1 有几个层级：`"one"`（一个）、`"two"`（两个）还是 `"one for each subsystem"`（每个子系统一个）？

# %%
trees = ...
lesson.predict(11, trees)

# %%
old = lab.machine("old", cpus=2, cgroups="v1")
for machine in (n1, old):
    found = hierarchies(machine)
    print(machine.name, "hierarchies:", len(found), "| first:", found[0].controllers)
print(*sorted(old.succeed("ls /sys/fs/cgroup").split()))
lesson.check(11, trees)

# %% [markdown] lang="en"
# So a task is in *several* groups at once, one in each hierarchy. Its number goes into the file `tasks`. Here a shell joins a group of the hierarchy `cpu` and of no other; then it makes a group *below* its own, which v1 allows:

# %% [markdown] lang="zh" of="43edb0a7"
# 因此一个任务同时在*多个*族群里，每个层级一个。它的编号写进 `tasks` 文件。这里，一个 shell 加入 `cpu` 层级的一个族群，别的层级都不加入；然后它在自己的族群*下面*又建一个族群，v1 允许这样做：

# %%
said = old.succeed("""mkdir /sys/fs/cgroup/cpu/web
cd /sys/fs/cgroup/cpu/web; echo $$ > tasks; echo 20000 > cpu.cfs_quota_us
mkdir php; echo 10000 > php/cpu.cfs_quota_us
grep -E ':(cpu|memory|pids):' /proc/self/cgroup; rmdir php""")
old.succeed("rmdir /sys/fs/cgroup/cpu/web")
print(said.strip())

# %% [markdown] lang="en"
# The third refusal. **Predict:** a new group in the hierarchy `cpuset`, and a task that wants to join: the kernel says "No space left on device". Of what is there none: `"disk"`, `"memory"` or `"CPUs"`?

# %% [markdown] lang="zh" of="7c82dc2b"
# 第三次拒绝。**预测：** 在 `cpuset` 层级里新建一个族群，一个任务想加入，内核却说 “No space left on device”（设备上没有空间）。到底缺什么：`"disk"`（磁盘）、`"memory"`（内存）还是 `"CPUs"`？

# %%
lacking = ...
lesson.predict(12, lacking)

# %%
cpuset = "/sys/fs/cgroup/cpuset/web"
print(old.fail(f"mkdir {cpuset}; /bin/echo $$ > {cpuset}/tasks").strip())
print("its CPUs:", old.succeed(f"cat {cpuset}/cpuset.cpus").split())
old.succeed(f"cd {cpuset}; echo 0 > cpuset.cpus; echo 0 > cpuset.mems")
print("now it runs on", old.succeed(f"echo $$ > {cpuset}/tasks; nproc").strip(), "CPU")
old.succeed(f"rmdir {cpuset}")
lesson.check(12, lacking)

# %% [markdown] lang="en"
# The same limits, and which files say them in each version:

# %% [markdown] lang="zh" of="9011b75a"
# 同样的限制，在两个版本里各由哪些文件表达：

# %%
limits = parse_limits(cpus=0.2, cpu_weight=300, memory="32M", pids=20)
for version in (2, 1):
    for setting in settings(version, limits):
        print(f"v{version}  {setting.controller:7} {setting.file:22} {setting.value}")

# %% [markdown] lang="en"
# And the same experiment in both. The library's words are the same; only the files differ:

# %% [markdown] lang="zh" of="62d3fb59"
# 再在两个版本里做同一个实验。函数库的用法一样，只是文件不同：

# %%
for machine in (n1, old):
    same = Cgroup(machine, "/same").create(cpus=0.2, memory="32M")
    killed = same.run(TAKES_64M).exit_status
    same.spawn("exec sha256sum /dev/zero")
    before = same.stats()
    machine.run("sleep 3")
    used = same.stats().cpus_since(before)
    print(f"v{same.version}: exit status {killed}, OOM kills {same.stats().oom_kills},",
          "within 15 % of the quota:", abs(used / 0.2 - 1) < 0.15)
    same.remove()

# %% [markdown] lang="en"
# ## Exercises
#
# 1. **A dictionary.** An old script says `memory.limit_in_bytes`, `cpu.shares` and `cpu.cfs_quota_us`. Which files of v2 say the same? A list of three, in this order.
# 2. **One CPU and a half.** Two programs that never rest are in `/pair`. Write the line for `cpu.max` with which they get 1.5 CPUs together, with the usual period.

# %% [markdown] lang="zh" of="0adcb9ea"
# ## 练习
#
# 1. **对照词典。** 一个旧脚本里写着 `memory.limit_in_bytes`、`cpu.shares` 和 `cpu.cfs_quota_us`。v2 里是哪些文件说同样的事？按此顺序写一个三项的列表。
# 2. **一个半 CPU。** `/pair` 里有两个从不休息的程序。写出 `cpu.max` 里的那一行，用通常的周期，让它们合起来得到 1.5 个 CPU。

# %%
lesson.check(13, [..., ..., ...])

# %%
def granted(line):
    pair = Cgroup(n1, "/pair").create(unified={"cpu.max": line})
    for _ in range(2):
        pair.spawn("exec sha256sum /dev/zero")
    used = cpus_used("pair")
    pair.remove()
    return used

line = ...
lesson.check(14, ... if line is ... else granted(line))

# %% [markdown] lang="en"
# 3. **Who is it?** Four programs run in groups below `/zoo`; one of them never rests, and makes the guest hot. Find its group by what the groups have used, not by looking at their processes. Write its name.

# %% [markdown] lang="zh" of="4dd7c397"
# 3. **是谁干的？** `/zoo` 下面的族群里各跑着一个程序；其中一个从不休息，把客户机烤得发烫。不看进程，只凭各族群的用量找出它所在的族群，写出名字。

# %%
zoo, names = Cgroup(n1, "/zoo").create(), ["ant", "bee", "cat", "dog"]
never_rests = lesson.pick("never rests", names)
for name in names:
    command = "sha256sum /dev/zero" if name == never_rests else "sleep 1000"
    zoo.child(name).create(cpus=0.1).spawn(f"exec {command}")
n1.run("sleep 1")
found = ...  # a name; node.path and node.stats, for each node of zoo.tree(), lead to it
lesson.check(15, found, measured=never_rests)

# %% [markdown] lang="en"
# 4. **Move out.** A process is in `/shop`, and `/shop/till` shall get it with a limit of 16 MiB. Four steps are needed, and the kernel takes them all in one order only. Write it as a text of four letters.

# %% [markdown] lang="zh" of="81660743"
# 4. **搬家。** 一个进程在 `/shop` 里，现在要让它住进限 16 MiB 的 `/shop/till`。需要四步，而且只有一种顺序内核才会全部接受。把这个顺序写成四个字母的文本。

# %%
STEPS = {"A": "echo 16M > till/memory.max", "B": "/bin/echo +memory > cgroup.subtree_control",
         "C": "mkdir till", "D": "cat cgroup.procs > till/cgroup.procs"}

def limit_after(order):
    shop = Cgroup(n1, "/shop").create()
    shop.spawn("exec sleep 1000")
    steps = ["set -e; cd /sys/fs/cgroup/shop", *map(STEPS.get, order), "cat till/memory.max"]
    result = n1.run("\n".join(steps))
    shop.remove()
    return (result.stdout or result.stderr).strip()
order = ...
lesson.check(16, ... if order is ... else limit_after(order))

# %% [markdown] lang="en"
# ## Summary
#
# A control group is a directory, a limit is a number in a file, and membership is inherited. Quotas bind always, weights only when neighbours compete. Too much CPU or disk is *waited for*, too much memory is *killed*, too many processes are *refused*. What is used below counts above, and the tightest limit on the way up binds. A container is namespaces (what it sees) and this (what it may use).
#
# **Ask yourself:** why is a program over its memory limit not just made to wait? Which limit would have saved you from your last runaway program? Why can one hierarchy say "no internal processes", when many could not?

# %% [markdown] lang="zh" of="37315bb7"
# ## 小结
#
# 控制族群是一个目录，限制是文件里的一个数字，成员身份会被继承。配额总是生效，权重只在邻居竞争时起作用。CPU 或磁盘用多了要*等*，内存用多了被*杀*，进程多了被*拒*。下面用掉的计在上面，向上一路中最紧的限制说了算。容器就是命名空间（能看见什么）加上它（能用多少）。
#
# **问问自己：** 程序超出内存限制时，为什么不干脆让它等？上一次遇到失控的程序，哪种限制能救你？为什么只有一个层级时可以规定“内部节点无进程”，层级多了就不行？

# %% [markdown] lang="en"
# | term | 中文 | in v2 | in v1 |
# |---|---|---|---|
# | task | 任务 | a process in `cgroup.procs` | a thread in `tasks` |
# | control group | 控制族群 | a directory | a directory in each hierarchy |
# | hierarchy | 层级 | one tree | a tree for each subsystem |
# | subsystem, controller | 子系统，控制器 | handed down by `subtree_control` | in all groups of its tree |
#
# **Further reading:** `man 7 cgroups`; the kernel's *Control Group v2* (Documentation/admin-guide/cgroup-v2.rst) and *cgroup-v1/*; T. Heo's section "Issues with v1 and Rationales for v2" at its end.

# %% [markdown] lang="zh" of="aead4d15"
# | 术语 | English | 在 v2 里 | 在 v1 里 |
# |---|---|---|---|
# | 任务 | task | `cgroup.procs` 里的一个进程 | `tasks` 里的一个线程 |
# | 控制族群 | control group | 一个目录 | 每个层级里各一个目录 |
# | 层级 | hierarchy | 一棵树 | 每个子系统一棵树 |
# | 子系统，控制器 | subsystem, controller | 由 `subtree_control` 下放 | 在其树的所有族群里 |
#
# **延伸阅读：** `man 7 cgroups`；内核文档 *Control Group v2*（Documentation/admin-guide/cgroup-v2.rst）和 *cgroup-v1/*；前者末尾 T. Heo 写的 “Issues with v1 and Rationales for v2” 一节。

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
lesson.check(1, "in /")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, 3 * 10 * 20)  # 3 s of ten periods, 20 ms in each

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, 100 * 300 / (300 + 100))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, "100 %")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, 128 + 9)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, "slowed")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, 20)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, 4)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, False)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, 64)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, "one for each subsystem")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, "CPUs")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, ["memory.max", "cpu.weight", "cpu.max"])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(14, granted("150000 100000"))

# %% tags=["solution"]
# A solution · 参考答案
used = {node.path.rpartition("/")[2]: node.stats.cpu_s for node in zoo.tree()[1:]}
lesson.check(15, max(used, key=used.get), measured=never_rests)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(16, limit_after("CDBA"))

# %% [markdown] lang="en"
# Closing the lab ends both guests, and with them every group.

# %% [markdown] lang="zh" of="4360181b"
# 关闭实验室会结束两台客户机，连同其中的所有族群。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
