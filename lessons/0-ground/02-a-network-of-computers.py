# ---
# jupyter:
#   cloudlab:
#     title: {en: "A network of computers", zh: "由计算机组成的网络"}
#     minutes: 35
#     partly: ["2.01", "2.07"]
#     ids: []
#     needs: ["0-ground/01-a-computer-inside-a-computer"]
# ---

# %% [markdown] lang="en"
# # A network of computers
#
# In 35 minutes you will have built five networks, read every byte on their cables, written the heart of a switch, and broken each network in a way of its own.
#
# You need nothing but this notebook: no administrator's rights, no real network. Contents: a network in one cell · what is on the wire · how a switch learns · a cut cable ·
# slow, far and bad links · two networks on one switch · a loop · inside and outside · exercises.

# %% [markdown] lang="zh" of="1b463be8"
# # 由计算机组成的网络
#
# 三十五分钟后，你会搭建过五个网络，读过线缆上的每一个字节，亲手写出交换机的核心，并用不同的方式把每个网络弄坏一次。
#
# 只需要这个笔记本：不需要管理员权限，也不需要真实的网络。内容：一个单元就是一个网络 · 线缆上有什么 · 交换机如何学习 · 剪断网线 · 又慢、又远、又差的链路 · 一台交换机上的两个网络 · 环路 · 内部与外部 · 练习。

# %% [markdown] lang="en"
# **You will do:** start machines and switches, capture frames and take them apart, cut and spoil cables, separate two networks, tame a loop, and open one door in a router.
#
# **You will learn** the words *frame*, *ARP*, *MAC table*, *flooding*, *carrier*, *VLAN*, *trunk*, *spanning tree*, *router*, *NAT*, *internal* and *external network*. Where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="41a2aefc"
# **你要做的：** 启动机器和交换机，捕获帧并把它拆开，剪断和损坏网线，隔开两个网络，驯服一个环路，并在路由器上开一扇门。
#
# **你会学到** 这些词：*帧 (frame)*、*地址解析协议 (ARP)*、*MAC 地址表 (MAC table)*、*泛洪 (flooding)*、*载波 (carrier)*、*虚拟局域网 (VLAN)*、*中继 (trunk)*、*生成树 (spanning tree)*、*路由器 (router)*、*网络地址转换 (NAT)*、*内部网络*与*外部网络*。看到 `...` 的地方，换成你自己的答案。

# %%
import json, random
from cloudlab import Lab, Lesson, Topology, figure, live, ring, show_source, star, terminal
from cloudlab.networks import Switch

lesson = Lesson("0-ground/02-a-network-of-computers")
lab = Lab(accelerator="tcg")  # each instruction of a guest is translated, on any computer

# %% [markdown] lang="en"
# ## A network in one cell
#
# `star(4)` is only a plan: four machines, each with a cable to one *switch*. `lab.start` makes it real: four guests, each a computer as in the lesson before, and a switch, which is a program of ours.

# %% [markdown] lang="zh" of="df1ecec1"
# ## 一个单元就是一个网络
#
# `star(4)` 只是一张图纸：四台机器，每台用一根网线接到同一台*交换机 (switch)*。`lab.start` 把它变成现实：四台客户机，每台都和上一课的一样是一台计算机；还有一台交换机，它是我们写的一个程序。

# %%
plan = star(4)
net = lab.start(plan)
print(net)
figure(plan, "Four machines on one switch")

# %% [markdown] lang="en"
# **Predict:** names tell addresses here. `n1` has the address 10.0.0.1 and its network card the number 52:54:00:00:00:01. What is the address of `n3`? Write a text in quotation marks.

# %% [markdown] lang="zh" of="43cf85bb"
# **预测：** 在这里，名字决定地址。`n1` 的地址是 10.0.0.1，它的网卡号码是 52:54:00:00:00:01。`n3` 的地址是什么？写一个带引号的文本。

# %%
address = ...
lesson.predict(1, address)

# %%
print(net["n3"].succeed("ip -br -4 address show eth0; cat /sys/class/net/eth0/address"))
lesson.check(1, address)

