# ---
# jupyter:
#   cloudlab:
#     title: {en: "The root file system of a container", zh: "容器的根文件系统"}
#     minutes: 40
#     ids: ["3.08"]
#     needs: ["0-ground/01-a-computer-inside-a-computer", "3-containers/01-namespaces"]
# ---

# %% [markdown] lang="en"
# # The root file system of a container
#
# In 40 minutes you will have taken an image apart, stacked its layers with your own hands, deleted files that stay where they are, walked out of one kind of root and failed to walk out of another, and made an image of your own.
#
# You need the words *process* and *mount namespace* of the lesson on namespaces. Contents: what an image is · no kernel · three layers · copy-up · whiteouts · opaque directories · who answers for a path · the library · entering a root · sharing · commit · a container's root · exercise.

# %% [markdown] lang="zh" of="f9550349"
# # 容器的根文件系统
#
# 四十分钟后，你会拆开过一个镜像，亲手把它的层叠起来，删掉一些其实还留在原处的文件，从一种根目录里走出来，又发现另一种走不出来，最后做出一个自己的镜像。
#
# 需要命名空间一课里的两个词：*进程*和*挂载命名空间 (mount namespace)*。内容：镜像是什么 · 没有内核 · 三层 · 向上复制 · 遮蔽文件 · 不透明目录 · 一个路径由谁应答 · 使用库 · 进入根目录 · 共享 · 提交 · 容器的根 · 练习。

# %% [markdown] lang="en"
# **You will do:** mount an *overlay*, hide a file with `mknod`, write the function that finds the layer of a path, break out of a `chroot`, and measure what ten containers cost.
#
# **You will learn** the words *image*, *rootfs*, *layer*, *init layer*, *read-write layer*, *overlay*, *copy-up*, *whiteout*, *opaque directory*, *pivot_root*, *commit*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="626ba813"
# **你要做的：** 挂载一个 *overlay*，用 `mknod` 藏起一个文件，写出查找路径所在层的函数，逃出 `chroot`，测量十个容器的开销。
#
# **你会学到** 这些词：*镜像 (image)*、*根文件系统 (rootfs)*、*层 (layer)*、*init 层*、*可读写层*、*叠加文件系统 (overlay)*、*向上复制 (copy-up)*、*遮蔽文件 (whiteout)*、*不透明目录 (opaque directory)*、*pivot_root*、*提交 (commit)*。看到 `...` 的地方，换成你自己的答案。

# %%
import errno, re, secrets, tarfile
import plotly.graph_objects as go
from cloudlab import Clone, Lab, Lesson, Rootfs, show_source
from cloudlab.containers import stack
from cloudlab.containers.calls import Calls, Room, make
from cloudlab.containers.layerstore import Layers, listings
from cloudlab.containers.rootfs import enter_root, init_layer
from cloudlab.containers.syscalls import Mount, Open
from cloudlab.images import ImageStore
lesson = Lesson("3-containers/03-rootfs")
lab = Lab(accelerator="tcg")  # each instruction of a guest is translated, on any computer
n1 = lab.machine("n1")

# %% [markdown] lang="en"
# ## What is in an image?
#
# `busybox` is the image of the next lessons: a small Linux with a shell and hundreds of commands. It lies on your computer as one *tar archive*, a row of files with their names and modes.
#
# **Predict:** how many *regular files* are in it (not counting directories and links)?

# %% [markdown] lang="zh" of="74d641b3"
# ## 镜像里有什么？
#
# `busybox` 是接下来几课都要用的镜像：一个小小的 Linux，有 shell 和几百个命令。它在你的计算机上就是一个 *tar 归档文件*：一个接一个的文件，带着名字和权限。
#
# **预测：** 里面有多少个*普通文件*（目录和链接不算）？

# %%
files = ...
lesson.predict(1, files)

# %%
archive = ImageStore().rootfs("busybox")
with tarfile.open(archive) as tar:
    members = tar.getmembers()
regular = [member for member in members if member.isfile()]
print(sum(member.isdir() for member in members), "directories,", len(regular), "regular files:")
for member in regular:
    print(f"{member.size / 2**20:6.1f} MiB  {member.name}")
link = next(member for member in members if member.name == "usr/bin/ls")
print("the rest are links, such as", link.name, "->", link.linkname)
lesson.check(1, files, measured=len(regular))

# %% [markdown] lang="en"
# Files, configuration (`etc`), directories: that is an image. Unpack it into a directory of the guest. `chroot` runs a program for which that directory is `/`.
#
# **Predict:** `uname -r` asks for the version of the running kernel. Who answers inside: `"the guest's kernel"`, `"the image's kernel"`, or is it `"an error"`?

