# ---
# jupyter:
#   cloudlab:
#     title: {en: "What is a cloud?", zh: "什么是云计算"}
#     minutes: 35
#     ids: ["1.01", "1.02", "1.03", "1.04", "1.05"]
#     needs: ["0-ground/01-a-computer-inside-a-computer"]
# ---

# %% [markdown] lang="en"
# # What is a cloud?
#
# In 35 minutes you will run a small cloud of real machines, rent from it as two customers, bill them for what they really used, and know what "cloud" means because you have seen each part of the definition happen.
#
# You need the first lesson's words *host* and *guest*. Contents: birth · the door · five characteristics · the bill · a crash · a full pool · planning capacity · three offers · definitions · a formula · exercises.

# %% [markdown] lang="zh" of="a940ba8b"
# # 什么是云计算
#
# 三十五分钟后，你会亲手运行一朵由真实机器组成的小云，以两个客户的身份从中租用机器，按实际用量给他们出账单；“云”的定义里的每一条，你都会亲眼看到它发生。
#
# 需要第一课里的两个词：*宿主机 (host)* 和 *客户机 (guest)*。内容：诞生 · 一扇门 · 五个特征 · 账单 · 一次崩溃 · 池子满了 · 容量规划 · 三类供给 · 定义 · 一个公式 · 练习。

# %% [markdown] lang="en"
# **You will do:** write the call that hands out machines, scale a shop with its load, meter CPU seconds, and find out when renting is cheaper than owning.
#
# **You will learn** the words *self-service*, *resource pool*, *tenant*, *elasticity*, *metering*, *pay per use*, *XaaS*. Run each cell with Shift-Enter; where you see `...`, write your own answer in its place.

# %% [markdown] lang="zh" of="dfcd4d97"
# **你要做的：** 写出分配机器的那个调用，让一家网店随负载伸缩，计量 CPU 秒数，并算出什么时候租比买划算。
#
# **你会学到** 这些词：*自助服务 (self-service)*、*资源池 (resource pool)*、*租户 (tenant)*、*弹性 (elasticity)*、*计量 (metering)*、*按使用付费 (pay per use)*、*XaaS*。用 Shift-Enter 运行每个单元；看到 `...` 的地方，换成你自己的答案。

# %%
import time
import plotly.graph_objects as go
from cloudlab import Lab, Lesson, UsageError, figure

lesson = Lesson("1-cloud/01-what-is-a-cloud")
lab = Lab(guests=6, accelerator="tcg")  # the provider has room for six guests
clear = "rgba(0,0,0,0)"  # figures without a background fit light and dark pages
plain = dict(template="none", paper_bgcolor=clear, plot_bgcolor=clear, font_color="#767676")
plain |= dict(margin_t=60, title_x=0.02)

# %% [markdown] lang="en"
# ## How it was born
#
# Three things can be rented over a network: finished *software*, whole *machines*, and *platforms* that run your code.
#
# **Predict:** in which order did they come to the market? Write a list such as `["machines", "software", "platforms"]`.

# %% [markdown] lang="zh" of="fa3b5bad"
# ## 云计算的诞生
#
# 通过网络可以租到三样东西：现成的*软件* (software)、整台的*机器* (machines)，以及替你运行代码的*平台* (platforms)。
#
# **预测：** 它们进入市场的先后顺序是什么？写成一个列表，例如 `["machines", "software", "platforms"]`。

# %%
order = ...
lesson.predict(1, order)

# %%
births = [
    (1999, "software", "Salesforce", "customer management in the browser"),
    (2002, "services", "Amazon Web Services", "Amazon's catalogue for programs"),
    (2006, "machines", "Amazon EC2", "and the word “cloud computing”"),
    (2008, "platforms", "Google App Engine", "a free preview"),
    (2009, "platforms", "App Engine, for pay", "the lecture's date"),
    (2011, "a definition", "NIST SP 800-145", "clouds are mainstream"),
]
for year, rented, who, what in births:
    print(year, f"{rented:13}", f"{who}: {what}")
lesson.check(1, order)

