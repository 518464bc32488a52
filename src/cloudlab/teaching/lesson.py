"""`Lesson`: the questions of one notebook. The learner predicts, runs, and has the answer checked."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

from cloudlab.errors import UsageError
from cloudlab.teaching import wording
from cloudlab.teaching.judge import Verdict, judge
from cloudlab.teaching.places import known_lessons, lessons_dir
from cloudlab.teaching.questions import Question, load_questions

_T = TypeVar("_T")


class Lesson:
    """The questions of one lesson: `Lesson("3-containers/02-cgroups")`.

    `predict` notes a guess before the experiment; `check` compares an answer and explains; a wrong one raises
    nothing. What they print is the same in every run, so that a notebook's outputs can be compared.
    UsageError for a lesson that doesn't exist.
    """

    def __init__(self, lesson_id: str) -> None:
        self.id = lesson_id
        root = lessons_dir()
        known = known_lessons(root)
        if lesson_id not in known:
            raise UsageError(
                f"There is no lesson {lesson_id!r} in {root}.",
                allowed=", ".join(known) or "no lesson is there yet",
                example=f'Lesson("{known[0]}")' if known else "",
            )
        self._questions = load_questions(root / f"{lesson_id}.questions.toml")
        self._predictions: dict[int, str] = {}
        self._wrong: dict[int, int] = {}
        self._results: dict[int, bool] = {}

    def __repr__(self) -> str:
        return f"Lesson({self.id!r}): {len(self._questions)} questions"

    @property
    def results(self) -> dict[int, bool]:
        """Question number -> whether the last answer was right; a question never answered is not in it."""
        return dict(self._results)

    def predict(self, n: int, value: object) -> None:
        """Note a prediction for question `n`; `...` means that there is none yet."""
        question = self._question(n)
        if value is ...:
            wording.say(wording.OPEN, wording.not_predicted(question))
            return
        self._predictions[n] = wording.show(value)
        wording.say(wording.OPEN, wording.predicted(question, self._predictions[n]))

    def check(self, n: int, answer: object, measured: object = None) -> None:
        """Compare an answer to question `n` and print a hint or the worked explanation.

        `measured` is the truth for questions of that kind, found by the experiment just run. An answer of the
        wrong type is explained and not counted.
        """
        question = self._question(n)
        match judge(question, answer, measured):
            case Verdict.UNANSWERED:
                wording.say(wording.OPEN, wording.unanswered(question, measured))
            case Verdict.UNREADABLE:
                wording.say(wording.WRONG, wording.unreadable(question, answer, measured))
            case Verdict.WRONG:
                self._results[n] = False
                self._wrong[n] = self._wrong.get(n, 0) + 1
                wording.say(wording.WRONG, wording.wrong(question, self._wrong[n]))
            case Verdict.RIGHT:
                self._results[n] = True
                predicted = self._predictions.get(n, "")
                same = predicted == wording.show(answer)
                wording.say(wording.RIGHT, wording.right(question, "" if same else predicted))

    def progress(self) -> None:
        """Print how many questions are right and which are left."""
        left = [n for n in sorted(self._questions) if not self._results.get(n)]
        wording.say(wording.OPEN if left else wording.RIGHT, wording.progress(len(self._questions), left))

    def variant(self, seed: str | None = None) -> random.Random:
        """Random numbers of this learner's own: the same in every run, others for another `CLOUDLAB_STUDENT`.

        `seed` takes the place of the student's name, so that a teacher can see somebody's numbers.
        """
        return self._random(seed, "")

    def pick(self, name: str, choices: Sequence[_T]) -> _T:
        """One of `choices`, this learner's own; a pick under another name is independent of it."""
        if not choices:
            raise UsageError(
                f"pick({name!r}) has nothing to choose from.",
                allowed="at least one",
                example='pick("memory", [64, 96])',
            )
        return self._random(None, name).choice(choices)

    def _random(self, seed: str | None, name: str) -> random.Random:
        student = os.environ.get("CLOUDLAB_STUDENT", "") if seed is None else seed
        # Seeding by text is stable over Python versions (random.seed, version 2), unlike hash().
        return random.Random(f"{student}\n{self.id}\n{name}")

    def _question(self, n: int) -> Question:
        if n not in self._questions:
            numbers = ", ".join(map(str, sorted(self._questions)))
            raise UsageError(
                f"Lesson {self.id} has no question {n!r}.",
                allowed=numbers or "no question is there yet",
                example=f"lesson.check({min(self._questions)}, ...)" if self._questions else "",
            )
        return self._questions[n]