# %% [markdown] lang="zh" of="97c7e46b"
# 文件、配置（`etc`）、目录：镜像就是这些。把它解包到客户机的一个目录里。`chroot` 运行一个程序，让它把这个目录当作 `/`。
#
# **预测：** `uname -r` 询问正在运行的内核版本。在里面由谁来回答：`"the guest's kernel"`（客户机的内核）、`"the image's kernel"`（镜像的内核），还是 `"an error"`（出错）？

# %%
who_answers = ...
lesson.predict(2, who_answers)

# %%
n1.put("/image.tar", archive)
n1.succeed("mkdir /image && tar -xf /image.tar -C /image")
print("its root:", *n1.succeed("chroot /image ls /").split())
inside, outside = n1.succeed("chroot /image uname -r"), n1.succeed("uname -r")
print("the same kernel:", inside == outside)
lesson.check(2, who_answers)

# %% [markdown] lang="en"
# **The image has no kernel.** Look for one: a kernel would be a file `vmlinuz` in `/boot`, its drivers files `.ko` in `/lib/modules`. (A virtual machine's disk has both. Ours is the exception: QEMU hands our guest its kernel, and only the drivers are files.) And how little is enough? One program is an image already:

# %% [markdown] lang="zh" of="72185401"
# **镜像里没有内核。** 找找看：内核应该是 `/boot` 里的 `vmlinuz` 文件，驱动应该是 `/lib/modules` 里的 `.ko` 文件。（虚拟机的磁盘里两样都有。我们的客户机是例外：内核由 QEMU 直接交给它，只有驱动是文件。）那么最少要有什么？一个程序就已经是镜像了：

# %%
drivers = "find {} -name 'vmlinuz*' -o -name '*.ko' | wc -l"
print("files of a kernel in the image:", int(n1.succeed(drivers.format("/image"))))
print("some in the guest:", int(n1.succeed(drivers.format("/lib/modules"))) > 0)
for path in ("/boot", "/lib/modules"):
    print(path, "in the image:", n1.test(f"ls /image{path}"))
n1.succeed("mkdir /tiny && cp /image/bin/busybox /tiny")
print(n1.succeed("chroot /tiny /busybox echo one file, and I run").strip())

# %% [markdown] lang="en"
# ## Three layers
#
# A copy of the image for each container would do, but cost its size each time. The kernel's *overlayfs* shows several directories as one instead: *lower* ones, which are only read, and one *upper*, where all that is written goes. Try it on the guest's own root:

# %% [markdown] lang="zh" of="f6c33d39"
# ## 三层
#
# 给每个容器复制一份镜像也行，但每次都要付出整个镜像的空间。内核的 *overlayfs* 换了一个办法，把几个目录显示成一个：*lower*（下层）目录只读，一个 *upper*（上层）目录接收所有写入。先在客户机自己的根上试一试：

# %%
n1.succeed("mkdir -p /try/lower/d /try/upper /try/work /try/merged; touch /try/lower/d/old")
layers_of_it = "lowerdir=lower,upperdir=upper,workdir=work"
n1.succeed(f"mount -t overlay overlay -o {layers_of_it} merged", directory="/try")
n1.succeed("echo hello > merged/new", directory="/try")
print("upper:", n1.succeed("ls upper", directory="/try").strip())
print(n1.fail("rm -r merged/d", directory="/try").strip())
print(n1.succeed("dmesg | grep overlayfs: | tail -1 | sed 's/.*] //'; umount /try/merged").strip())

# %% [markdown] lang="en"
# It begins well, and breaks: overlayfs must keep notes beside files, in *extended attributes* named `trusted.…`. The guest's root lives in memory as a *ramfs*, which has none. A *tmpfs* lives in memory too, has them, and has a size limit. The library mounts one on `/var/lib/cloudlab` (`layerstore.prepare`); here we do it:

# %% [markdown] lang="zh" of="0756b02d"
# 开头顺利，然后就坏了：overlayfs 必须在文件旁边记笔记，记在名为 `trusted.…` 的*扩展属性 (extended attribute)* 里。客户机的根在内存里，是 *ramfs*，没有扩展属性。*tmpfs* 也在内存里，但有扩展属性，还能限制大小。我们的库会在 `/var/lib/cloudlab` 上挂载一个（`layerstore.prepare`）；这里我们自己来：