# %%
years, rented, who, what = zip(*births)
words = [f"<b>{year}</b> {name}<br>{about}" for year, name, about in zip(years, who, what)]
dots = go.Scatter(x=years, y=[6, 5, 4, 3, 2, 1], text=words, mode="markers+text")
dots.update(textposition="middle right", marker=dict(size=16, symbol="diamond", color="#0072B2"))
born = go.Figure(dots).update_layout(title="How the cloud was born", height=360, **plain)
born.update_xaxes(range=[1998, 2015], dtick=2)
born.update_yaxes(range=[0.4, 6.6], visible=False).update_layout(margin_b=40)

# %% [markdown] lang="en"
# ## A door to a pool
#
# Your own computer you buy, wait for and keep, used or not. Electricity you don't: you turn it on, and a meter counts. A cloud does that with computers:
# ```mermaid
# flowchart LR
#   accTitle: A cloud in one picture
#   accDescr: Users call request and release at the provider's door. The door hands out guests from a pool on the provider's hosts, and a meter notes what each user's guests use.
#   alice["alice"] & bob["bob"] -->|"request, release"| door["the door: self-service"]
#   subgraph provider["the provider"]
#     door --> pool["a pool of guests on shared hosts"]
#     pool --> meter["a meter for each user"]
#   end
# ```
# The door is two functions. Its second one is *yours to finish*: replace the dots by the one line that ends the guest.

# %% [markdown] lang="zh" of="e669fd1b"
# ## 通向资源池的一扇门
#
# 自己的计算机要买、要等、要养，用不用都在那里。电不是这样：打开开关就有，电表记数。云对计算机做的正是这件事：
# ```mermaid
# flowchart LR
#   accTitle: 一张图看懂云
#   accDescr: 用户在提供商的门口调用 request 和 release。这扇门从提供商宿主机上的资源池里分配客户机，计量表记下每个用户的客户机用了多少。
#   alice["alice"] & bob["bob"] -->|"request, release"| door["门：自助服务"]
#   subgraph provider["提供商"]
#     door --> pool["共享宿主机上的客户机池"]
#     pool --> meter["每个用户一块计量表"]
#   end
# ```
# 这扇门就是两个函数。第二个*由你来完成*：把省略号换成结束客户机的那一行。

# %%
owners = {}  # guest -> who rents it

def request(user):
    name = next(f"n{number}" for number in range(1, 99) if f"n{number}" not in owners)
    machine = lab.machine(name)
    owners[name] = user
    return machine

# %%
def release(machine):
    del owners[machine.name]
    ...  # your line: end it, with machine.close()

# %% [markdown] lang="en"
# ## 1 · On-demand self-service
#
# NIST, the standards institute of the USA, names five characteristics that make a cloud. The first: a customer gets what they need, when they need it, without asking anybody.
#
# **Predict:** how many seconds pass from alice's `request` until she is `root` on a machine of her own? (The very first guest ever takes some seconds longer.)

# %% [markdown] lang="zh" of="5efd83de"
# ## 1 · 按需自助服务 (on-demand self-service)
#
# 美国国家标准与技术研究院 (NIST) 列出了云的五个基本特征。第一个：客户需要什么、何时需要，自己就能得到，不必请求任何人。
#
# **预测：** 从 alice 调用 `request`，到她成为自己机器上的 `root`，要多少秒？（有史以来的第一台客户机会多花几秒。）

# %%
wait_s = ...
lesson.predict(2, wait_s)

# %%
began = time.monotonic()
alice = request("alice")
print("alice is", alice.succeed("whoami").strip())
took = time.monotonic() - began
bob = request("bob")
print(f"that took {took:.2f} s; who rents what: {owners}")
seen = {"on-demand self-service": took < 60}
lesson.check(2, wait_s, measured=took)

# %% [markdown] lang="en"
# Nobody at the provider's was asked. But if customers give back a guest and it runs on, the provider pays for it. Carol rents one and releases it at once;
# how many guests now run that nobody rents?

# %% [markdown] lang="zh" of="358b01aa"
# 提供商那边没有任何人参与。但如果客户退还了客户机，它却还在运行，费用就由提供商承担。carol 租了一台又立即退还；现在有几台客户机在运行却没有人租？

# %%
def running():
    return [name for name, machine in lab.machines.items() if machine.state.value == "running"]

def orphans():
    return [name for name in running() if name not in owners]

release(request("carol"))
lesson.check(3, len(orphans()))

