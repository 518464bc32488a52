"""Lessons: questions and predictions, sources shown in a cell, and the builder of bilingual notebooks."""

from __future__ import annotations

from cloudlab.teaching.lesson import Lesson
from cloudlab.teaching.source import show_source

__all__ = ["Lesson", "show_source"]