# %%
HAND = "/var/lib/cloudlab/hand"
n1.succeed("mkdir -p /var/lib/cloudlab && mount -t tmpfs cloudlab /var/lib/cloudlab")
n1.succeed(f"mkdir {HAND}")
for place in ("/try", HAND):
    kind = n1.succeed(f"stat -f -c %T {place}").strip()
    print(f"{kind} can keep a note:", n1.test(f"setfattr -n trusted.note -v yes {place}"))

# %% [markdown] lang="en"
# Now the three layers of the lecture:
# ```mermaid
# flowchart BT
#   accTitle: The three layers of a container's root
#   accDescr: The read-only layers of the image lie at the bottom, the init layer above them, the read-write layer on top. Overlayfs shows them merged, as the root of the container.
#   base["read-only layers: image"] --> init["init layer: init"]
#   init --> upper["read-write layer: upper"]
#   upper --> merged["merged: seen as /"]
# ```
# The image is shared by all containers; the *init layer* holds what differs, such as a container's name; *upper* gets what it writes.
#
# **Predict:** the image has `etc/passwd`, our init layer has `etc/hostname`. What does the merged `etc` show: `"only init's"`, `"only the image's"` or `"both"`?

# %% [markdown] lang="zh" of="67f149db"
# 现在来做讲义里的三层：
# ```mermaid
# flowchart BT
#   accTitle: 容器的根的三层
#   accDescr: 最下面是镜像的只读层，上面是 init 层，最上面是可读写层。overlayfs 把它们合并显示，作为容器的根。
#   base["只读层：image"] --> init["init 层：init"]
#   init --> upper["可读写层：upper"]
#   upper --> merged["merged：看到的 /"]
# ```
# 镜像由所有容器共享；*init 层*放各个容器不同的东西，例如主机名；*upper* 接收容器写的内容。
#
# **预测：** 镜像里有 `etc/passwd`，我们的 init 层里有 `etc/hostname`。合并后的 `etc` 显示什么：`"only init's"`（只有 init 层的）、`"only the image's"`（只有镜像的）还是 `"both"`（都有）？

# %%
merged_etc = ...
lesson.predict(3, merged_etc)

# %%
def hand(command):
    print(n1.succeed(command, directory=HAND).rstrip())

n1.succeed(f"cd {HAND}; mkdir -p image init/etc upper work merged; tar -xf /image.tar -C image")
n1.succeed(f"echo c0 > {HAND}/init/etc/hostname")
MOUNT = "mount -t overlay overlay -o lowerdir=init:image,upperdir=upper,workdir=work merged"
n1.succeed(MOUNT, directory=HAND)
hand("ls merged/etc; cat merged/etc/hostname")
lesson.check(3, merged_etc)

# %% [markdown] lang="en"
# The highest layer stands first in `lowerdir`. Directories are merged; of a file, one layer's is seen.
#
# ## Copy-up
#
# **Predict:** `touch` gives the program `busybox` (1.9 MiB, in the image) a new date, through `merged`. It changes not one byte of its content. How much of it is in `upper` afterwards: `"nothing"`, `"a few bytes"` or `"the whole file"`?

# %% [markdown] lang="zh" of="449c71e4"
# `lowerdir` 里最上面的层写在最前面。目录会合并；同名文件只看得到一层的。
#
# ## 向上复制 (copy-up)
#
# **预测：** 通过 `merged` 对程序 `busybox`（1.9 MiB，在镜像里）做 `touch`，给它一个新日期，内容一个字节都不变。之后 `upper` 里有它的多少：`"nothing"`（没有）、`"a few bytes"`（几个字节）还是 `"the whole file"`（整个文件）？

# %%
copied = ...
lesson.predict(4, copied)

# %%
n1.succeed("sha256sum image/bin/busybox > /sum; cat merged/bin/* > /dev/null", directory=HAND)
print("all of bin was read; files in upper:", int(n1.succeed(f"find {HAND}/upper -type f | wc -l")))
n1.succeed("touch merged/bin/busybox", directory=HAND)
hand("find upper -type f; cmp upper/usr/bin/busybox image/usr/bin/busybox && echo the same bytes")
hand("sha256sum -c /sum")
lesson.check(4, copied)

# %% [markdown] lang="en"
# ## Whiteouts
#
# Lower layers are never changed. **Predict:** you delete `etc/group`, a file of the image, through `merged`. What is then at `upper/etc/group`: `"nothing"`, `"an empty file"` or `"a device"`?

# %% [markdown] lang="zh" of="a867157b"
# ## 遮蔽文件 (whiteout)
#
# 下层永远不变。**预测：** 通过 `merged` 删除镜像里的文件 `etc/group`。之后 `upper/etc/group` 处是什么：`"nothing"`（什么都没有）、`"an empty file"`（空文件）还是 `"a device"`（一个设备）？