# %% [markdown] lang="en"
# A provider trusts no such line, not even its own. Real clouds compare, again and again, their books with what really runs, and end what belongs to nobody:

# %% [markdown] lang="zh" of="5220396b"
# 提供商不会轻信这样一行代码，哪怕是自己写的。真实的云会反复核对账本与实际运行的机器，把无主的清理掉：

# %%
def reap():
    for name in orphans():
        lab[name].close()

reap()
print("running:", running(), "| nobody's:", orphans())

# %% [markdown] lang="en"
# ## 2 · Broad network access
#
# What is offered is reached over a network, by standard means, from any kind of device. Alice's and bob's guests are plugged into a switch (put the mouse on a link or a guest):

# %% [markdown] lang="zh" of="2fb6c39b"
# ## 2 · 广泛的网络接入 (broad network access)
#
# 所提供的东西通过网络、以标准方式访问，用什么设备都行。把 alice 和 bob 的客户机接到一台交换机上（把鼠标移到链路或客户机上看看）：

# %% tags=["nbval-ignore-output"]
lab.switch("s1")
for name in owners:
    lab.link(name, "s1")
figure(lab.topology.subgraph([*owners, "s1"]), "Two tenants on one switch")

# %% [markdown] lang="en"
# Alice serves a page. Bob reads it with three clients that have nothing in common: a tool, another tool, and one line typed by hand into a TCP connection.

# %% [markdown] lang="zh" of="34d36462"
# alice 提供一个网页。bob 用三个毫无共同之处的客户端来读：一个工具，另一个工具，还有手工写进 TCP 连接里的一行字。

# %%
page = "mkdir -p /www; echo hello from alice > /www/index.html; busybox httpd -h /www"
alice.succeed(page)
clients = {"curl": "curl -s http://n1/", "wget": "busybox wget -qO- http://n1/"}
clients["by hand"] = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc n1 80 | tail -1"
answers = {name: bob.succeed(command).strip() for name, command in clients.items()}
seen["broad network access"] = set(answers.values()) == {"hello from alice"}
answers

# %% [markdown] lang="en"
# **Predict:** we pull bob's cable. Which of the five characteristics has his cloud just lost? `"on-demand self-service"`, `"broad network access"`, `"resource pooling"`, `"rapid elasticity"` or `"measured service"`? (Look closely at what still works.)

# %% [markdown] lang="zh" of="ea0b5036"
# **预测：** 拔掉 bob 的网线，他的云刚刚失去了五个特征中的哪一个？`"on-demand self-service"`（按需自助服务）、`"broad network access"`（广泛的网络接入）、`"resource pooling"`（资源池化）、`"rapid elasticity"`（快速弹性）还是 `"measured service"`（可计量的服务）？（仔细看什么还能用。）

# %%
lost = ...
lesson.predict(4, lost)

# %%
cable = lab.links[1]
cable.cut()
print("alice's page for bob:  ", bob.run("curl -s -m 1 http://n1/").stdout.strip() or "no answer")
print("alice's page for alice:", alice.succeed("curl -s http://n1/").strip())
cable.heal()
lesson.check(4, lost)

# %% [markdown] lang="en"
# ## 3 · Resource pooling
#
# All *tenants* live on the same hosts. Each was promised a machine with 384 MiB of memory. **Predict:** how many MiB of the host does alice's guest take?

# %% [markdown] lang="zh" of="8a7a45e7"
# ## 3 · 资源池化 (resource pooling)
#
# 所有*租户 (tenant)* 住在同样的宿主机上。每人得到的承诺是一台 384 MiB 内存的机器。**预测：** alice 的客户机占用宿主机多少 MiB？

# %%
mib = ...
lesson.predict(5, mib)

# %% tags=["nbval-ignore-output"]
for machine in (alice, bob):
    print(owners[machine.name], machine.stats)

# %% [markdown] lang="en"
# *Alone* are pages that only this guest holds; *share* adds its part of those that several processes use, such as QEMU's own program.

# %% [markdown] lang="zh" of="5d818acc"
# *alone* 是只有这台客户机占有的内存页；*share* 再加上它在多个进程共用的页（例如 QEMU 程序本身）中分摊的那一份。