# %% [markdown] lang="en"
# Does everybody reach everybody? `ping` sends a small packet that asks for an answer; `ping_all` has each machine ping each other one:

# %% [markdown] lang="zh" of="2054d4d9"
# 每台机器都能到达其他每一台吗？`ping` 发出一个请求应答的小数据包；`ping_all` 让每台机器 ping 其他所有机器：

# %%
net.ping_all()

# %% [markdown] lang="en"
# Keep the network in sight while you go on: a right click on the picture, then *Create New View for Cell Output*. It follows what happens: traffic, cut cables, crashes.

# %% [markdown] lang="zh" of="9ceb6a8e"
# 后面的实验中，让网络一直在你眼前：右键点击图片，选择 *Create New View for Cell Output*。它会跟随发生的一切：流量、断开的网线、崩溃的机器。

# %% tags=["nbval-ignore-output"]
live(lab, "Our networks as they are now")

# %% [markdown] lang="en"
# And this is the console of `n1`. Click into it, type `ping -c5 n2` and Enter, and look at the picture above. (Names are known in every guest: `cat /etc/hosts`.)

# %% [markdown] lang="zh" of="8b9f3726"
# 这是 `n1` 的控制台。点进去，输入 `ping -c5 n2` 并回车，同时看上面的图。（每台客户机都认识这些名字：`cat /etc/hosts`。）

# %% tags=["nbval-ignore-output"]
terminal(net["n1"], rows=12)

# %% [markdown] lang="en"
# What your fingers can do, a cell can do too; it types into the same console:

# %% [markdown] lang="zh" of="3997040e"
# 你的手指能做的，单元也能做；它往同一个控制台里输入：

# %%
print(net["n1"].console.enter("ping -c1 n2 | grep received"))
print(figure(net))

# %% [markdown] lang="en"
# ## What is on the wire
#
# Nothing but *frames*: pieces of up to 1514 bytes, each with a destination, a source and a type in front. A *capture* records all that pass one cable.
#
# **Predict:** `n1` has never heard of `n2` and pings it once. How many frames pass the cable of `n2`?

# %% [markdown] lang="zh" of="205a4a35"
# ## 线缆上有什么
#
# 只有*帧 (frame)*：最长 1514 字节的片段，每个开头都写着目的地址、源地址和类型。*捕获 (capture，俗称抓包)* 会记下经过一根网线的所有帧。
#
# **预测：** `n1` 从没听说过 `n2`，现在 ping 它一次。有几个帧经过 `n2` 的网线？

# %%
frames = ...
lesson.predict(2, frames)

# %%
def forget_neighbours():
    for machine in net.machines.values():
        machine.succeed("ip neighbour flush all")

n1, n2, s1 = net["n1"], net["n2"], net["s1"]
forget_neighbours()
with net.link("n2", "s1").capture() as wire:
    n1.succeed("ping -c1 n2")
print(wire)
lesson.check(2, frames)

# %% [markdown] lang="en"
# `n1` knew only the address 10.0.0.2, but a frame goes to a *card*. So it asked everybody (*broadcast*, ff:ff:ff:ff:ff:ff) whose that is: this is ARP, the Address Resolution Protocol. Here is that first frame, byte by byte:

# %% [markdown] lang="zh" of="f40e6101"
# `n1` 只知道地址 10.0.0.2，可是帧要送到一块*网卡*。于是它问所有人（*广播 (broadcast)*，ff:ff:ff:ff:ff:ff）这个地址是谁的：这就是地址解析协议 (ARP, Address Resolution Protocol)。下面逐字节看这第一个帧：

# %%
frame = wire.frames[0].frame
print("to  ", frame[0:6].hex(":"))
print("from", frame[6:12].hex(":"))
print("type", frame[12:14].hex(), "(ARP)")
print("rest", frame[14:].hex(" "))

# %% [markdown] lang="en"
# Can you find the two IPv4 addresses in the rest? (10.0.0.1 is `0a 00 00 01`.)
#
# **Exercise.** Change the cell above so that it shows the third frame, the ping itself. What is its type? Write the four digits as a text.