# %%
left_in_upper = ...
lesson.predict(5, left_in_upper)

# %%
hand("rm merged/etc/group; ls merged/etc")
hand("stat -c '%n: a %F, number %t:%T' upper/etc/group")
hand("stat -c '%n: a %F' image/etc/group")
lesson.check(5, left_in_upper)

# %% [markdown] lang="en"
# A *whiteout*: a character device with the number 0:0, which no driver has. To the user of `merged` it means "not here, and don't look below".
#
# **Exercise.** Make one yourself: write the command that hides `etc/passwd`, in the directory where `upper` and `image` lie. (`man mknod`: name, type `c`, two numbers.) The judge unmounts the stack, runs your command, mounts again and looks.

# %% [markdown] lang="zh" of="6239406a"
# 这就是*遮蔽文件*：编号 0:0 的字符设备，没有任何驱动使用这个编号。对 `merged` 的用户来说它的意思是：“这里没有，也别往下找。”
#
# **练习。** 自己做一个：写出藏起 `etc/passwd` 的命令，它会在 `upper` 和 `image` 所在的目录里运行。（`man mknod`：名字，类型 `c`，两个编号。）裁判会卸载这叠层，运行你的命令，重新挂载，然后查看。

# %%
def hides(command):
    undone = "umount merged; rm -f upper/etc/passwd"
    n1.succeed(f"{undone}; {command}; {MOUNT}", directory=HAND)
    if not n1.test(f"test -s {HAND}/image/etc/passwd"):
        return "the image is spoiled"
    return "seen" if n1.test(f"ls {HAND}/merged/etc/passwd") else "hidden"

command = ...
found = ... if command is ... else hides(command)
lesson.check(6, found)

# %% [markdown] lang="en"
# ## Opaque directories
#
# Delete a directory of the image, and make a new one of the same name. It must be empty, yet directories are merged. Here is the note that makes the difference:

# %% [markdown] lang="zh" of="ccd01331"
# ## 不透明目录 (opaque directory)
#
# 删掉镜像的一个目录，再新建一个同名的。它应该是空的，可是目录会合并。区别就在下面这条笔记里：

# %%
hand("rm -r merged/etc/ssl; mkdir merged/etc/ssl; find merged/etc/ssl")
hand("getfattr -d -m trusted upper/etc/ssl")

# %% [markdown] lang="en"
# **Predict:** we break it: unmount, take the note off, mount again. What is in `etc/ssl` now: `"nothing"` or `"the old files"`?

# %% [markdown] lang="zh" of="df9a2810"
# **预测：** 我们来搞破坏：卸载，去掉这条笔记，重新挂载。现在 `etc/ssl` 里有什么：`"nothing"`（什么都没有）还是 `"the old files"`（旧文件）？

# %%
in_ssl = ...
lesson.predict(7, in_ssl)

# %%
note = "trusted.overlay.opaque"
print("without the note:")
hand(f"umount merged; setfattr -x {note} upper/etc/ssl; {MOUNT}; find merged/etc/ssl")
print("with it again:")
hand(f"umount merged; setfattr -n {note} -v y upper/etc/ssl; {MOUNT}; find merged/etc/ssl")
lesson.check(7, in_ssl)

# %% [markdown] lang="en"
# ## Who answers for a path?
#
# `listings` of our library looks into each directory (with `find`, `stat` and `getfattr`), `resolve` decides. This is your stack now:

# %% [markdown] lang="zh" of="6f86a23f"
# ## 一个路径由谁应答？
#
# 我们库里的 `listings` 查看每个目录（用 `find`、`stat` 和 `getfattr`），`resolve` 作出判断。这就是你现在的这叠层：

# %%
layers = listings(n1, {name: f"{HAND}/{name}" for name in ("upper", "init", "image")})
mine = stack.Stack(tuple(layers), stack.resolve(layers))
print(mine.below("/etc"))
print(mine["/etc/ssl/certs"])
kernel = set(n1.succeed("find merged -mindepth 1 -printf '/%P\n'", directory=HAND).split())
decided = {each.path for each in mine if each.answers} - {"/"}
print("the kernel shows exactly the paths that somebody answers for:", kernel == decided)

# %% [markdown] lang="en"
# **Exercise.** Write it yourself: `layers` is a dictionary from the name of a layer (the highest first) to another, from path to kind: `"file"`, `"directory"`, `"whiteout"`, `"opaque directory"`, … Return the name of the layer that answers, or `None`. `above(path)` gives the directories above a path.
#
# *Look down from the top. A whiteout ends the search; so does a layer where a directory above the path is opaque or deleted.*