# %%
stats = alice.stats
print("takes less than half of what was promised:", stats.memory_pss < stats.memory_guest / 2)
print("shares pages with others:", stats.memory_pss > stats.memory_private)
lesson.check(5, mib, measured=stats.memory_pss / 2**20)

# %% [markdown] lang="en"
# Do neighbours who share a computer see each other? Bob is `root`, so if anybody could look into alice's machine, he could:

# %% [markdown] lang="zh" of="4a10d6b4"
# 共用一台计算机的邻居能互相看见吗？bob 是 `root`，如果有人能窥探 alice 的机器，那就该是他：

# %%
for what, command in {"files": "ls /www", "programs": "pgrep -f httpd"}.items():
    print(f"alice's {what:9} seen by alice:", alice.test(command), "| by bob:", bob.test(command))
shared = stats.memory_pss > stats.memory_private
seen["resource pooling"] = shared and not bob.test("pgrep -f httpd")

# %% [markdown] lang="en"
# ## 4 · Rapid elasticity
#
# `load` is the number of guests that a shop needs in each of six hours. **Predict:** if guests follow the load, for how many guest-hours is the shop billed in all? (A shop that owns machines for its busiest hour pays for 24.)

# %% [markdown] lang="zh" of="f831077a"
# ## 4 · 快速弹性 (rapid elasticity)
#
# `load` 是一家网店在六个小时里每小时所需的客户机台数。**预测：** 如果客户机数量跟随负载变化，网店一共要付多少“台时”？（按最忙时段自购机器的网店要付 24 台时。）

# %%
load = [1, 2, 4, 4, 2, 0]
guest_hours = ...
lesson.predict(6, guest_hours)

# %%
shop = []

def scale(wanted):
    while len(shop) < wanted:
        shop.append(request("shop"))
    while len(shop) > wanted:
        release(shop.pop())
    reap()

# %%
counts = []
for hour, wanted in enumerate(load):
    scale(wanted)
    counts.append(len(running()) - 2)  # alice and bob have one each
    print(f"hour {hour}: load {wanted}, guests {'#' * counts[-1]}")
seen["rapid elasticity"] = counts == load
lesson.check(6, guest_hours)

# %% [markdown] lang="en"
# ## 5 · Measured service, and pay per use
#
# A meter that both sides can read counts what was used. Alice computes for a second; bob's guest idles. Each CPU second costs one credit, and each MiB of memory that is kept for a customer 0.0002 credits a second.
#
# **Predict:** what does bob pay, compared with alice? `"nothing"`, `"less than half"` or `"the same"`?

# %% [markdown] lang="zh" of="94de81f0"
# ## 5 · 可计量的服务 (measured service) 与按使用付费 (pay per use)
#
# 一块双方都能查看的计量表记录用量。alice 计算一秒钟；bob 的客户机闲着。每 CPU 秒收一个积分，为客户保留的每 MiB 内存每秒收 0.0002 个积分。
#
# **预测：** 与 alice 相比，bob 付多少？`"nothing"`（不付）、`"less than half"`（不到一半）还是 `"the same"`（一样多）？

# %%
PER_CPU_S, PER_MIB_S = 1.0, 0.0002  # prices, in credits

def bill(cpu_s, seconds, mib=384):
    return PER_CPU_S * cpu_s + PER_MIB_S * mib * seconds

bob_pays = ...
lesson.predict(7, bob_pays)

# %%
def meters():
    return {name: lab[name].stats.cpu_s for name in owners}  # as the host's kernel counts

before, began = meters(), time.monotonic()
alice.run("timeout 1 sh -c 'while :; do :; done'")
elapsed = time.monotonic() - began
used = {name: cpu_s - before[name] for name, cpu_s in meters().items()}

# %% tags=["nbval-ignore-output"]
bills = {owners[name]: bill(cpu_s, elapsed) for name, cpu_s in used.items()}
for name, cpu_s in used.items():
    print(f"{owners[name]:6} CPU {cpu_s:5.2f} s, 384 MiB kept for {elapsed:.2f} s:", end=" ")
    print(f"{bills[owners[name]]:.2f} credits")

# %%
seen["measured service"] = used["n1"] > 5 * used["n2"]
print("bob pays something:          ", bills["bob"] > 0)
print("bob pays under half of alice:", bills["bob"] < bills["alice"] / 2)
lesson.check(7, bob_pays)

