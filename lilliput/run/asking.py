"""The means to ask teachers: an endpoint or a folder, how many requests at a time, at which price."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lilliput.base.errors import DataError, LilliputError
from lilliput.data.corpora.teacher import Teacher
from lilliput.data.replies.asking import ANSWERS, Answering, AskedEndpoint, OwnAnswers
from lilliput.data.replies.endpoint import Endpoint
from lilliput.evals.question_files import Hub, QuestionSource
from lilliput.run.local_teacher import LocalTeacher
from lilliput.train.machine import Machine

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
"""Environment variables of the endpoint, as OpenAI's own library has them."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Means to ask the teachers of a recipe; no part of what they answer, so that a run may be resumed with others."""

    endpoint: str | None = None
    """Base URL; None for that of the environment."""
    concurrency: int = 8
    """Requests at a time."""
    price: tuple[float, float] | None = None
    """Price of a million tokens of prompts, and of replies; None if it is not to be told."""
    device: str = "auto"
    """For a teacher in a folder."""
    questions: QuestionSource = Hub()
    """Source of the evaluation sets that replies are compared with."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or (self.price is not None and min(self.price) < 0):
            raise LilliputError(
                f"{self.concurrency} requests at a time, at a price of {self.price}",
                where="how the teacher is asked",
                hint="give at least one request, and prices from 0",
            )


def price_of(text: str | None) -> tuple[float, float] | None:
    """The prices that `--price IN,OUT` names.

    Raises:
        LilliputError: it names none.
    """
    if text is None:
        return None
    try:
        prompts, replies = map(float, text.split(","))
    except ValueError as error:
        raise LilliputError(
            f"{text!r:.80} is not two prices", where="--price", hint="give both per million tokens: --price 0.10,0.40"
        ) from error
    return prompts, replies


def endpoint_of(model: str, asking: Asking, environment: Mapping[str, str] = os.environ) -> Endpoint | None:
    """Return the endpoint of a model, with the key of the environment; None where no endpoint is given."""
    url = asking.endpoint or environment.get(URL)
    return Endpoint(url=url, model=model, key=environment.get(KEY) or None) if url else None


def answering(teacher: Teacher, asking: Asking, environment: Mapping[str, str] = os.environ) -> Answering:
    """Return what answers for a teacher: a folder of its name, or else the endpoint.

    Raises:
        DataError: there is neither.
    """
    if teacher.asked == ANSWERS:
        return OwnAnswers(settings=teacher.settings)
    if (folder := Path(teacher.asked).expanduser()).is_dir():
        return LocalTeacher(folder, teacher.settings, Machine(device=asking.device).resolved().device)
    if (endpoint := endpoint_of(teacher.asked, asking, environment)) is not None:
        return AskedEndpoint(endpoint=endpoint, settings=teacher.settings, concurrency=asking.concurrency)
    raise DataError(
        f"the teacher {teacher.asked!r} is not here: no folder has that name, and no endpoint is given",
        where="corpora of the recipe, Teacher.model",
        hint=f"give --endpoint http://HOST:PORT/v1 (or {URL}) where it answers; ask another one, marked as a stand-in: "
        "--set corpora.NAME.stand_in=FOLDER; or read replies that you have: --source NAME=PATH",
    )
