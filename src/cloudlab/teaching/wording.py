"""What a lesson says: plain, deterministic lines in English and then in Chinese, each behind its mark."""

from __future__ import annotations

from cloudlab.teaching.judge import allowed, example
from cloudlab.teaching.questions import Bilingual, Question

RIGHT, WRONG, OPEN = "✓", "✗", "…"


def say(mark: str, text: Bilingual) -> None:
    """Print one message in both languages."""
    print(f"{mark} {text.en}\n{mark} {text.zh}")  # noqa: T201 - this is the lesson's output


def show(value: object) -> str:
    """A learner's value in one short line that is the same in every run (no addresses, sets in order)."""
    if isinstance(value, set | frozenset):
        return _cut("{" + ", ".join(sorted(map(show, value))) + "}") if value else "set()"
    if isinstance(value, list | tuple):
        return _cut(f"[{', '.join(map(show, value))}]")
    if value is None or isinstance(value, str | int | float):
        return _cut(repr(value))
    return f"<{type(value).__name__}>"


def right(question: Question, prediction: str) -> Bilingual:
    """The worked explanation, and what the learner had predicted if that was something else."""
    en, zh = f"You predicted {prediction}. ", f"你的预测是 {prediction}。"
    return Bilingual(
        f"Question {question.id}: right. {en if prediction else ''}{question.explanation.en}",
        f"第 {question.id} 题：正确。{zh if prediction else ''}{question.explanation.zh}",
    )


def wrong(question: Question, attempt: int) -> Bilingual:
    """The hint, and from the second wrong answer on the further hint if there is one."""
    hint = (question.hint2 or question.hint) if attempt > 1 else question.hint
    return Bilingual(
        f"Question {question.id}: not yet. Hint: {hint.en}", f"第 {question.id} 题：还不对。提示：{hint.zh}"
    )


def unanswered(question: Question, measured: object) -> Bilingual:
    """What to write, and where."""
    line = example(question, measured)
    return Bilingual(
        f"Question {question.id} is open: {question.ask.en} "
        f"Write your answer in place of the three dots ..., as in {line}",
        f"第 {question.id} 题待答：{question.ask.zh}请把三个点 ... 换成你的答案，例如 {line}",
    )


def unreadable(question: Question, given: object, measured: object) -> Bilingual:
    """What was given, what is allowed, and a line that would work."""
    what, line, kind = allowed(question, measured), example(question, measured), type(given).__name__
    value = show(given)
    known = value if value.startswith("<") else f"{value} ({kind})"
    return Bilingual(
        f"Question {question.id}: you gave {known}. Allowed: {what.en}. Example: {line}",
        f"第 {question.id} 题：你给出的是 {known}。允许：{what.zh}。例如：{line}",
    )


def predicted(question: Question, value: str) -> Bilingual:
    """The prediction is noted; whether it holds is for the next cells to show."""
    return Bilingual(
        f"Prediction {question.id} noted: {value}. Run on and see.",
        f"第 {question.id} 题的预测已记下：{value}。接着运行，看看结果。",
    )


def not_predicted(question: Question) -> Bilingual:
    """A kind word to someone who has run past a prediction."""
    return Bilingual(
        f"Prediction {question.id} is open: {question.ask.en} "
        "Write a guess in place of the three dots ...; a wrong guess costs nothing and teaches most.",
        f"第 {question.id} 题等待预测：{question.ask.zh}请把三个点 ... 换成你的猜测；猜错不扣分，反而学得最多。",
    )


def progress(total: int, still_open: list[int]) -> Bilingual:
    """How many questions are right, and which are left."""
    done, numbers = total - len(still_open), ", ".join(map(str, still_open))
    en = f"{done} of {total} right" + (f"; still open: {numbers}." if still_open else ".")
    return Bilingual(en, f"共 {total} 题，答对 {done} 题" + (f"；待完成：{numbers}。" if still_open else "。"))


def _cut(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