# %% [markdown] lang="en"
# Those were NIST's five. Has this lab shown each of them to you? Nothing below was typed in by hand, it was all measured above:

# %% [markdown] lang="zh" of="e76bc96d"
# 以上就是 NIST 的五个特征。这个实验室是否让你看到了每一个？下面没有一项是手工填写的，全部来自上面的实测：

# %%
for characteristic, shown in seen.items():
    print("✓" if shown else "✗", characteristic)

# %% [markdown] lang="en"
# **Exercise.** Idling is cheap, not free. For how many seconds may an idle guest of 384 MiB be kept before it has cost as much as one CPU second? (Use `bill`, or divide.)

# %% [markdown] lang="zh" of="fa273b84"
# **练习。** 闲置便宜，但不免费。一台 384 MiB 的闲置客户机保留多少秒，费用就等于一个 CPU 秒？（用 `bill` 试，或者直接除。）

# %%
idle_seconds = ...
lesson.check(8, idle_seconds)

# %% [markdown] lang="en"
# ## Users see a service, not machines
#
# Break it: the host of alice's guest loses its power. Her readers don't know which machine answers them, and don't care, as long as one does:

# %% [markdown] lang="zh" of="37e9e758"
# ## 用户看到的是服务，不是机器
#
# 弄坏它：alice 客户机所在的宿主机断电了。她的读者不知道是哪台机器在应答，也不关心，只要有一台应答就行：

# %%
alice.crash()
print(alice)
print("bob gets an answer:", bob.test("curl -s -m 1 http://n1/"))

# %% [markdown] lang="en"
# Repairing is not what a cloud does. It *replaces*: another request, the same name, the same recipe. What was only in the old guest's memory is lost, so a good service keeps nothing there.

# %% [markdown] lang="zh" of="10a1c185"
# 云不做修理，它做*替换*：再请求一台，同样的名字，同样的配方。只存在旧客户机内存里的东西丢失了，所以好的服务不把任何东西只放在那里。

# %%
release(alice)
alice = request("alice")
alice.succeed(page)
print("bob gets:", bob.succeed("curl -s http://n1/").strip())

# %% [markdown] lang="en"
# ## When the pool is empty
#
# The provider owns room for six. A crowd comes and requests until it can't. **Predict** what the request after the last one gets: `"an error"`, `"a slower guest"` or `"somebody else's guest"`?

# %% [markdown] lang="zh" of="ec089e31"
# ## 当资源池用尽
#
# 提供商只有六台的余地。来了一大群人，不停地请求，直到请求不到。**预测** 超出的那次请求得到什么：`"an error"`（一个错误）、`"a slower guest"`（更慢的客户机）还是 `"somebody else's guest"`（别人的客户机）？

# %%
gets = ...
lesson.predict(9, gets)

# %%
crowd = []
try:
    while True:
        crowd.append(request("crowd"))
except UsageError as error:
    print(error)
print(owners)
for machine in crowd:
    release(machine)
reap()
lesson.check(9, gets)

# %% [markdown] lang="en"
# ## Planning capacity
#
# A cloud *seems* endless because its provider sets quotas, keeps spare room, and plans. Here is a day's demand, in machines for each hour. Whoever *owns* machines must choose one number for the whole day. Too few (*under-provisioned*): demand is unserved. Too many (*over-provisioned*): machines idle. Elastic supply follows, here one hour late:

# %% [markdown] lang="zh" of="c9528bb8"
# ## 容量规划 (capacity planning)
#
# 云*看起来*无穷无尽，是因为提供商设定配额 (quota)、留有余量，并且做规划。下面是一天的需求，即每小时需要几台机器。*自购*机器的人必须为全天选定一个数。太少（配置不足，under-provisioned）：需求得不到满足。太多（过度配置，over-provisioned）：机器闲置。弹性供给则跟随需求，这里滞后一小时：

# %%
demand = [2, 1, 1, 1, 1, 2, 3, 5, 8, 9, 9, 8, 7, 8, 9, 9, 8, 7, 9, 12, 10, 7, 5, 3]
late = demand[-1:] + demand[:-1]

