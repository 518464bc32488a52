# ---
# jupyter:
#   cloudlab:
#     title: {en: "Namespaces: what a process can see", zh: "Namespace：进程能看见什么"}
#     minutes: 40
#     partly: ["3.02"]
#     ids: ["3.05"]
#     needs: ["0-ground/01-a-computer-inside-a-computer"]
# ---

# %% [markdown] lang="en"
# # Namespaces: what a process can see
#
# In 40 minutes you will have made a process believe that it is the first one, alone on a computer with a name, files, a network and a root of its own, while it is one of many on yours.
#
# You need the first lesson's words *host* and *guest*. Contents: a name of one's own · PID 1 and its trap · mounts · the other five kinds · raw system calls · the library · numbers within numbers · what keeps a namespace alive · what is not isolated · exercises.

# %% [markdown] lang="zh" of="b3f4d2e1"
# # Namespace：进程能看见什么
#
# 四十分钟后，你会让一个进程相信：自己是第一个进程，独占一台计算机，有自己的主机名、文件、网络和 root。而它其实只是你机器上众多进程中的一个。
#
# 需要第一课里的两个词：*宿主机 (host)* 和 *客户机 (guest)*。内容：自己的主机名 · PID 1 和它的陷阱 · 挂载 · 其余五种 · 直接发系统调用 · 函数库 · 编号里的编号 · 什么让命名空间活着 · 什么没有被隔离 · 练习。

# %% [markdown] lang="en"
# **You will do:** use `unshare` and `nsenter` by hand, then make their system calls yourself, then let twenty lines of a library do it; fall into two famous traps; join the namespaces of another process.
#
# **You will learn** the words *namespace*, *isolation*, *PID 1*, *mount propagation*, *user mapping*, *unshare*, *setns*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="09576af5"
# **你要做的：** 先用 `unshare` 和 `nsenter` 动手做，再自己发出它们所用的系统调用，最后交给函数库里的二十行代码；掉进两个著名的陷阱；加入另一个进程的命名空间。
#
# **你会学到** 这些词：*命名空间 (namespace)*、*隔离 (isolation)*、*1 号进程 (PID 1)*、*挂载传播 (mount propagation)*、*用户映射 (user mapping)*、*unshare*、*setns*。看到 `...` 的地方，换成你自己的答案。

# %%
from cloudlab import Lab, Lesson, show_source, terminal
from cloudlab.containers.calls import CallError
from cloudlab.containers.namespaces import KINDS, compare, create, creation
from cloudlab.containers.namespaces import enter, entering, matrix, namespaces_of
from cloudlab.containers.namespaces import not_isolated, processes, tree
from cloudlab.containers.process import Process
from cloudlab.containers.syscalls import Clone, Open

lesson = Lesson("3-containers/01-namespaces")
lab = Lab(accelerator="tcg")

# %% [markdown] lang="en"
# ## A name of one's own
#
# A container has no computer of its own. It is a process of an ordinary Linux, and what it sees goes through *namespaces*:
# ```mermaid
# flowchart LR
#   accTitle: Two processes, one kernel
#   accDescr: Two processes have host names of their own, each from a UTS namespace of its own, and share one network namespace. All namespaces are in one kernel.
#   p["a process"] --> u1["UTS: the name is n1"]
#   q["another process"] --> u2["UTS: the name is box"]
#   p & q --> net["net: lo, eth0"]
#   u1 & u2 & net --> kernel["one kernel"]
# ```
# Every process is in one namespace of each kind; the kernel shows them as links:

# %% [markdown] lang="zh" of="01c4d60e"
# ## 自己的主机名
#
# 容器没有自己的计算机。它只是普通 Linux 上的一个进程，它看到的一切都要经过*命名空间 (namespace)*：
# ```mermaid
# flowchart LR
#   accTitle: 两个进程，一个内核
#   accDescr: 两个进程各在自己的 UTS 命名空间里，因此主机名不同；它们共用一个网络命名空间。所有命名空间都在同一个内核里。
#   p["一个进程"] --> u1["UTS：名字是 n1"]
#   q["另一个进程"] --> u2["UTS：名字是 box"]
#   p & q --> net["net：lo、eth0"]
#   u1 & u2 & net --> kernel["同一个内核"]
# ```
# 每种命名空间，每个进程都恰好身处其中一个；内核用链接把它们显示出来：

# %%
n1 = lab.machine("n1")
print(n1.succeed("ls /proc/self/ns"))
print("two processes, one namespace:",
      n1.succeed("readlink /proc/self/ns/uts") == n1.succeed("readlink /proc/1/ns/uts"))