# %% [markdown] lang="zh" of="39fa2c4e"
# 你能在剩下的字节里找到两个 IPv4 地址吗？（10.0.0.1 就是 `0a 00 00 01`。）
#
# **练习。** 修改上面的单元，让它显示第三个帧，也就是 ping 本身。它的类型是什么？把四位数字写成文本。

# %%
kind = ...
lesson.check(3, kind)

# %% [markdown] lang="en"
# A capture is a file that every tool of the trade reads. Save it for Wireshark, or hand it to `tcpdump` in a guest:

# %% [markdown] lang="zh" of="23e9cefa"
# 捕获可以存成业界所有工具都能读的文件。可以存下来给 Wireshark 看，也可以交给客户机里的 `tcpdump`：

# %%
file = wire.save(lab.path("first-ping.pcap"))
n1.put("/root/first-ping.pcap", file)
print(n1.succeed("tcpdump -n -t -r /root/first-ping.pcap | sed 's/ id [0-9]*,//'"))

# %% [markdown] lang="en"
# ## How a switch learns
#
# Nobody has told the switch who is where. **Predict:** we have it forget all it knows. Then `n1` pings `n2` three times: six frames. How many of them also come out at `n3`, whom they do not concern?

# %% [markdown] lang="zh" of="3a82ffea"
# ## 交换机如何学习
#
# 没有人告诉过交换机谁在哪里。**预测：** 我们让它忘掉所知道的一切。然后 `n1` ping `n2` 三次：六个帧。其中有几个也会从与此无关的 `n3` 那里出来？

# %%
at_n3 = ...
lesson.predict(4, at_n3)

# %%
n2.succeed("ip neighbour flush all; ping -c1 n1")  # so that no ARP comes in between
s1.forget()
print("before:", s1.mac_table)
with net.link("n2", "s1").capture() as at_2, net.link("n3", "s1").capture() as at_3:
    n1.succeed("ping -c3 -i0.2 n2")
print(len(at_2), "frames at n2;", len(at_3), "at n3:")
print(at_3)
for vlan, mac, port in sorted(s1.mac_table):
    print("learned:", mac, "is behind port", port)
lesson.check(4, at_n3)

# %% [markdown] lang="en"
# From each frame's *source* the switch learns behind which port that card is. It has no other knowledge. Read how it decides; this is the code that has just run:

# %% [markdown] lang="zh" of="791e7c39"
# 交换机从每个帧的*源地址*学到那块网卡在哪个端口后面。除此之外它一无所知。读一读它是怎么决定的；刚才运行的就是这段代码：

# %%
show_source(Switch.receive, Switch._learn, Switch._destinations)

# %% [markdown] lang="en"
# **Exercise.** Write the heart of it yourself, without VLANs, ageing and spanning tree. `table` is a dictionary that stays from frame to frame; `port` is where the frame came in. Return the list of ports it leaves through: *learn, then look up, else flood*.
#
# First a judge: it sends the same 300 random frames to your function and to a real `Switch`.

# %% [markdown] lang="zh" of="7e6e3bef"
# **练习。** 自己写出它的核心，不考虑 VLAN、老化和生成树。`table` 是一个字典，在各帧之间一直保留；`port` 是帧进来的端口。返回帧要离开的端口列表：*先学习，再查表，查不到就泛洪 (flooding)*。
#
# 先准备一个裁判：它把同样的 300 个随机帧分别交给你的函数和一台真正的 `Switch`。

# %%
def judge(decide):
    switch, chance, table, ports = Switch("s9"), random.Random(2), {}, ["n1", "n2", "n3", "n4"]
    plugs = {port: switch.add_port(port) for port in ports}
    cards = [bytes([2, 0, 0, 0, 0, number]) for number in range(8)]
    mine, real = [], []
    for _ in range(300):
        port, source, to = (chance.choice(some) for some in (ports, cards, [*cards, b"\xff" * 6]))
        outputs = switch.receive(plugs[port], to + source + b"\x08\x00")
        mine.append(decide(table, ports, port, source, to))
        real.append([out.name for out, _ in outputs])
    return mine, real

