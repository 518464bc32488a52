"""What a learner sees: figures of what runs, timelines of what happened."""

from cloudlab.views.figure import figure
from cloudlab.views.lanes import Span
from cloudlab.views.live import Live, live
from cloudlab.views.meters import Meters, Sample, meters
from cloudlab.views.terminal import Terminal, terminal
from cloudlab.views.timeline import timeline

__all__ = ["Live", "Meters", "Sample", "Span", "Terminal", "figure", "live", "meters", "terminal", "timeline"]