# %% [markdown] lang="en"
# *(`pid_for_children` and `time_for_children` say where a process's children will be born; so there are eight kinds.)*
#
# `unshare --uts` starts a program in a new *UTS* namespace: that of the host name. **Predict:** inside, somebody calls the computer `box`. What does `hostname` say outside, at the same time? Write a text.

# %% [markdown] lang="zh" of="9dde37e1"
# *（`pid_for_children` 和 `time_for_children` 说的是子进程将出生在哪里；所以一共是八种。）*
#
# `unshare --uts` 在一个新的 *UTS* 命名空间（管主机名的那一种）里启动程序。**预测：** 有人在里面把计算机改名为 `box`。与此同时，外面的 `hostname` 显示什么？写一个文本。

# %%
name_outside = ...
lesson.predict(1, name_outside)

# %%
n1.console.enter("unshare --uts bash -l")
n1.console.enter("hostname box; exec bash -l")
print("inside: ", n1.console.enter("hostname"))
print("outside:", n1.succeed("hostname").strip())
n1.console.enter("exit")
print("after:  ", n1.console.enter("hostname"))
lesson.check(1, name_outside)

# %% [markdown] lang="en"
# That was typed on the console of `n1`. Type it there yourself: `unshare --uts bash -l`, then `hostname box`, `hostname`, and `exit` to come back.

# %% [markdown] lang="zh" of="42406f52"
# 这些是在 `n1` 的控制台上输入的。你也亲手试试：`unshare --uts bash -l`，然后 `hostname box`、`hostname`，最后用 `exit` 回来。

# %% tags=["nbval-ignore-output"]
terminal(n1, rows=10)

# %% [markdown] lang="en"
# **Exercise.** Which namespaces does `unshare --uts` change? Run the cell, and write in place of the dots in how many of the eight such a process is apart from the rest of `n1`.

# %% [markdown] lang="zh" of="4cdb2350"
# **练习。** `unshare --uts` 改变了哪些命名空间？运行单元，再把省略号换成：这样的进程在八个命名空间里有几个与 `n1` 的其他进程不同。

# %%
links = "readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in KINDS)
outside, inside = n1.succeed(links).split(), n1.succeed("unshare --uts " + links).split()
for kind, a, b in zip(KINDS, outside, inside):
    print(f"{kind:7}", "the same" if a == b else "another one")

apart = ...
lesson.check(2, apart)

# %% [markdown] lang="en"
# ## PID 1, and a trap
#
# `unshare --pid --fork` makes a new *PID* namespace and starts a program as its first process. **Predict:** in there we run `ps -e`. What does it list: `"only its own"` processes, or `"all of n1"`?

# %% [markdown] lang="zh" of="ccb12cd8"
# ## PID 1 与一个陷阱
#
# `unshare --pid --fork` 建立一个新的 *PID* 命名空间，并启动一个程序作为其中的第一个进程。**预测：** 我们在里面运行 `ps -e`。它列出什么：`"only its own"`（只有自己的进程）还是 `"all of n1"`（n1 的全部进程）？

# %%
listed = ...
lesson.predict(3, listed)

# %%
print(n1.succeed("unshare --pid --fork sh -c 'echo I am number $$; ps -o pid,args -p 1'"))
print("ps lists over 20:", int(n1.succeed("unshare --pid --fork ps -e | wc -l")) > 20)
lesson.check(3, listed)

# %% [markdown] lang="en"
# The shell *is* number 1, and `ps` swears that number 1 is `init`: it read the wrong book. A /proc shows the processes of the PID namespace in which it was mounted, so the inside needs one of its own. And as a mount in the common tree would spoil it for everybody, it needs a mount namespace too:

# %% [markdown] lang="zh" of="6543c23b"
# 这个 shell *确实*是 1 号，`ps` 却一口咬定 1 号是 `init`：它读错了书。/proc 显示的是挂载它时所在的那个 PID 命名空间的进程，所以里面需要一个自己的 /proc。而在公共的目录树上挂载会影响所有人，所以还需要一个挂载命名空间：

# %%
by_hand = "mount -t proc proc /proc; ps -eo pid,args"
print(n1.succeed(["unshare", "--pid", "--fork", "--mount", "sh", "-c", by_hand]))
print(n1.succeed("unshare --pid --fork --mount-proc ps -eo pid,args  # the same, in short"))

# %% [markdown] lang="en"
# `ps` shows PID 1, and nothing else is left of `n1`. But number 1 is special. **Predict:** a shell that is PID 1 sends *itself* the signal that nobody survives, `kill -9 1`. What happens: `"it dies"` or `"nothing"`?