# %%
def decide(table, ports, port, source, destination):
    return ...

mine, real = judge(decide)
print(sum(a == b for a, b in zip(mine, real)), "of 300 frames go where the switch sends them")
lesson.check(5, mine, measured=real)

# %% [markdown] lang="en"
# ## A cut cable
#
# A link is ours to spoil. `cut` pulls the cable of `n2` out. Both ends notice at once, because the *carrier*, the signal that says "somebody is there", is gone:

# %% [markdown] lang="zh" of="b8e5c4f7"
# ## 剪断网线
#
# 链路任由我们摆布。`cut` 会拔掉 `n2` 的网线。两端立刻就会察觉，因为*载波 (carrier)*，也就是表示“对面有人”的信号，消失了：

# %%
cable = net.link("n2", "s1")
cable.cut()
print(n2.wait_until_succeeds("ip -br link show eth0 | grep NO-CARRIER"))
print("n1 reaches n2:", n1.test("ping -c1 -W1 n2"))
print("s1 still knows:", "n2" in [port for _, _, port in s1.mac_table])
print(figure(net))

# %% [markdown] lang="en"
# **Predict:** a file of 4 MiB is on its way from `n1` to `n2` over TCP. In the middle of it the cable is cut for a second, then healed. What becomes of the transfer: `"it goes on"`, `"it fails"` or `"it begins anew"`?

# %% [markdown] lang="zh" of="fce72596"
# **预测：** 一个 4 MiB 的文件正通过 TCP 从 `n1` 传到 `n2`。传到一半，网线被剪断一秒钟，然后接好。传输会怎样：`"it goes on"`（接着传）、`"it fails"`（失败）还是 `"it begins anew"`（从头再来）？

# %%
cable.heal()
cable.set(rate="20M")  # bits a second: slow enough to be caught in the middle
transfer = ...
lesson.predict(6, transfer)

# %%
n1.succeed("head -c 4M /dev/urandom >/root/file")
n2.run("nc -l 5000 </dev/null >/root/copy 2>/dev/null &")
n2.wait_until_succeeds("ss -ltn | grep :5000")
n1.run("nc -N n2 5000 </root/file >/dev/null 2>&1 &")
n2.wait_until_succeeds("test -s /root/copy")
cable.cut()
first, later = (int(n2.succeed("sleep 0.5; stat -c %s /root/copy")) for look in range(2))
print("it stands still:", first == later < 4 << 20)
cable.heal()
n2.wait_until_succeeds("test $(stat -c %s /root/copy) = 4194304")
print("the same file:", n2.get("/root/copy") == n1.get("/root/file"))
lesson.check(6, transfer)

# %% [markdown] lang="en"
# ## Slow, far and bad links
#
# **Predict:** the cable of `n2` becomes 10,000 km long: each frame takes 50 ms. How many milliseconds does a ping from `n1` to `n2` take now, there and back?

# %% [markdown] lang="zh" of="bb026103"
# ## 又慢、又远、又差的链路
#
# **预测：** `n2` 的网线变成一万公里长：每个帧要走 50 ms。现在从 `n1` ping `n2`，来回要多少毫秒？

# %%
rtt_ms = ...
lesson.predict(7, rtt_ms)

# %%
cable.set(delay="50ms", rate=None)
said = n1.succeed("ping -q -c4 -i0.2 n2")  # …, rtt min/avg/max/mdev = 100.8/…
fastest = float(said.split(" = ")[1].split("/")[0])
print("from 100 to 120 ms:", 100 <= fastest < 120)
lesson.check(7, rtt_ms)

# %% [markdown] lang="en"
# Now `iperf3` sends as fast as it can for 2 seconds over a link with 10 ms delay, and then over the same link losing 3 of 100 frames. TCP sends again what was lost, so that nothing is missing in the end.
#
# **Predict:** how much of the speed is left: `"nearly all"`, `"about a half"` or `"less than a quarter"`?