# %% [markdown] lang="zh" of="15ad2422"
# **练习。** 自己写出来：`layers` 是一个字典，从层的名字（最上面的在前）到另一个字典，后者从路径到类别：`"file"`（文件）、`"directory"`（目录）、`"whiteout"`（遮蔽文件）、`"opaque directory"`（不透明目录）等。返回应答的那一层的名字，或 `None`。`above(path)` 给出路径上方的各级目录。
#
# *从最上面往下看。遇到遮蔽文件就停；如果某一层里，路径上方的某个目录是不透明的或已删除，也停在这一层。*

# %%
def above(path):
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(2, len(parts))]

def answers(path, layers):
    return ...

given = [answers(path, layers) for path in mine.paths if path != "/"]
truth = [each.layer for each in mine if each.path != "/"]
print(sum(a == b for a, b in zip(given, truth)), "of", len(truth), "paths are right")
lesson.check(8, given, measured=truth)

# %% [markdown] lang="en"
# The library's own asks only layers that are seen in the directory above (`parent`), and keeps all that are merged:

# %% [markdown] lang="zh" of="6bdf13c6"
# 库里的版本只问在上级目录（`parent`）里看得见的层，并保留所有被合并的层：

# %%
show_source(stack._resolved)

# %% [markdown] lang="en"
# ## The library
#
# `Rootfs` does what your hands did. `Layers` keeps read-only layers by name; `base` is the image. Compare the options of its mount with yours:

# %% [markdown] lang="zh" of="d06f70b3"
# ## 使用库
#
# `Rootfs` 做的就是你刚才手工做的事。`Layers` 按名字保存只读层；`base` 就是这个镜像。把它的挂载选项和你的比一比：

# %%
kept = Layers(n1)
kept.add("base", archive)
c1 = Rootfs(n1, ["base"], "c1")
print(c1.mount())
for option in c1.overlay.options.split(","):
    print("  ", option)
show_source(Rootfs.mount, init_layer)

# %%
print(n1.succeed(f"chroot {c1.merged} head /etc/hostname /etc/hosts"))
print(c1.answer("/etc/hosts"))
for when, answer in zip(("before", "after "), c1.copy_up("/etc/passwd")):
    print(when, "copy-up:", answer)

# %% [markdown] lang="en"
# `copy_up` only opened the file for writing. What a container has done to its image is all in `upper`: **A**dded, **C**hanged, **D**eleted.
#
# **Predict** the letters, in this order: `/etc` · `/etc/group` · `/etc/passwd` · `/hello`. Write a list such as `["A", "A", "A", "A"]`.

# %% [markdown] lang="zh" of="71ba6395"
# `copy_up` 只是以写方式打开了文件。容器对镜像做过的一切都在 `upper` 里：增加（**A**dded）、改变（**C**hanged）、删除（**D**eleted）。
#
# **预测** 下面各项的字母，按这个顺序：`/etc` · `/etc/group` · `/etc/passwd` · `/hello`。写成列表，例如 `["A", "A", "A", "A"]`。

# %%
letters = ...
lesson.predict(9, letters)

# %%
n1.succeed(f"chroot {c1.merged} sh -c 'rm /etc/group; echo hello > /hello'")
print(*c1.changes(), sep="\n")
lesson.check(9, letters)

# %% [markdown] lang="en"
# ## Entering a root
#
# There are two system calls that change what `/` means. `chroot` is old and short: from now on paths begin *there*. But where a process *is* (its current directory) is another thing. Here is a program of calls that uses it:

# %% [markdown] lang="zh" of="ec7cade6"
# ## 进入根目录
#
# 有两个系统调用能改变 `/` 的含义。`chroot` 又老又短：从现在起，路径从*那里*开始。但进程*在哪里*（当前目录）是另一回事。下面这段系统调用程序就利用了这一点：

# %%
def walk_out(calls):
    calls.call("mkdir", "/x", 0o755, harmless=[errno.EEXIST])
    calls.call("chroot", "/x")  # the root moves down; where we are does not
    for _ in range(6):
        calls.call("chdir", "..")  # only the root stops this, and we are above it
    calls.call("chroot", ".")
    opened = calls.call("open", "/secret", Open.RDONLY, harmless=[errno.ENOENT])
    return opened, calls.call("read", opened, Room(64), 64, harmless=[errno.EBADF])