def split(supply):
    served = [min(wanted, there) for wanted, there in zip(demand, supply)]
    unserved = [wanted - done for wanted, done in zip(demand, served)]
    idle = [there - done for there, done in zip(supply, served)]
    return served, unserved, idle

# %% [markdown] lang="en"
# **Predict:** an owner who never wants to disappoint anybody buys for the busiest hour. By what factor may a rented machine-hour be dearer than an owned one, before renting costs more than owning? Guess first; then play.

# %% [markdown] lang="zh" of="207edff6"
# **预测：** 一个从不想让人失望的机主按最忙的一小时购买机器。租用的机器每台时的价格，可以是自有机器的多少倍，租才会比买贵？先猜，再动手。

# %%
break_even = ...
lesson.predict(10, break_even)

# %%
def step(label, supply):
    parts = split(supply)
    words = f"unserved {sum(parts[1])}, idle {sum(parts[2])} machine-hours a day"
    changes = [{"y": list(parts)}, {"title.text": words}]
    return dict(method="update", label=label, args=changes)

steps = [step(str(machines), [machines] * 24) for machines in range(13)]
steps.append(step("elastic", late))

# %% [markdown] lang="en"
# Drag the slider (it works without a kernel, too). Where is nothing unserved? Where does nothing idle? And `elastic`?

# %% [markdown] lang="zh" of="a3b7a801"
# 拖动滑块（没有内核时也能用）。图中 served 是已满足的需求，unserved 是未满足的需求，idle 是闲置。滑到哪里没有未满足的需求？哪里没有闲置？`elastic`（弹性）呢？

# %%
looks = {"served": ("#0072B2", ""), "unserved": ("#D55E00", "x"), "idle": ("#8A8A8A", "/")}
bars = [go.Bar(name=name, marker_color=colour, marker_pattern_shape=shape, y=y)
        for (name, (colour, shape)), y in zip(looks.items(), split([7] * 24))]
slider = dict(active=7, steps=steps, pad_t=40, currentvalue=dict(prefix="supply: "))
plan = go.Figure(bars).update_layout(barmode="stack", bargap=0.1, sliders=[slider], **plain)
plan.update_layout(title_text=steps[7]["args"][1]["title.text"], height=460)
plan.update_xaxes(title="hour", range=[-0.5, 23.5], dtick=2)
plan.update_yaxes(title="machines", range=[0, 13])

# %%
for choice in (4, 8, 12, -1):
    print(f"{steps[choice]['label']:>7}:", steps[choice]["args"][1]["title.text"])
print("buying for the peak:  ", max(demand) * 24, "machine-hours are paid")
print("renting what is used: ", sum(demand), "machine-hours are paid")
lesson.check(10, break_even)

# %% [markdown] lang="en"
# ## Three offers
#
# The lecture sorts what clouds offer into three. **Resources**: alice and bob have them, whole machines. **Data services**: the provider runs the machine, customers send and fetch. The provider opens one, a small store behind HTTP:

# %% [markdown] lang="zh" of="96a23134"
# ## 三类供给
#
# 讲义把云提供的东西分成三类。**资源**：alice 和 bob 已经有了，整台的机器。**数据服务**：机器由提供商运行，客户只管存取。提供商开设一个，即 HTTP 背后的小型存储：

# %%
def publish(function, code):
    script = f"#!/bin/sh\necho; cd /data\n{code}\n"
    server.put(f"/www/cgi-bin/{function}", script, mode=0o755)

server = request("the provider")
lab.link(server.name, "s1")
server.succeed("mkdir -p /www/cgi-bin /data; busybox httpd -h /www")
publish("data", "[ $REQUEST_METHOD = POST ] && cat > $QUERY_STRING; cat $QUERY_STRING")
bob.succeed("curl -s -d 42 http://n3/cgi-bin/data?answer")
print("alice fetches what bob stored:", alice.succeed("curl -s http://n3/cgi-bin/data?answer"))

# %% [markdown] lang="en"
# **Platforms**: customers push code, a machine of the provider runs it, and only results come back. The same function publishes *bob's* code:

# %% [markdown] lang="zh" of="b5b74fee"
# **平台**：客户推送代码，由提供商的机器运行，只返回结果。用的还是同一个函数，只是发布的是 *bob* 的代码：