# %% [markdown] lang="zh" of="c12c5378"
# 现在 `iperf3` 通过一条时延 10 ms 的链路全速发送 2 秒，然后让同一条链路每 100 帧丢 3 帧，再测一次。TCP 会重传丢失的部分，所以最后什么都不会缺。
#
# **预测：** 速度还剩多少：`"nearly all"`（几乎全部）、`"about a half"`（大约一半）还是 `"less than a quarter"`（不到四分之一）？

# %%
speed_left = ...
lesson.predict(8, speed_left)

# %%
def speed(port, **conditions):
    cable.set(**conditions)
    n2.succeed(f"iperf3 -s -1 -D -p {port}")
    n2.wait_until_succeeds(f"ss -ltn | grep :{port}")
    report = json.loads(n1.succeed(f"iperf3 -c n2 -p {port} -t 2 -J"))
    return report["end"]["sum_received"]["bits_per_second"]

good, bad = speed(5201, delay="10ms"), speed(5202, loss=0.03)
print("over a half:", bad > good / 2, "| over a quarter:", bad > good / 4)
lesson.check(8, speed_left)

# %% [markdown] lang="en"
# ## Two networks on one switch
#
# Two tenants of a cloud share its switches, and must not see each other. A *VLAN* (virtual LAN) is a number that the switch gives to each frame by the port it comes in at. Between switches one cable carries all VLANs: a *trunk*.

# %% [markdown] lang="zh" of="cc555ef1"
# ## 一台交换机上的两个网络
#
# 云的两个租户共用交换机，却不能看见对方。*虚拟局域网 (VLAN)* 是交换机按帧进来的端口给它的一个编号。交换机之间用一根线承载所有 VLAN：这就是*中继 (trunk)*。

# %%
net.close()
plan = Topology().switch("s1").switch("s2").link("s1", "s2", trunk=[10, 20])
places = [("n1", "s1", 10), ("n2", "s1", 20), ("n3", "s2", 10), ("n4", "s2", 20)]
for name, switch, vlan in places:
    plan.machine(name).link(name, switch, vlan=vlan)
figure(plan, "n1 and n3 are in VLAN 10, n2 and n4 in VLAN 20")

# %% [markdown] lang="en"
# **Predict:** four machines make 12 pings. How many are answered?

# %% [markdown] lang="zh" of="352f53b1"
# **预测：** 四台机器一共 ping 12 次。有几次得到应答？

# %%
answered = ...
lesson.predict(9, answered)

# %%
net = lab.start(plan)
lesson.check(9, answered)
net.ping_all(timeout_s=1)

# %% [markdown] lang="en"
# How does `s2` know to which VLAN a frame from `s1` belongs? Look at the trunk: there each frame has four bytes more, the *tag* (IEEE 802.1Q): `81 00`, then the number.

# %% [markdown] lang="zh" of="b8ecce77"
# `s2` 怎么知道从 `s1` 来的帧属于哪个 VLAN？看看中继线：那里的每个帧都多了四个字节，即*标签 (tag)*（IEEE 802.1Q）：`81 00`，后面是编号。

# %%
forget_neighbours()
with net.link("s1", "s2").capture() as trunk, net.link("n3", "s2").capture() as access:
    net["n1"].succeed("ping -c1 n3")
print(trunk.only("ARP", "ICMP"))
print("trunk:      ", trunk.only("ICMP").frames[0].frame[:18].hex(" "))
print("cable of n3:", access.only("ICMP").frames[0].frame[:18].hex(" "))

# %% [markdown] lang="en"
# ## A loop
#
# Two ways are safer than one, so somebody links three switches in a ring. **Predict:** `n1` asks everybody one ARP question. How often does it pass the link between `s1` and `s2`: `"once"`, `"twice"` or `"over 1000 times"`?