# %% [markdown] lang="en"
# **Predict:** the process is root in the guest, and in a `chroot`. Does it get at the guest's file `/secret`? `True` or `False`?

# %% [markdown] lang="zh" of="e4515d8e"
# **预测：** 这个进程是客户机的 root，被关在 `chroot` 里。它能拿到客户机的文件 `/secret` 吗？`True` 还是 `False`？

# %%
n1.succeed("echo 'only for the guest itself' > /secret")
c2 = Rootfs(n1, ["base"], "c2")
c2.mount()
jail = Calls()
jail.call("chroot", c2.merged)
jail.call("chdir", "/")
opened, read = walk_out(jail)
print(jail)
chroot_leaks = ...
lesson.predict(10, chroot_leaks)

# %%
made = make(n1, jail)
print(made[opened.index])
print(made[read.index], made[read.index].data)
lesson.check(10, chroot_leaks)

# %% [markdown] lang="en"
# `pivot_root` changes the *mounts*, not a starting point: the new root takes the place of the old one, and the old one is unmounted. In a mount namespace of its own a process does it for itself alone. This is what a container does:

# %% [markdown] lang="zh" of="6b781daf"
# `pivot_root` 改变的是*挂载*，而不是一个起点：新根占据旧根的位置，旧根被卸载。在自己的挂载命名空间里，进程这样做只影响自己。容器用的就是它：

# %%
container = Calls()
container.call("unshare", Clone.NEWNS)
container.call("mount", "none", "/", "", Mount.REC | Mount.PRIVATE, 0)
enter_root(container, c2.merged)
opened, read = walk_out(container)
show_source(enter_root)

# %% [markdown] lang="en"
# **Predict:** the same walk out, from this root. Does the process get at `/secret`? `True` or `False`?

# %% [markdown] lang="zh" of="8711c58e"
# **预测：** 从这个根里用同样的办法往外走。进程能拿到 `/secret` 吗？`True` 还是 `False`？

# %%
pivot_leaks = ...
lesson.predict(11, pivot_leaks)

# %%
made = make(n1, container)
for call in container:
    print(made[call.index])
lesson.check(11, pivot_leaks)

# %% [markdown] lang="en"
# Every `chdir("..")` succeeded, and led nowhere: above the root of a mount namespace there is nothing.
#
# ## Sharing
#
# **Predict:** the image takes about 2 MiB. Ten containers stand on it. How much do they take *together*, beyond the image: `"20 MiB"`, `"2 MiB"` or `"under 0.2 MiB"`?

# %% [markdown] lang="zh" of="f6645845"
# 每次 `chdir("..")` 都成功了，却哪儿也没去成：挂载命名空间的根之上什么都没有。
#
# ## 共享
#
# **预测：** 镜像约占 2 MiB。十个容器立在它上面。除镜像以外，它们*一共*占多少：`"20 MiB"`、`"2 MiB"` 还是 `"under 0.2 MiB"`（不到 0.2 MiB）？

# %%
ten_take = ...
lesson.predict(12, ten_take)

# %%
def used():
    return int(n1.succeed("df --output=used -B1K /var/lib/cloudlab | tail -1")) / 1024  # MiB

roots, copies, start = [], [], used()
for number in range(10):
    Rootfs(n1, ["base"], f"many{number}").mount()
    roots.append(round(used() - start, 1))
start = used()
for number in range(10):
    n1.succeed(f"cp -a {kept.path('base')} {HAND}/copy{number}")
    copies.append(round(used() - start, 1))

# %%
print("ten copies:", copies[-1], "MiB; ten containers on one layer:", roots[-1], "MiB")
lesson.check(12, ten_take)
clear, count = "rgba(0,0,0,0)", list(range(1, 11))
drawn = go.Figure([go.Scatter(x=count, y=copies, name="copies", marker_symbol="x"),
                   go.Scatter(x=count, y=roots, name="layers", marker_symbol="circle")])
drawn.update_traces(mode="lines+markers", marker_size=9)
drawn.update_layout(title="What containers take", height=340, margin_t=60, title_x=0.02)
drawn.update_layout(template="none", paper_bgcolor=clear, plot_bgcolor=clear, font_color="#767676")
drawn.update_xaxes(title="containers", dtick=1).update_yaxes(title="MiB", rangemode="tozero")

# %% [markdown] lang="en"
# The flat line is that of the shared layer.
#
# One file also means one copy of a *running program* in memory. **Predict:** a shell runs in `many0`, another in `many1`; then we `touch` the program in `many2` and start a third. Of which shells is more than half of the memory shared with another? Write a list of three, such as `[True, True, True]`.