# %% [markdown] lang="zh" of="60eeb855"
# `ps` 显示 PID 1，`n1` 的其他一切都不见了。不过 1 号很特殊。**预测：** 身为 PID 1 的 shell 给*自己*发出谁也扛不住的信号 `kill -9 1`。会发生什么：`"it dies"`（它死掉）还是 `"nothing"`（什么也不发生）？

# %%
signal = ...
lesson.predict(4, signal)

# %%
ultimatum = "kill -9 1; echo still here, as number $$"
print(n1.run(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", ultimatum]).stdout)
lesson.check(4, signal)

# %% [markdown] lang="en"
# ## Mounts
#
# A new *mount* namespace begins as a copy of the table of mounts. From then on each goes its own way: what is mounted inside is not seen outside.
#
# Break it. A mount can be marked *shared*: then mounts below it spread to all copies (on most desktops all are shared, so that a USB stick appears everywhere). `unshare` prevents that quietly, unless told `--propagation unchanged`.
#
# **Predict:** we share /mnt, and mount inside. Is the file seen outside then? `True` or `False`?

# %% [markdown] lang="zh" of="591f0764"
# ## 挂载
#
# 新的*挂载 (mount)* 命名空间一开始是挂载表的一份副本。从此以后各走各的路：在里面挂载的，外面看不到。
#
# 弄坏它。挂载点可以标记为*共享 (shared)*：这样在它下面的挂载会传播到所有副本（多数桌面系统全都是共享的，U 盘才会到处可见）。`unshare` 会悄悄阻止传播，除非指定 `--propagation unchanged`。
#
# **预测：** 我们把 /mnt 设为共享，再在里面挂载。这时外面能看到那个文件吗？`True` 还是 `False`？

# %%
leaks = ...
lesson.predict(5, leaks)

# %%
hide = "mount -t tmpfs none /mnt; touch /mnt/secret; ls /mnt"
print("inside: ", n1.succeed(["unshare", "--mount", "sh", "-c", hide]).split())
print("outside:", n1.succeed("ls /mnt").split())
n1.succeed("mount --bind /mnt /mnt; mount --make-shared /mnt")
n1.succeed(["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hide])
print("outside, shared:", n1.succeed("ls /mnt").split())
n1.succeed("umount /mnt; umount /mnt")
lesson.check(5, leaks)

# %% [markdown] lang="en"
# ## Network, IPC, control groups
#
# Each takes one experiment: look inside, look outside. **Predict:** `n1` has two network cards, `lo` (the *loopback* to itself) and `eth0`. Which are there in a new network namespace? Write a set, such as `{"lo", "eth0"}`.

# %% [markdown] lang="zh" of="f65023a6"
# ## 网络、IPC、控制组
#
# 每种做一个实验：里面看一眼，外面看一眼。**预测：** `n1` 有两块网卡：`lo`（通向自己的*环回 (loopback)*）和 `eth0`。新的网络命名空间里有哪些？写一个集合，例如 `{"lo", "eth0"}`。

# %%
cards = ...
lesson.predict(6, cards)

# %%
def both(options, look):
    print("inside: ", n1.succeed(f"unshare {options} {look}").strip())
    print("outside:", n1.succeed(look).strip())

both("--net", "ip -br link | awk '{print $1}' | xargs")
print("it reaches itself:", n1.test("unshare --net ping -c1 127.0.0.1"))
lesson.check(6, cards)

# %% [markdown] lang="en"
# Not even that card is up: `ip link set lo up` is the first thing that a container's builder does. Next, *IPC*: message queues, semaphores and shared memory have numbers that all programs of a computer share, and so two copies of one program can collide. We make a queue outside and count.
#
# And a *cgroup* says what a process may use (the next lesson). Its path would tell a process where it stands in the provider's tree. We put a process on a `shelf`; in a new cgroup namespace its own place is the root:

# %% [markdown] lang="zh" of="92df5877"
# 连这块网卡都还没启用：`ip link set lo up` 是容器搭建者做的第一件事。接着是 *IPC*：消息队列、信号量和共享内存的编号由一台计算机上的所有程序共用，所以同一程序的两个副本可能冲突。我们在外面建一个队列，数一数。
#
# 而*控制组 (cgroup)* 决定进程能用多少资源（下一课）。它的路径会让进程知道自己在提供商的树上的位置。我们把一个进程放进名为 `shelf` 的组；在新的 cgroup 命名空间里，自己的位置就是根：

# %%
n1.succeed("ipcmk --queue")
both("--ipc", "ipcs -q | grep 0x | wc -l")
print()
n1.succeed("mkdir -p /sys/fs/cgroup/shelf")
move, look = "echo $$ >/sys/fs/cgroup/shelf/cgroup.procs; ", "cat /proc/self/cgroup"
print("inside: ", n1.succeed(f"{move} unshare --cgroup {look}").strip())
print("outside:", n1.succeed(move + look).strip())

# %% [markdown] lang="en"
# ## Time
#
# The newest kind (Linux 5.6). A process that is moved to another host must not see its clock jump. **Predict:** we shift the time since boot by a day, and `uptime` says so. And what does `date` say inside: `"a day ahead"` or `"the same"` as outside?

# %% [markdown] lang="zh" of="d1277f73"
# ## 时间
#
# 最新的一种（Linux 5.6）。进程迁移到另一台宿主机时，不应看到时钟跳变。**预测：** 我们把启动以来的时间拨快一天，`uptime` 照办。那么里面的 `date` 呢：`"a day ahead"`（快一天）还是 `"the same"`（与外面相同）？

# %%
calendar = ...
lesson.predict(7, calendar)

# %%
shifted = "unshare --time --boottime 86400 --fork"
print("inside: ", n1.succeed(f"{shifted} uptime -p").split(",")[0].strip())
print("up a day outside:", "day" in n1.succeed("uptime -p"))
dates = [int(n1.succeed(f"{prefix} date +%s")) for prefix in ("", shifted)]
print("the same date:", abs(dates[0] - dates[1]) < 60)
lesson.check(7, calendar)

# %% [markdown] lang="en"
# ## A root who is nobody
#
# The *user* namespace is the only one that anybody may make; without it, `nobody` makes none (the first line below). In it, user 65534 (`nobody`, with no rights at all) is mapped to 0 and feels like root, with all capabilities. From outside it is nobody still:

# %% [markdown] lang="zh" of="b74a7fc5"
# ## 谁也不是的 root
#
# *用户 (user)* 命名空间是唯一谁都可以建立的；没有它，`nobody` 什么也建不了（下面第一行）。在里面，65534 号用户（`nobody`，没有任何权限）被映射为 0 号，自以为是 root，拥有全部权能。从外面看，它仍然谁也不是：

# %%
n1.succeed("echo 42 >/srv/secret; chmod 600 /srv/secret")
as_nobody = "setpriv --reuid nobody --regid nogroup --clear-groups "
print("without:", n1.run(as_nobody + "unshare --uts true").stderr.strip())
root = as_nobody + "unshare --map-root-user "
n1.succeed(root + "sleep 700 </dev/null >/dev/null 2>&1 &")
print("inside: ", n1.succeed(root + "sh -c 'id -un; stat -c %U /srv/secret'").split())
print("outside:", n1.wait_until_succeeds("ps -o user= -p $(pgrep -n -fx 'sleep 700')").strip())

# %% [markdown] lang="en"
# (Inside, the *real* root's file belongs to nobody: that number is not in the map.) This root also gets a host name, mounts and a network of its own.
#
# **Predict:** which of these attempts succeed? A set of names: `"name"` the computer, `"mount"` a file system, `"link"` a new card, `"clock"` set the date, `"secret"` read root's file, `"kill"` the guest's PID 1.

# %% [markdown] lang="zh" of="fedd32cd"
# （在里面，*真正的* root 的文件属于 nobody：那个编号不在映射里。）这个 root 还得到了自己的主机名、挂载和网络。
#
# **预测：** 下面哪些尝试会成功？写一个名字的集合：`"name"` 改主机名，`"mount"` 挂载文件系统，`"link"` 建新网卡，`"clock"` 改日期，`"secret"` 读 root 的文件，`"kill"` 杀掉客户机的 PID 1。

# %%
succeed = ...
lesson.predict(8, succeed)

# %%
attempts = {
    "name": "hostname box", "mount": "mount -t tmpfs none /mnt",
    "link": "ip link add d0 type dummy", "clock": "date -s 2000-01-01",
    "secret": "cat /srv/secret", "kill": "kill 1",
}
for what, command in attempts.items():
    result = n1.run(f"{root} --uts --mount --net sh -c '{command}'")
    print(f"{what:7}", "yes" if result.ok else result.stderr.strip())
lesson.check(8, succeed)

# %% [markdown] lang="en"
# Those were all eight:

# %% [markdown] lang="zh" of="efb21d62"
# 八种都见过了（表中从上到下：挂载表、主机名、进程间通信、进程编号、网络、用户编号、控制组的根、启动以来的时间）：

# %%
for kind in KINDS.values():
    print(f"{kind.name:7} Linux {kind.since:7} {kind.isolates}")

# %% [markdown] lang="en"
# ## The same by system calls
#
# What does `unshare` do? `strace` lists a program's system calls: there are two that matter. `Process` is a process in `n1` that makes the calls you write in Python, one at a time:

# %% [markdown] lang="zh" of="6b93dcad"
# ## 用系统调用做同样的事
#
# `unshare` 到底做了什么？`strace` 会列出程序的系统调用：要紧的只有两个。`Process` 是 `n1` 里的一个进程，它逐个发出你用 Python 写的系统调用：

# %%
print(n1.succeed("strace -e unshare,sethostname unshare --uts hostname box 2>&1"))
p = Process(n1)
p.unshare(Clone.NEWUTS)
p.sethostname("box", 3)
print(*p.trace, sep="\n")
print("inside: ", p.run("hostname").stdout.strip(), "| outside:", n1.succeed("hostname").strip())
same = compare(p.namespaces, namespaces_of(n1))
print("apart:  ", [kind for kind in KINDS if not same[kind]])

# %% [markdown] lang="en"
# To go *into* a namespace: open the link to it, and call `setns`. The command `nsenter` does just this. So `q` joins `p`:

# %% [markdown] lang="zh" of="0ac42147"
# 要*进入*一个命名空间：打开它的链接，再调用 `setns`。`nsenter` 命令做的正是这件事。于是 `q` 加入 `p`：

# %%
q = Process(n1)
fd = q.open(f"/proc/{p.pid}/ns/uts", Open.RDONLY)
q.setns(fd, Clone.NEWUTS)
print("q:      ", q.run("hostname").stdout.strip())
print("nsenter:", n1.succeed(f"nsenter --target {p.pid} --uts hostname").strip())

# %% [markdown] lang="en"
# Now the second trap. `unshare(NEWPID)` leaves the process that calls it where it is: it keeps its number for life. Only its *children* are born in the new namespace. **Predict:** `r` calls it, and then runs `echo $$` (the shell's own number) twice. The first prints 1. And the second: `"1"`, `"2"` or `"an error"`?

# %% [markdown] lang="zh" of="bcf75b5e"
# 现在是第二个陷阱。`unshare(NEWPID)` 让调用它的进程留在原处：进程的编号终身不变。只有它的*子进程*出生在新的命名空间里。**预测：** `r` 调用它，然后运行两次 `echo $$`（shell 自己的编号）。第一次打印 1。第二次呢：`"1"`、`"2"` 还是 `"an error"`（出错）？

# %%
second = ...
lesson.predict(9, second)

# %%
r = Process(n1)
r.unshare(Clone.NEWPID)
print("first: ", r.run("echo $$").stdout.strip())
try:
    print("second:", r.run("echo $$").stdout.strip())
except CallError as error:
    print("second:", error)
lesson.check(9, second)

# %% [markdown] lang="en"
# The cure is a first process that stays: containers therefore keep a small `init`, or their one program, as number 1. This is what `--fork` was for: the program itself becomes number 1, and stays as long as it runs.
#
# ## The library
#
# All of it together is a *program of system calls*. Our library writes such a program, sends it into the guest, and prints it like this (indented is what a child does):

# %% [markdown] lang="zh" of="ff622ccd"
# 解药是一个一直留着的首进程：所以容器让一个小小的 `init`，或者它唯一的程序，来做 1 号。前面的 `--fork` 正是为此：程序自己成为 1 号，运行多久就留多久。
#
# ## 函数库
#
# 合在一起，就是一个*由系统调用组成的程序*。我们的函数库写出这样的程序，送进客户机执行，还能像下面这样打印出来（缩进的部分由子进程执行）：

# %%
calls, child = creation("uts pid mnt", ["/bin/sleep", "1000"])
print("\n".join(line[:90] for line in str(calls).splitlines()))

# %% [markdown] lang="en"
# Find in it what you did by hand: `unshare`, a child, a private mount table, a new /proc. `create` runs it, `enter` goes in:

# %% [markdown] lang="zh" of="949f22f4"
# 在里面找找你亲手做过的：`unshare`、子进程、私有的挂载表、新的 /proc。`create` 执行它，`enter` 进到里面：

# %%
box = create(n1, "uts pid mnt", ["sleep", "1000"])
inside = enter(n1, box)
print(inside.kinds)
print(inside.run("hostname box; hostname; ps -o args= -p 1").stdout)
show_source(entering)

# %% [markdown] lang="en"
# One process, two trees. Outside it is one of many, with a number like any other; inside it is the root of all:

# %% [markdown] lang="zh" of="e641083b"
# 一个进程，两棵树。在外面它是众多进程之一，编号平平常常；在里面它是万物之根：

# %% tags=["nbval-ignore-output"]
inside.run("sleep 1001 </dev/null >/dev/null 2>&1 &")
print("From outside:", tree(n1), "", "From inside:", tree(n1, box), sep="\n")

# %%
seen = {"outside": str(tree(n1)), "inside": str(tree(n1, box))}
for place, text in seen.items():
    print(f"from {place:8}init is seen:", "init" in text, "| at the root:", text.splitlines()[0])

# %% [markdown] lang="en"
# And the *matrix*: processes by kinds. In a column, the same letter means the same namespace. Who is with whom?

# %% [markdown] lang="zh" of="ca03990a"
# 再看*矩阵*：行是进程，列是种类。同一列里字母相同，就是同一个命名空间。谁和谁在一起？

# %%
who = matrix(n1, [1, q.pid, p.pid, box])
print(f"{'':8}", *(f"{kind:6}" for kind in who.kinds))
for name, cells in zip(["init", "q", "p", "box"], who.cells):
    print(f"{name:8}", *(f"{letter:6}" for letter in cells))

# %% [markdown] lang="en"
# ## Numbers within numbers
#
# PID namespaces nest. Here `unshare` starts `unshare`, which starts `sleep`: the sleeper has a number in each of three namespaces. **Predict** the last two, the middle one and the innermost: a list of two numbers.

# %% [markdown] lang="zh" of="053eca04"
# ## 编号里的编号
#
# PID 命名空间可以嵌套。这里 `unshare` 启动 `unshare`，后者再启动 `sleep`：这个睡眠者在三个命名空间里各有一个编号。**预测** 后两个，即中间的和最里面的：写一个两个数的列表。

# %%
numbers = ...
lesson.predict(10, numbers)

# %%
n1.run("unshare --pid --fork unshare --pid --fork sleep 777 </dev/null >/dev/null 2>&1 &")
pid = int(n1.wait_until_succeeds("pgrep -n -fx 'sleep 777'"))
sleeper = next(process for process in processes(n1) if process.pid == pid)
print("outermost is its number here:", sleeper.pids[0] == pid)
print("then:", sleeper.pids[1:])
print("the kernel says:", *n1.succeed(f"grep NSpid /proc/{pid}/status").split()[2:])
lesson.check(10, numbers)

# %% [markdown] lang="en"
# An outer namespace sees the inner ones, never the other way: whoever runs containers sees all their processes. So it can end them. **Predict:** we kill `sleep 1000`, PID 1 of `box`, from outside. What becomes of `sleep 1001`, another process in there: `"it lives on"` or `"it dies too"`?

# %% [markdown] lang="zh" of="e412e00a"
# 外层命名空间看得见内层，反过来不行：运行容器的人看得见容器里的所有进程，因此也能结束它们。**预测：** 我们从外面杀掉 `sleep 1000`，即 `box` 的 PID 1。里面的另一个进程 `sleep 1001` 会怎样：`"it lives on"`（继续活着）还是 `"it dies too"`（也死掉）？

# %%
other = ...
lesson.predict(11, other)

# %%
n1.run(f"kill -KILL {box}")
n1.wait_until_succeeds(f"! test -d /proc/{box}")
print("sleep 1001 lives:", n1.test("pgrep -fx 'sleep 1001'"))
lesson.check(11, other)

# %% [markdown] lang="en"
# ## What keeps a namespace alive
#
# A namespace ends with the last process in it, unless something else holds on: an open descriptor, or a *bind mount* of its link on a file. **Predict:** we call a new namespace `kept`, mount its link on /run/kept, and kill its only process. What does `hostname` say to somebody who enters by that file: `"n1"`, `"kept"` or `"an error"`?

# %% [markdown] lang="zh" of="7feda135"
# ## 什么让命名空间活着
#
# 命名空间随着其中最后一个进程结束，除非还有别的东西抓着它：一个打开的描述符，或者把它的链接*绑定挂载 (bind mount)* 到一个文件上。**预测：** 我们给一个新的命名空间取名 `kept`，把它的链接挂载到 /run/kept 上，再杀掉其中唯一的进程。有人通过这个文件进去，会得到什么主机名：`"n1"`、`"kept"` 还是 `"an error"`（出错）？

# %%
says = ...
lesson.predict(12, says)

# %%
only = create(n1, "uts", ["sleep", "1002"])
enter(n1, only).run("hostname kept")
kept = namespaces_of(n1, only)["uts"]
n1.succeed(f"touch /run/kept; mount --bind /proc/{only}/ns/uts /run/kept; kill -KILL {only}")
n1.wait_until_succeeds(f"! test -d /proc/{only}")
print("lsns lists it:", str(kept.inode) in n1.succeed("lsns -t uts -o NS"))
print(n1.run("nsenter --uts=/run/kept hostname").stdout)
n1.succeed("umount /run/kept")
print("without the mount:", n1.run("nsenter --uts=/run/kept hostname").stderr)
lesson.check(12, says)

# %% [markdown] lang="en"
# `ip netns add blue` keeps networks without processes in just this way, as files in /run/netns. Once the file was unmounted, the namespace was gone, and what is left is an empty file: `setns` refuses it.

# %% [markdown] lang="zh" of="5d4aad46"
# `ip netns add blue` 正是用这种办法保留没有进程的网络，文件在 /run/netns 里。文件一卸载，命名空间就没了，只剩一个空文件：`setns` 拒绝接受它。

# %% [markdown] lang="en"
# ## What is not isolated
#
# **Predict:** a process is in new namespaces of seven kinds (all but user). Which of these are *the same* inside and outside? A set of: `"kernel release"`, `"time of day"`, `"host name"`, `"memory"` (what /proc/meminfo says), `"network cards"`, `"processes"`.

# %% [markdown] lang="zh" of="df6817ae"
# ## 什么没有被隔离
#
# **预测：** 一个进程在七种新的命名空间里（除 user 以外的全部）。下面哪些在里外*相同*？写一个集合，从中选：`"kernel release"`（内核版本）、`"time of day"`（当前时刻）、`"host name"`（主机名）、`"memory"`（/proc/meminfo 显示的内存）、`"network cards"`（网卡）、`"processes"`（进程）。

# %%
same = ...
lesson.predict(13, same)

# %%
for thing in not_isolated(n1):
    print("shared" if thing.shared else "  own ", thing.what)
lesson.check(13, same)

# %% [markdown] lang="en"
# *One shared kernel*: that is why a container starts in milliseconds, and why it is a thinner wall than a guest's. A program that asks for the memory of the computer gets that of the host, whatever it may use; that takes cgroups.
#
# ## Exercises
#
# 1. **nsenter in two calls.** Write the two lines: open the link to the UTS namespace of process `pid` (as `q` did above), and go in. The judge hides a name there.

# %% [markdown] lang="zh" of="65924927"
# *共用一个内核*：所以容器几毫秒就能启动，也所以它这堵墙比客户机的薄。程序若问计算机有多少内存，得到的是宿主机的，不管它自己能用多少；管住用量要靠 cgroup。
#
# ## 练习
#
# 1. **两个调用的 nsenter。** 写出两行：打开进程 `pid` 的 UTS 命名空间的链接（像上面的 `q` 那样），然后进去。裁判在那里藏了一个名字。

# %%
hidden = f"box-{lesson.variant().randrange(100, 1000)}"

def hostname_after(join):
    pid = create(n1, "uts", ["sleep", "1003"])
    enter(n1, pid).run(f"hostname {hidden}")
    with Process(n1) as process:
        return ... if join(process, pid) is ... else process.run("hostname").stdout.strip()

# %%
def join(process, pid):
    return ...  # your two lines instead

lesson.check(14, hostname_after(join), measured=hidden)

# %% [markdown] lang="en"
# 2. **A hermit.** Choose the *smallest* set of kinds with which all three lines below say `True`. (Try: replace the dots, run, look.)

# %% [markdown] lang="zh" of="8271a5c3"
# 2. **隐士。** 选出*最小*的种类集合，让下面三行都是 `True`。（多试：换掉省略号，运行，再看。）

# %%
def hermit(kinds):
    there = enter(n1, create(n1, kinds, ["sleep", "1004"]))
    named = there.run("hostname hermit; hostname").stdout.strip() == "hermit"
    print("a name of its own:", named and n1.succeed("hostname").strip() == "n1")
    print("ps hides the rest:", "init" not in there.run("ps -e").stdout)
    print("no way out:       ", "eth0" not in there.run("ip link").stdout)
    n1.succeed(f"kill -KILL {there.pid}; hostname n1")

kinds = ...
if kinds is not ...:
    hermit(kinds)
lesson.check(15, kinds)

# %% [markdown] lang="en"
# 3. **A detective's case.** Two processes, `x` and `y`, belong together. Which kinds do they share with each other, but *not* with the rest of `n1`? Find out with what you have learned (`compare`, `matrix`, `readlink`), and write a set.

# %% [markdown] lang="zh" of="3bd37589"
# 3. **侦探案。** `x` 和 `y` 两个进程是一伙的。哪些种类是它们彼此共享、却*不*与 `n1` 的其他进程共享的？用学到的办法（`compare`、`matrix`、`readlink`）查出来，写成集合。

# %%
joined = lesson.variant().sample(["uts", "ipc", "net", "cgroup"], 2)  # no peeping
x = create(n1, "uts ipc net cgroup", ["sleep", "1005"])
enter(n1, x, joined).run(f"unshare --pid --fork sleep {x}00 </dev/null >/dev/null 2>&1 &")
y = int(n1.wait_until_succeeds(f"pgrep -fx 'sleep {x}00'"))
between = ...
lesson.check(16, between, measured=set(joined))

# %% [markdown] lang="en"
# ## Summary
#
# A namespace decides what a process sees, kind by kind; `unshare` makes one, `setns` enters one, /proc/PID/ns tells them apart. A new PID namespace needs a /proc of its own and a first process that stays. A user namespace gives a root whose power ends at its border. The kernel, its clock and its settings are shared.
#
# **Ask yourself:** why may anybody make a user namespace, and nobody but root the others? Why does `docker exec` need `setns`? What can a process see that is in new namespaces of all eight kinds, but has your files?
#
# **Further reading:** `man 7 namespaces`, `pid_namespaces`, `user_namespaces`; Michael Kerrisk, *Namespaces in operation*, LWN.net (2013).

# %% [markdown] lang="zh" of="f1a39f21"
# ## 小结
#
# 命名空间一种一种地决定进程能看见什么；`unshare` 建立，`setns` 进入，/proc/PID/ns 用来区分。新的 PID 命名空间需要自己的 /proc 和一个一直留着的首进程。用户命名空间给出一个 root，它的权力到边界为止。内核、内核的时钟和设置是共用的。
#
# **问问自己：** 为什么谁都可以建用户命名空间，而其他几种只有 root 可以？为什么 `docker exec` 需要 `setns`？一个进程处在全部八种新的命名空间里，却用着你的文件，它能看见什么？
#
# **延伸阅读：** `man 7 namespaces`、`pid_namespaces`、`user_namespaces`；Michael Kerrisk，*Namespaces in operation*，LWN.net (2013)。

# %% [markdown] lang="en"
# **Terms.** container 容器 · namespace 命名空间 · isolation 隔离 · PID 1 1 号进程 · mount 挂载 · mount propagation 挂载传播 · bind mount 绑定挂载 · loopback 环回 · IPC 进程间通信 · control group 控制组 · user mapping 用户映射 · capability 权能 · system call 系统调用 · kernel 内核

# %% [markdown] lang="zh" of="8006fed6"
# **术语。** 容器 container · 命名空间 namespace · 隔离 isolation · 1 号进程 PID 1 · 挂载 mount · 挂载传播 mount propagation · 绑定挂载 bind mount · 环回 loopback · 进程间通信 IPC · 控制组 control group · 用户映射 user mapping · 权能 capability · 系统调用 system call · 内核 kernel

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
lesson.check(1, "n1")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, 1)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, "all of n1")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, "nothing")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, True)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, {"lo"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, "the same")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, {"name", "mount", "link"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, "an error")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, list(sleeper.pids[1:]))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, "it dies too")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, "kept")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, {"kernel release", "time of day", "memory"})

# %% tags=["solution"]
# A solution · 参考答案
def join(process, pid):
    fd = process.open(f"/proc/{pid}/ns/uts", Open.RDONLY)
    process.setns(fd, Clone.NEWUTS)

lesson.check(14, hostname_after(join), measured=hidden)

# %% tags=["solution"]
# A solution · 参考答案
hermit({"uts", "pid", "mnt", "net"})
lesson.check(15, {"uts", "pid", "mnt", "net"})

# %% tags=["solution"]
# A solution · 参考答案
together = compare(namespaces_of(n1, x), namespaces_of(n1, y))
with_n1 = compare(namespaces_of(n1, x), namespaces_of(n1))
shared = {kind for kind in KINDS if together[kind] and not with_n1[kind]}
lesson.check(16, shared, measured=set(joined))

# %% [markdown] lang="en"
# Closing the lab ends the guest, and with it every namespace in it.

# %% [markdown] lang="zh" of="8b00e330"
# 关闭实验室会结束客户机，连同其中的所有命名空间。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