# %% [markdown] lang="zh" of="6afb0bb7"
# ## 环路
#
# 两条路比一条路保险，于是有人把三台交换机连成了环。**预测：** `n1` 向所有人发出一个 ARP 询问。它会经过 `s1` 和 `s2` 之间的链路多少次：`"once"`（一次）、`"twice"`（两次）还是 `"over 1000 times"`（超过一千次）？

# %%
passes = ...
lesson.predict(10, passes)

# %% tags=["nbval-ignore-output"]
net.close()
net = lab.start(ring(3, spanning_tree=False))
n1, s1, between = net["n1"], net["s1"], net.link("s1", "s2")
before = between.frames
reached = n1.test("ping -c1 -W1 n2")

# %%
print("over 1000 frames:", between.frames - before > 1000)
print("n1 reaches n2:", reached)
print("s1 knows its own n1:", (1, "52:54:00:00:00:01", "n1") in s1.mac_table)
print(lab.notices[0])
lesson.check(10, passes)

# %% [markdown] lang="en"
# This is a *broadcast storm*. A frame has no counter that ends it, and each round teaches the switches nonsense: even `s1` now looks for `n1` behind another switch. Ours pass on only 2000 floods a second; real ones, without a limit, take the network down.
#
# The cure is a *spanning tree*: the switches agree on a root (the smallest number), keep the shortest ways to it, and close the rest. **Predict:** which link is left out? Write it as in `"s1-s2"`.

# %% [markdown] lang="zh" of="998298b0"
# 这就是*广播风暴 (broadcast storm)*。帧里没有让它终止的计数器，而且每转一圈都会教给交换机错误的知识：连 `s1` 现在都以为 `n1` 在别的交换机后面。我们的交换机每秒只转发 2000 次泛洪；没有限制的真实交换机会让整个网络瘫痪。
#
# 解药是*生成树 (spanning tree)*：交换机商定一个根（编号最小者），保留通往根的最短路径，关闭其余的。**预测：** 哪条链路会被舍弃？照 `"s1-s2"` 的样子写。

# %%
left_out = ...
lesson.predict(11, left_out)

# %%
net.close()
net = lab.start(ring(3, spanning_tree=True))
print(repr(net.ping_all()))
print("closed ports:", {name: switch.blocked for name, switch in net.switches.items()})
lesson.check(11, left_out)

# %% [markdown] lang="en"
# The closed link waits. Cut one of the others, and the switches open it by themselves:

# %% [markdown] lang="zh" of="d8ce036a"
# 被关闭的链路在待命。剪断另外一条，交换机就会自动把它打开：

# %%
net.link("s1", "s2").cut()
net["n1"].wait_until_succeeds("ping -c1 -W1 n2")
print("closed ports:", {name: switch.blocked for name, switch in net.switches.items()})
print(figure(net))

# %% [markdown] lang="en"
# ## Inside and outside
#
# A cloud has an *internal network*, where its machines talk to each other and to the provider, and an *external* one, where users are. Between them stands a *router*. Topologies can be written down as YAML; `r1` has its first cable inside, its second outside:

# %% [markdown] lang="zh" of="00a48818"
# ## 内部与外部
#
# 云有一个*内部网络 (internal network)*，虚拟机之间、虚拟机与服务商之间在这里通信；还有一个*外部网络 (external network)*，用户在那里。两者之间是*路由器 (router)*。拓扑可以写成 YAML；`r1` 的第一根线在内部，第二根在外部：

# %%
net.close()
plan = Topology.from_yaml("""
machines: [n1, n2, n7]
routers: [r1]
switches: {s1: {subnet: 10.0.0.0/16}, s2: {subnet: 203.0.113.0/24}}
links: [[n1, s1], [n2, s1], [r1, s1], [r1, s2], [n7, s2]]
""")
net = lab.start(plan)
n1, n7, r1 = net["n1"], net["n7"], net["r1"]
print(r1.succeed("ip -br -4 address show scope global | awk '{print $1, $3}'"))
figure(plan, "Inside: n1, n2. Outside: n7, a user")

# %% [markdown] lang="en"
# **Predict:** `n1` pings `n7`. As which address does `n7` see it come?