# %%
publish("square", "echo $((QUERY_STRING * QUERY_STRING))")
print("12 squared:", bob.succeed("curl -s http://n3/cgi-bin/square?12").strip())

# %% [markdown] lang="en"
# **Exercise.** A hole is found in Linux. Who has to install the new kernel: `"you"`, the customer, or the `"provider"`? Write a list of three: with resources, with a data service, with a platform.

# %% [markdown] lang="zh" of="cabb4022"
# **练习。** Linux 里发现了一个漏洞。谁必须安装新内核：`"you"`（你，客户）还是 `"provider"`（提供商）？写一个三项的列表，依次对应资源、数据服务、平台。

# %%
who_patches = [..., ..., ...]
lesson.check(11, who_patches)

# %% [markdown] lang="en"
# ## Definitions, side by side
#
# | by | what they stress |
# |---|---|
# | Gartner | capabilities that are "scalable and elastic", delivered as a service |
# | Forrester | a pool of infrastructure that is "billed by consumption" |
# | NIST | "on-demand network access to a shared pool", handed out and taken back with little effort |
# | the textbook | distributed computing with a utility model |
#
# What you have seen: **A** the bill · **B** `request` and `release` at the door of one pool · **C** machines working together behind names, turned on and paid like water · **D** guests that follow the load.
#
# **Exercise.** Complete the table: which of A to D shows what Gartner, Forrester, NIST and the textbook stress? One letter each, in this order.

# %% [markdown] lang="zh" of="5d28cc62"
# ## 几种定义放在一起看
#
# | 出处 | 强调什么 |
# |---|---|
# | Gartner | 以服务形式交付的、“可扩展且有弹性 (scalable and elastic)”的能力 |
# | Forrester | “按消费量计费 (billed by consumption)”的基础设施池 |
# | NIST | “按需通过网络访问共享资源池 (on-demand network access to a shared pool)”，分配和回收都很省事 |
# | 教材 | 采用公用事业模式 (utility model) 的分布式计算 |
#
# 你见过的：**A** 账单 · **B** 同一个资源池门口的 `request` 和 `release` · **C** 藏在名字背后协同工作的机器，像自来水一样随开随用、按量付费 · **D** 跟随负载的客户机。
#
# **练习。** 补全这张表：Gartner、Forrester、NIST、教材所强调的，分别由 A 到 D 中的哪一个体现？按此顺序各写一个字母。

# %%
shown_by = [..., ..., ..., ...]
lesson.check(12, shown_by)

# %% [markdown] lang="en"
# ## A formula
#
# The lecture writes: **Cloud = Data × (Software + Platform + Infrastructure) × Service**. Python can multiply it out; each product is something that is sold "as a service":

# %% [markdown] lang="zh" of="a2a7e469"
# ## 一个公式
#
# 讲义写道：**云 = 数据 ×（软件 + 平台 + 基础设施）× 服务**。Python 可以把它展开；每一项都是一种“即服务 (as a Service)”的商品：

# %%
from itertools import product
data, service = ["Data"], ["Service"]
offers = ["Software", "Platform", "Infrastructure"]
for term in product(data, offers, service):
    print(" × ".join(term), "is called", term[1][0] + "aaS")
print("without data:", list(product([], offers, service)))

# %% [markdown] lang="en"
# A sum lets you choose; a product forgives nothing: with no data, or nobody to serve, no cloud is left. The X in *XaaS* is open: today `"Function"` is in the sum as well.
#
# **Exercise.** Put `"Function"` into `offers` and a second kind of data into `data`. How many products does the formula have now?

# %% [markdown] lang="zh" of="48c189a4"
# 求和让你任选其一；乘积则一个也不能少：没有数据，或者没有服务，云就什么也不剩。*XaaS* 中的 X 是开放的：如今 `"Function"`（函数）也在和式里。
#
# **练习。** 把 `"Function"` 加进 `offers`，再给 `data` 加上第二种数据。现在公式展开有几项？

# %%
terms = ...
lesson.check(13, terms)

# %% [markdown] lang="en"
# ## Exercises
#
# 1. Elastic supply that follows the day's demand *two* hours late: how many machine-hours are unserved? (`late` is one hour late; `split` does the rest.)
# 2. Which is the smallest number of *owned* machines with which less than a tenth of the day's demand is unserved? (The slider helps, or a loop over `split([n] * 24)`.)

