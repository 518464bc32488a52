"""What a learner sees: figures of what runs, timelines of what happened."""

from cloudlab.views.cgroups import CgroupTree, cgroup_tree
from cloudlab.views.figure import figure
from cloudlab.views.lanes import Span
from cloudlab.views.layers import LayerStack, layer_stack
from cloudlab.views.live import Live, live
from cloudlab.views.meters import Meters, meters
from cloudlab.views.namespaces import NamespaceMatrix, namespace_matrix
from cloudlab.views.readings import Sample
from cloudlab.views.steps import Parts, parts
from cloudlab.views.terminal import Terminal, terminal
from cloudlab.views.timeline import timeline

__all__ = [
    "CgroupTree",
    "LayerStack",
    "Live",
    "Meters",
    "NamespaceMatrix",
    "Parts",
    "Sample",
    "Span",
    "Terminal",
    "cgroup_tree",
    "figure",
    "layer_stack",
    "live",
    "meters",
    "namespace_matrix",
    "parts",
    "terminal",
    "timeline",
]