# %% [markdown] lang="zh" of="5d63395b"
# **预测：** `n1` ping `n7`。在 `n7` 看来，它来自哪个地址？

# %%
seen_from = ...
lesson.predict(12, seen_from)

# %%
with net.link("n1", "s1").capture() as inside, net.link("n7", "s2").capture() as outside:
    n1.succeed("ping -c1 n7")
print("inside:", inside.only("ICMP"), "outside:", outside.only("ICMP"), sep="\n")
lesson.check(12, seen_from)

# %% [markdown] lang="en"
# The router wrote its own address over that of `n1` (*NAT*, network address translation) and remembers whom the answer is for. So all of the inside shares one outside address. And if the user begins? `n1` has a web server now:

# %% [markdown] lang="zh" of="c7eb9e69"
# 路由器用自己的地址替换了 `n1` 的地址（*网络地址转换 (NAT)*），并记住应答该交给谁。于是整个内部共用一个外部地址。如果由用户先开口呢？现在 `n1` 上有一个网页服务器：

# %%
n1.run("mkdir -p /srv; echo hello from n1 >/srv/index.html; busybox httpd -h /srv")
print("n2, inside:", net["n2"].succeed("curl -s http://10.0.0.1").strip())
print("n7, by n1's address:", n7.run("curl -sS http://10.0.0.1").stderr.strip())
print("n7, by r1's address:", n7.run("curl -sS http://203.0.113.254").stderr.strip())

# %% [markdown] lang="en"
# 10.0.0.1 is nowhere in the outside's map, and at the router itself nobody listens.
#
# **Predict:** `n7` is a neighbour of `r1` and cheats: it tells its kernel that 10.0.0.0/16 is reached through `r1`. Does it get the page now? `True` or `False`?

# %% [markdown] lang="zh" of="42bba0ae"
# 10.0.0.1 不在外部的地图上，而路由器自己那里没有人在监听。
#
# **预测：** `n7` 是 `r1` 的邻居，它耍了个花招：告诉自己的内核，10.0.0.0/16 要经过 `r1` 去。这下它能拿到网页吗？`True` 还是 `False`？

# %%
gets_in = ...
lesson.predict(13, gets_in)

# %%
n7.succeed("ip route add 10.0.0.0/16 via 203.0.113.254")
print(n7.run("curl -s http://10.0.0.1").stdout)
n7.succeed("ip route del 10.0.0.0/16")
lesson.check(13, gets_in)

# %% [markdown] lang="en"
# ## Exercises
#
# 1. **Publish one port.** Users shall reach the web server at port 8080 of the router's outside address (a cloud's *floating IP* is such a rule for all ports of one machine). Complete the rule: what comes in on `eth1` for TCP port 8080 gets the destination (*dnat*) 10.0.0.1, port 80. Pattern: `"iifname CARD tcp dport PORT dnat to ADDRESS:PORT"`.
# 2. **A handshake.** Capture the cable of `n7` while it fetches the page. How many frames carry the flag `SYN`?

# %% [markdown] lang="zh" of="e65719c9"
# ## 练习
#
# 1. **发布一个端口。** 让用户通过路由器外部地址的 8080 端口访问网页服务器（云的*浮动 IP (floating IP)* 就是针对一台机器所有端口的这种规则）。补全规则：从 `eth1` 进来、目标是 TCP 8080 端口的包，目的地址改为 (*dnat*) 10.0.0.1 的 80 端口。格式：`"iifname 网卡 tcp dport 端口 dnat to 地址:端口"`。
# 2. **握手。** 在 `n7` 取网页时捕获它的网线。有几个帧带有 `SYN` 标志？

# %%
def visit(rule):
    r1.succeed("nft 'add chain ip nat pre { type nat hook prerouting priority dstnat; }'")
    r1.succeed(f"nft flush chain ip nat pre; nft add rule ip nat pre {rule}")
    return n7.run("curl -s http://203.0.113.254:8080").stdout.strip()

rule = ...
page = ... if rule is ... else visit(rule)
lesson.check(14, page)