# %% [markdown] lang="zh" of="5efcbf08"
# 图中 copies 是逐个复制，layers 是共享一层：贴着底的那条线。
#
# 文件只有一份，*运行中的程序*在内存里也就只有一份。**预测：** 在 `many0` 和 `many1` 里各运行一个 shell；然后在 `many2` 里 `touch` 这个程序，再启动第三个。哪些 shell 有一半以上的内存与别人共享？写成三个元素的列表，例如 `[True, True, True]`。

# %%
shares_memory = ...
lesson.predict(13, shares_memory)

# %%
def shell_in(name):
    root = f"/var/lib/cloudlab/rootfs/{name}/merged"
    shell = n1.spawn(["chroot", root, "/bin/sh", "-c", "echo $$; read line"])
    shell.wait_until_printed(lambda printed: b"\n" in printed)
    return shell

def shared(shell):
    lines = n1.succeed(f"tail -n +2 /proc/{int(shell.stdout)}/smaps_rollup").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["Shared_Clean"] + kib["Shared_Dirty"] > kib["Rss"] / 2

# %%
n1.succeed("touch /var/lib/cloudlab/rootfs/many2/merged/bin/busybox")
shells = [shell_in(name) for name in ("many0", "many1", "many2")]
print([shared(shell) for shell in shells])
for shell in shells:
    shell.kill()
lesson.check(13, shares_memory)

# %% [markdown] lang="en"
# ## Commit
#
# An upper layer that nobody writes to any more is a read-only layer like any other. `commit` keeps it under a name, and a new root stands on both:

# %% [markdown] lang="zh" of="8e7f8ebd"
# ## 提交 (commit)
#
# 没有人再写的 upper 层，就和其他只读层一样。`commit` 给它一个名字保存起来，新的根就可以立在两层之上：

# %%
c1.commit("mine")
c3 = Rootfs(n1, ["base", "mine"], "c3")
c3.mount()
print(c3.stack("/etc"))
print(c3.answer("/hello"), c3.answer("/etc/group"), sep="\n")
print("changes:", c3.changes())

# %% [markdown] lang="en"
# ## A container's root
#
# A real container, with all that the other lessons add. Everything you did by hand is among its system calls:

# %% [markdown] lang="zh" of="a99d4519"
# ## 容器的根
#
# 现在是一个真正的容器，其他课里的东西它都有。你手工做过的一切，都在它的系统调用之中：

# %%
wait = ["sleep", "1000"]
web = n1.container("web", image="busybox", command=wait, network="none", writable=True)
print(web.exec("uname -r") == n1.succeed("uname -r"), "- the same kernel")
print(web.exec("cat /etc/hostname; ls /boot /lib/modules 2>&1 | sort").strip())
for step in map(str, web.steps):
    if step.startswith(('mount("overlay"', "pivot_root", "umount2")):
        step = re.sub("[0-9a-f]{64}", "DIGEST", step)
        print(re.sub('"?(lower|upper|work)dir', r"\n  \g<0>", step))

# %%
web.exec("echo hello > /hello; rm /etc/group; rm -r /etc/ssl; mkdir /etc/ssl")
print(*web.changes(), sep="\n")
image = web.commit("mine")
for layer in image.layers:
    with n1.containers.images.open_blob(layer.digest) as blob, tarfile.open(fileobj=blob) as tar:
        names = tar.getnames()
    print("a layer of", len(names) if len(names) < 9 else "many", "entries, such as", *names[:5])

# %% [markdown] lang="en"
# In an archive a whiteout is an empty file `.wh.NAME`, and `.wh..wh..opq` makes a directory opaque: not every system that unpacks it has overlayfs. Two more containers: one stands on your image; the other, on `busybox`, may not write, which is the default:

# %% [markdown] lang="zh" of="2ca4b979"
# 在归档文件里，遮蔽文件是名为 `.wh.名字` 的空文件，而 `.wh..wh..opq` 使目录不透明：解包的系统不一定有 overlayfs。再来两个容器：一个立在你的镜像上；另一个立在 `busybox` 上，不许写，这是默认设置：

# %%
for image_name, command in (("mine", "cat /hello; ls /etc"), ("busybox", "echo bad > /bin/ls")):
    once = n1.container(image=image_name, command=command, network="none")
    print(f"{image_name}: exit status {once.wait()};", *once.logs().splitlines())

# %% [markdown] lang="en"
# ## Exercise: what a deleted file tells
#
# Somebody makes an image in two steps: layer `app` has a file with a password in it, layer `clean` deletes that file. Then the image is published. **Find the password** (not from the variable: from the guest). `kept.path(NAME)` is the directory of a layer.