# %% [markdown] lang="zh" of="56cd54d1"
# ## 练习
#
# 1. 弹性供给滞后*两*小时跟随这一天的需求：有多少台时的需求没有满足？（`late` 滞后一小时；其余的交给 `split`。）
# 2. *自购*机器最少几台，才能使全天未满足的需求不到十分之一？（用滑块，或者对 `split([n] * 24)` 写个循环。）

# %%
unserved_two_late = ...
lesson.check(14, unserved_two_late)
smallest = ...
lesson.check(15, smallest)

# %% [markdown] lang="en"
# ## Summary
#
# A cloud hands out parts of a shared pool: to anybody entitled, at once, over a network, as much as needed, and by meter. Customers see services; machines come and go behind them. Renting wins where demand varies by more than the price differs.
#
# | term | 中文 |
# |---|---|
# | on-demand self-service | 按需自助服务 |
# | broad network access | 广泛的网络接入 |
# | resource pooling, tenant | 资源池化，租户 |
# | rapid elasticity | 快速弹性 |
# | measured service, pay per use | 可计量的服务，按使用付费 |
# | utility model | 公用事业模式 |
#
# **Ask yourself:** which of the five does your own laptop have? Who pays for idle machines in a cloud?

# %% [markdown] lang="zh" of="bb225c52"
# ## 小结
#
# 云把共享资源池的一部分分出去：给任何有权的人，立刻，通过网络，要多少给多少，按表计费。客户看到的是服务；机器在其背后来来去去。需求的波动大于价格的差距时，租就更划算。
#
# | 术语 | English |
# |---|---|
# | 按需自助服务 | on-demand self-service |
# | 广泛的网络接入 | broad network access |
# | 资源池化，租户 | resource pooling, tenant |
# | 快速弹性 | rapid elasticity |
# | 可计量的服务，按使用付费 | measured service, pay per use |
# | 公用事业模式 | utility model |
#
# **问问自己：** 你自己的笔记本电脑具有五个特征中的哪几个？在云里，闲置的机器由谁付钱？

# %% [markdown] lang="en"
# **Further reading:** Mell and Grance, *The NIST Definition of Cloud Computing*, SP 800-145 (2011), three pages; Armbrust and others, *A View of Cloud Computing*, Communications of the ACM 53(4) (2010), on elasticity and the risk of planning wrong.
#
# How far did you get?

# %% [markdown] lang="zh" of="c6980c23"
# **延伸阅读：** Mell 与 Grance，*The NIST Definition of Cloud Computing*，SP 800-145 (2011)，正文只有三页；Armbrust 等，*A View of Cloud Computing*，Communications of the ACM 53(4) (2010)，讨论弹性以及规划失误的风险。
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
lesson.check(1, ["software", "machines", "platforms"])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(2, took, measured=took)

# %% tags=["solution"]
# A solution · 参考答案
def release(machine):
    del owners[machine.name]
    machine.close()

release(request("carol"))
lesson.check(3, len(orphans()))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(4, "broad network access")

# %% tags=["solution"]
# A solution · 参考答案
taken = alice.stats.memory_pss / 2**20
lesson.check(5, taken, measured=taken)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(6, sum(load))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(7, "less than half")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(8, PER_CPU_S / (PER_MIB_S * 384))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(9, "an error")

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(10, max(demand) * 24 / sum(demand))

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(11, ["you", "provider", "provider"])

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(12, ["D", "A", "B", "C"])

# %% tags=["solution"]
# A solution · 参考答案
print(len(list(product(data + ["More data"], offers + ["Function"], service))))
lesson.check(13, 8)

# %% tags=["solution"]
# A solution · 参考答案
lesson.check(14, sum(split(demand[-2:] + demand[:-2])[1]))

# %% tags=["solution"]
# A solution · 参考答案
unserved = {n: sum(split([n] * 24)[1]) for n in range(13)}
lesson.check(15, min(n for n in unserved if unserved[n] < sum(demand) / 10))

# %% [markdown] lang="en"
# Give everything back: a cloud's last lesson.

# %% [markdown] lang="zh" of="66c26bb7"
# 全部退还：这是云的最后一课。

# %%
print("stopped:", ", ".join(lab.close()))