# %%
syn = ...
lesson.check(15, syn)

# %% [markdown] lang="en"
# ## Summary
#
# Frames go from card to card; a switch learns from their sources and floods what it does not know, so it needs a tree. TCP turns a bad cable into a slow one.
# VLANs cut one switch into several; a router joins networks, and NAT hides one behind an address. A cloud's network is made of exactly these parts, in software, as here.
#
# **Ask yourself:** why must a switch forget after a while? Why does loss hurt more the farther the other end is? Who, in a cloud, owns `r1`?
#
# **Further reading:** Peterson and Davie, *Computer Networks: A Systems Approach*, chapters 3 and 5 (free on the web); RFC 826 (ARP); RFC 3022 (NAT); `man nft`.

# %% [markdown] lang="zh" of="eeb7fd0d"
# ## 小结
#
# 帧从网卡到网卡；交换机从源地址学习，不知道的就泛洪，所以它需要一棵树。TCP 把差的网线变成慢的网线。
# VLAN 把一台交换机切成几台；路由器连接网络，NAT 把一个网络藏在一个地址后面。云的网络正是由这些部件组成的，并且像这里一样由软件实现。
#
# **问问自己：** 为什么交换机过一段时间必须遗忘？为什么对端越远，丢包的伤害越大？在云里，`r1` 归谁所有？
#
# **延伸阅读：** Peterson 与 Davie《计算机网络：系统方法》第 3、5 章（英文版可在网上免费阅读）；RFC 826 (ARP)；RFC 3022 (NAT)；`man nft`。

# %% [markdown] lang="en"
# **Terms.** frame 帧 · broadcast 广播 · ARP 地址解析协议 · capture 捕获 · switch 交换机 · MAC table MAC 地址表 · flooding 泛洪 · carrier 载波 · delay 时延 · loss 丢包 · VLAN 虚拟局域网 · trunk 中继 · tag 标签 · broadcast storm 广播风暴 · spanning tree 生成树 · router 路由器 · NAT 网络地址转换 · internal / external network 内部 / 外部网络 · floating IP 浮动 IP

# %% [markdown] lang="zh" of="c78ca6fd"
# **术语。** 帧 frame · 广播 broadcast · 地址解析协议 ARP · 捕获 capture · 交换机 switch · MAC 地址表 MAC table · 泛洪 flooding · 载波 carrier · 时延 delay · 丢包 loss · 虚拟局域网 VLAN · 中继 trunk · 标签 tag · 广播风暴 broadcast storm · 生成树 spanning tree · 路由器 router · 网络地址转换 NAT · 内部 / 外部网络 internal / external network · 浮动 IP floating IP

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
lesson.check(1, "10.0.0.3")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, len(wire))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(3, wire.frames[2].frame[12:14].hex())

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, 1)

# %% tags=["solution"]
# A solution · 参考答案
def decide(table, ports, port, source, destination):
    table[source] = port
    if destination in table:
        return [table[destination]] if table[destination] != port else []
    return [other for other in ports if other != port]

mine, real = judge(decide)
lesson.check(5, mine, measured=real)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, "it goes on")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, 2 * 50)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, "less than a quarter")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, 4)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, "over 1000 times")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, "s2-s3")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, "203.0.113.254")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(13, True)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(14, visit("iifname eth1 tcp dport 8080 dnat to 10.0.0.1:80"))

# %% tags=["solution"]
# A solution · 参考答案
with net.link("n7", "s2").capture() as outside:
    n7.succeed("curl -s --local-port 40000 http://203.0.113.254:8080")
with_syn = [row.info for row in outside if "SYN" in row.info]
print(with_syn)
lesson.check(15, len(with_syn))

# %% [markdown] lang="en"
# Nothing stays behind: closing the lab ends every guest, switch and cable, and removes its files.

# %% [markdown] lang="zh" of="8c092524"
# 什么都不会留下：关闭实验室会结束每台客户机、每台交换机和每根网线，并删除它的文件。

# %%
print("stopped:", ", ".join(sorted(lab.close())))