# %% [markdown] lang="zh" of="6776134e"
# ## 练习：删掉的文件会泄露什么
#
# 有人分两步制作镜像：`app` 层有一个写着密码的文件，`clean` 层把它删掉。然后镜像发布了。**找出密码**（不许看变量，要从客户机里找）。`kept.path(名字)` 是一层所在的目录。

# %%
hidden = secrets.token_hex(4)
steps = {"app": f"echo {hidden} > opt/password", "clean": "rm opt/password"}
for number, (name, command) in enumerate(steps.items()):
    step = Rootfs(n1, ["base", *list(steps)[:number]], f"step{number}")
    n1.succeed(command, directory=step.mount())
    step.commit(name)
    step.remove()
victim = Rootfs(n1, ["base", "app", "clean"], "victim")
print(victim.answer("/opt/password"))
print("opt in the container:", n1.succeed(f"ls {victim.mount()}/opt").split())

# %%
password = ...
lesson.check(14, password, measured=hidden)

# %% [markdown] lang="en"
# ## Summary
#
# An image is files, configuration and directories, and no kernel: whoever runs it brings one. Its layers are read-only and shared; an init layer makes containers different; what one writes goes into a layer of its own.
# Copy-up, whiteout and opaque directory are all that overlayfs needs to make three directories look like one. `pivot_root` makes that one the only world there is.
#
# **Ask yourself:** why is a container started faster than a disk image is copied? Why should a container keep its data base *not* in its root? What does the first write to a 10 GB file cost?
#
# **Further reading:** Linux, *Documentation/filesystems/overlayfs.rst*; `man 2 pivot_root`, `man 2 chroot`; the OCI image specification, *layer.md*.

# %% [markdown] lang="zh" of="fb338798"
# ## 小结
#
# 镜像就是文件、配置和目录，没有内核：谁运行它，谁提供内核。它的各层只读，大家共享；init 层让容器各不相同；容器写的东西放进它自己的一层。
# 有了向上复制、遮蔽文件和不透明目录，overlayfs 就能让三个目录看起来像一个。`pivot_root` 让这一个成为唯一的世界。
#
# **问问自己：** 为什么启动容器比复制磁盘镜像快？为什么容器的数据库*不*应该放在它的根里？第一次写一个 10 GB 的文件，代价有多大？
#
# **延伸阅读：** Linux 内核文档 *Documentation/filesystems/overlayfs.rst*；`man 2 pivot_root`、`man 2 chroot`；OCI 镜像规范的 *layer.md*。

# %% [markdown] lang="en"
# **Terms.** image 镜像 · root file system 根文件系统 · layer 层 · read-only layer 只读层 · init layer init 层 · read-write layer 可读写层 · overlay 叠加文件系统 · copy-up 向上复制 · whiteout 遮蔽文件 · opaque directory 不透明目录 · extended attribute 扩展属性 · mount 挂载 · commit 提交 · archive 归档文件

# %% [markdown] lang="zh" of="05a13ea3"
# **术语。** 镜像 image · 根文件系统 root file system · 层 layer · 只读层 read-only layer · init 层 init layer · 可读写层 read-write layer · 叠加文件系统 overlay · 向上复制 copy-up · 遮蔽文件 whiteout · 不透明目录 opaque directory · 扩展属性 extended attribute · 挂载 mount · 提交 commit · 归档文件 archive

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
lesson.check(1, len(regular), measured=len(regular))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, "the guest's kernel")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, "both")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, "the whole file")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(5, "a device")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, hides("mknod upper/etc/passwd c 0 0"))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, "the old files")

# %% tags=["solution"]
# A solution · 参考答案
def answers(path, layers):
    for name, kinds in layers.items():
        if path in kinds:
            return None if kinds[path] == "whiteout" else name
        if any(kinds.get(upper) in ("whiteout", "opaque directory") for upper in above(path)):
            return None

given = [answers(path, layers) for path in mine.paths if path != "/"]
lesson.check(8, given, measured=truth)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, ["C", "D", "C", "A"])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, True)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, False)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, "under 0.2 MiB")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, [True, True, False])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(14, n1.succeed(f"cat {kept.path('app')}/opt/password").strip(), measured=hidden)

# %% [markdown] lang="en"
# Nothing stays behind: closing the lab ends the guest, and with it every layer and mount that lived in its memory.

# %% [markdown] lang="zh" of="0ffedb27"
# 什么都不会留下：关闭实验室会结束客户机，它内存里的每一层、每个挂载也随之消失。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
